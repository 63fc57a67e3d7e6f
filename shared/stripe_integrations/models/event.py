"""Stripe's events: each record proves that the event is stored, and is its place in the queue.

An event is `pending` (to be applied) or `waiting` (its customer is unknown) until it is `applied`,
`ignored` (for a stated reason) or `failed` (with its reason, and a message in the dead-letter
queue). Applied and ignored events expire; a failed one remains until it is replayed.

An unfinished event has the time of its next attempt. The index `by_queue` contains the unfinished
events, in a few partitions, and the failed ones. Waiting events, most of which are of customers
that are not ours, have a separate partition, so that they do not delay pending ones.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pynamodb.attributes import TTLAttribute
from pynamodb.exceptions import PutError, PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.errors import (
    MalformedRequestError,
    MessageNotSentError,
    NewerSchemaError,
)
from stripe_integrations.limits import CLOCK_SKEW_SECONDS
from stripe_integrations.models.event_payload import (
    MAX_ID_LENGTH,
    CompressedJson,
    customer_id_of,
    event_second,
    id_of,
    is_storable,
    payment_method_id_of,
)
from stripe_integrations.models.fields import (
    Choice,
    Document,
    Flag,
    Integer,
    Moment,
    Text,
    read_stripe,
    required,
    value_at,
)
from stripe_integrations.models.pointer import Owner
from stripe_integrations.models.retry import claim_expires_at
from stripe_integrations.models.table import CONDITION_FAILED, Record, error_code, unavailable

MAX_ATTEMPTS = 40
"""With the pauses between them these take almost three days, as long as Stripe itself retries."""

QUEUES = tuple(map(str, range(4)))
"""The partitions of the pending events: each takes 1,000 writes a second."""
WAITING_QUEUE = "waiting"
"""The partition of the waiting events."""
FAILED_QUEUE = "failed"
_MAX_REQUEST_BYTES = 10_000
_STREAM_SECONDS = 120
"""How long the stream has to invoke apply_event for a new event, before the schedule does."""
WAITING_SECONDS = 24 * 3600
"""The time after which an unknown customer is looked up for the last time."""
UNKNOWN_CUSTOMER = "not a customer of ours"
"""The reason of an ignored event whose customer is unknown."""
ERASED = "erased"
"""The reason of an event whose customer was erased: whatever its state, it has no payload."""
TOO_OLD = "too old to know whether it was handled"
"""The reason of an ignored event that is older than the retention."""
_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 60, 9000


class EventState(StrEnum):
    """The state of an event."""

    PENDING = "pending"
    WAITING = "waiting"
    APPLIED = "applied"
    IGNORED = "ignored"
    FAILED = "failed"


class Event(Record, discriminator="Event"):
    """One of Stripe's events, as it was received.

    `webhook_message` is the payload; None where it was too large for the table. `valid` says that
    its signature was verified, or that Stripe's list of events has it. `next_attempt` is in Unix
    seconds. Follows https://docs.stripe.com/api/events/object.
    """

    stripe_id = required(Text(event="id"))
    object = Text(event="object")
    kind = required(Text(event="type"))
    livemode = Flag(event="livemode")
    account = Text(event="account")
    api_version = Text(event="api_version")
    created = required(Integer())
    request = Document(event="request")
    pending_webhooks = Integer(event="pending_webhooks")
    webhook_message = CompressedJson()
    valid = required(Flag())
    customer_id = Text()
    payment_method_id = Text()
    """Only of payment_method.* events: a detached PaymentMethod may name no customer."""
    user_id = Text()
    state = required(Choice(EventState))
    reason = Text()
    attempts = required(Integer())
    turn = required(Integer())
    """Incremented by each claim, effect, link of a waiting event, scheduled retry and replay. A
    worker writes the event only on condition that the turn is still the one that it read."""
    last_error = Text()
    claimed_at = Moment()
    effected_at = Moment()
    published_at = Moment()
    queue = Text()
    next_attempt = Integer()
    received_at = required(Moment())
    replayed_at = Moment()
    expires_at = TTLAttribute(null=True)

    SORT_KEY = "EVENT"

    is_stored = True
    """False until the event is stored."""
    is_claimed = True
    """False in a first attempt, whose claim is the receipt of the event, until it takes effect."""

    @staticmethod
    def key(stripe_id: str) -> str:
        """The partition key of one event."""
        return f"EVENT#{stripe_id}"

    @property
    def id_in_key(self) -> str:
        """The event's id, which the indexes have only as part of the key."""
        return self.pk.removeprefix(Event.key(""))

    @classmethod
    def received(cls, payload: Mapping[str, Any], *, valid: bool) -> Event:
        """Make the record of an event that has just arrived, not stored yet.

        Parameters
        ----------
        payload : mapping
            Stripe's event object.
        valid : bool
            Whether it is known to be Stripe's.

        Raises
        ------
        MalformedRequestError
            It is not one of Stripe's events: it has no event id, or no type. Nothing else that is
            odd about it prevents its storage.
        """
        stripe_id = id_of(payload.get("id"))
        if stripe_id is None or not stripe_id.startswith("evt_"):
            raise MalformedRequestError("not a Stripe event: no event id")
        kind = payload.get("type")
        if not isinstance(kind, str) or len(kind) > MAX_ID_LENGTH:
            raise MalformedRequestError("not a Stripe event: no type")
        event = cls(
            cls.key(stripe_id),
            cls.SORT_KEY,
            customer_id=customer_id_of(payload),
            payment_method_id=payment_method_id_of(payload),
            created=event_second(payload),
            webhook_message=dict(payload) if is_storable(payload) else None,
            valid=valid,
            state=EventState.PENDING,
            attempts=0,
            turn=0,
            queue=_queue_of(stripe_id),
            next_attempt=int(current().clock()) + _STREAM_SECONDS,
            received_at=current().now(),
            **read_stripe(cls, "event", payload),
        )
        if payload.get("account"):
            # Whatever its type, it is an account.
            event.account = event.account or "unknown"
        for name in ("account", "api_version"):
            if len(getattr(event, name) or "") > MAX_ID_LENGTH:
                setattr(event, name, "too long")
        if len(json.dumps(event.request)) > _MAX_REQUEST_BYTES:
            event.request = None
        event.is_stored = False
        if event.is_too_old:
            event.ignore(TOO_OLD)
            event.drop_payload()
        return event

    @property
    def processed(self) -> bool:
        """Whether nothing remains to be done."""
        return self.state not in _UNFINISHED

    @property
    def data_object(self) -> Mapping[str, Any]:
        """The object of the payload; empty where the payload was not stored."""
        data_object = value_at(self.webhook_message, "data", "object")
        return data_object if isinstance(data_object, Mapping) else {}

    @property
    def named_id(self) -> str | None:
        """The id of its customer, or else of its PaymentMethod, which may have a pointer."""
        return self.customer_id or self.payment_method_id

    @property
    def idempotency_key(self) -> str | None:
        """The key of the request that caused it; None where there was no request, or no key."""
        key = value_at(self.request, "idempotency_key")
        return key if isinstance(key, str) else None

    def age(self) -> timedelta:
        """The time since the event was received, or replayed."""
        return current().now() - (self.replayed_at or self.received_at)

    # ---- received

    def ignore(self, reason: str) -> None:
        """Set the state of a new event to ignored."""
        self.state = EventState.IGNORED
        self.reason = reason
        self.queue = self.next_attempt = None
        self.expires_at = _expiry()

    def wait(self) -> None:
        """Set the state of a new event to waiting."""
        self.state = EventState.WAITING
        self.queue = WAITING_QUEUE
        self.next_attempt = int(current().clock()) + WAITING_SECONDS

    def ignore_as_erased(self) -> None:
        """Set the state of a new event whose customer was erased: it is stored without payload."""
        self.ignore(ERASED)
        self.drop_payload()
        self.request = None

    def drop_payload(self) -> None:
        """Store a new event without its payload, which may contain personal data."""
        self.webhook_message = None

    @property
    def is_too_old(self) -> bool:
        """Whether it is older than the retention: its record may have expired.

        Events of a test clock are not: the clock may be in the past.
        """
        is_on_test_clock = self.data_object.get("test_clock") is not None
        return not is_on_test_clock and self.created < (current().now() - _retention()).timestamp()

    def store(self) -> Event:
        """Store the event, unless it is stored already.

        Returns
        -------
        Event
            The stored record: this one, or the one that came first.
        """
        try:
            self.save(Event.pk.does_not_exist())
        except PutError as error:
            if error_code(error) == CONDITION_FAILED:
                with suppress(NewerSchemaError):  # it is stored all the same
                    stored = Event.find(self.stripe_id) or self
                    stored._replace_payload(self)
                    return stored
                return self
            raise unavailable(error) from error
        self.is_stored = True
        return self

    def _replace_payload(self, delivery: Event) -> None:
        """Replace an unfinished event's payload if only the new delivery is in our API version.

        Stripe delivers an event to each endpoint, in the version of the endpoint.
        """
        if self.processed or delivery.webhook_message is None:
            return
        if self.api_version == API_VERSION or delivery.api_version != API_VERSION:
            return
        actions: list[Action] = [
            Event.api_version.set(delivery.api_version),
            Event.webhook_message.set(delivery.webhook_message),
        ]
        self.update_if(actions, self._holds_turn())

    def link(self, owner: Owner) -> Event:
        """Link the event to its customer, and store it unless it is stored.

        One of an unassigned customer is linked to no user: the customer may have one when the event
        is applied.

        Returns
        -------
        Event
            The stored record.
        """
        self.user_id, self.customer_id = owner
        if self.is_stored and self.state is EventState.WAITING:
            due = Event.next_attempt.set(int(current().clock()))
            actions = [*self._pending_actions(), due, *self._link_actions()]
            self.update_if(actions, self._holds_turn())
            return self
        if self.is_stored:
            is_erased: Condition = Event.reason == ERASED
            self.update_if(self._link_actions(), Event.pk.exists() & ~is_erased)
            return self
        stored = self.store()
        # One that has ended had its effect when the customer had another user, or none.
        is_done = stored is self or stored.processed or stored._is_linked_to(owner)
        return stored if is_done else stored.link(owner)

    @classmethod
    def find(cls, stripe_id: str) -> Event | None:
        """Read an event, strongly consistent."""
        return cls.read_one(cls.key(stripe_id), cls.SORT_KEY)

    @classmethod
    def find_all(cls, stripe_ids: Iterable[str]) -> dict[str, Event]:
        """Return the stored ones among some events, by id, each with its state and reason."""
        keys = [(cls.key(stripe_id), cls.SORT_KEY) for stripe_id in stripe_ids]
        names = ["pk", "record_type", "state", "reason"]
        try:
            found = cls.batch_get(keys, consistent_read=True, attributes_to_get=names)
            return {event.id_in_key: event for event in found}
        except PynamoDBException as error:
            raise unavailable(error) from error

    @classmethod
    def read_without_payloads(cls, stripe_ids: Iterable[str]) -> dict[str, Event]:
        """Return the stored ones among at most 100 events, by id, without their payloads."""
        keys = [(cls.key(stripe_id), cls.SORT_KEY) for stripe_id in stripe_ids]
        names = [name for name in cls.get_attributes() if name != "webhook_message"]
        try:
            found = cls.batch_get(keys, consistent_read=True, attributes_to_get=names)
            return {event.id_in_key: event for event in found}
        except PynamoDBException as error:
            raise unavailable(error) from error

    # ---- attempts

    @classmethod
    def claim(cls, stripe_id: str) -> Event | None:
        """Claim an unfinished event to attempt it: the attempt is counted before it starts.

        Other workers don't claim the event while an attempt may be in progress. A waiting event can
        be claimed at any time, since its customer may be known by now.

        Returns
        -------
        Event or None
            The stored event; None where it is finished, missing, or claimed by another worker.
        """
        event = cls(cls.key(stripe_id), cls.SORT_KEY)
        now = current().clock()
        is_free: Condition = (
            (Event.attempts == 0)
            | (Event.next_attempt <= int(now))
            | ((Event.state == EventState.WAITING) & Event.claimed_at.does_not_exist())
        )
        actions: list[Action] = [
            Event.attempts.add(1),
            Event.turn.add(1),
            Event.next_attempt.set(claim_expires_at()),
            Event.claimed_at.set(current().now()),
        ]
        return event if event.update_if(actions, _is_unfinished() & is_free) else None

    @classmethod
    def begin_first_attempts(cls, stripe_ids: Sequence[str]) -> list[Event]:
        """Begin the attempts of events for which the stream has invoked this worker.

        No other worker attempts a new event until `next_attempt`, so its receipt is the claim of
        the first attempt, which costs no write. The attempt is counted with its outcome; if the
        process dies before, the next attempt is claimed. An event that is attempted late, or not
        for the first time, is claimed.

        Parameters
        ----------
        stripe_ids : sequence of str
            Ids of the events.

        Returns
        -------
        list of Event
            Without those that are finished, missing, or claimed by another worker.
        """
        try:
            keys = [(cls.key(stripe_id), cls.SORT_KEY) for stripe_id in stripe_ids]
            stored = list(cls.batch_get(keys, consistent_read=True))
        except NewerSchemaError:  # each is claimed, if this release can read it
            return [event for event in map(cls.claim, stripe_ids) if event]
        except PynamoDBException as error:
            raise unavailable(error) from error
        begun = [event._begin_first_attempt() for event in stored if not event.processed]
        return [event for event in begun if event]

    def _begin_first_attempt(self) -> Event | None:
        is_new = self.state is EventState.PENDING and not self.attempts
        if not is_new or (self.next_attempt or 0) < claim_expires_at():
            return Event.claim(self.stripe_id)
        self.attempts, self.is_claimed = 1, False
        return self

    @property
    def is_exhausted(self) -> bool:
        """Whether no attempt is left."""
        return self.attempts > MAX_ATTEMPTS

    def note_effect(self, transaction: TransactWrite) -> None:
        """Note in the transaction of the effect that the event took effect, and ends later.

        This also claims its side effects. After the commit, call `take_next_turn`.
        """
        actions = [Event.effected_at.set(current().now()), *self._claim_actions()]
        transaction.update(self, actions, self._holds_turn())

    def take_next_turn(self) -> None:
        """Set the turn to the one that `note_effect` has written."""
        self.turn += 1
        self.next_attempt = claim_expires_at()
        self.is_claimed = True

    def confirm_claim(self) -> bool:
        """Return whether no other worker has claimed the event, even if this one was slow.

        An event whose claim is its receipt is claimed by this call, before its side effects.
        """
        if not self.is_claimed:
            self.is_claimed = self._update_in_turn(self._claim_actions())
            return self.is_claimed
        ends = (self.next_attempt or 0) - CLOCK_SKEW_SECONDS
        return current().clock() < ends or self.holds_turn()

    def note_publication(self) -> bool:
        """Note that the event was published, and return whether it is still this worker's turn."""
        return self._update_in_turn([Event.published_at.set(current().now())])

    def link_waiting(self, owner: Owner) -> bool:
        """Link a waiting event to its customer, and return whether this worker has done it.

        The link is a claim: if several workers find the customer, only one applies the event.
        """
        self.user_id, self.customer_id = owner
        actions = [*self._pending_actions(), *self._link_actions()]
        return self.update_if(actions, self._holds_turn())

    def finish_in(
        self, transaction: TransactWrite, state: EventState, reason: str | None = None
    ) -> None:
        """End the event in the transaction of its effect."""
        actions = [*self._finish_actions(state, reason), self._count_attempt()]
        transaction.update(self, actions, self._holds_turn())

    def finish(self, state: EventState, reason: str | None = None) -> bool:
        """End the event by a write of its own, unless it has ended.

        Parameters
        ----------
        state, reason : str
            How it ends, and why.

        Returns
        -------
        bool
            Whether this call has ended it.
        """
        actions = [*self._finish_actions(state, reason), self._count_attempt()]
        return self.update_if(actions, self._holds_turn())

    def fail(self, reason: str) -> None:
        """Mark an unfinished event as failed: it is stored until it is replayed.

        Parameters
        ----------
        reason : str
            Why, without values.
        """
        actions: list[Action] = [
            Event.state.set(EventState.FAILED),
            Event.reason.set(reason),
            Event.queue.set(FAILED_QUEUE),
            Event.next_attempt.set(int(current().clock())),
            Event.claimed_at.remove(),
            self._count_attempt(),
        ]
        self.update_if(actions, self._holds_turn())

    def holds_turn(self) -> bool:
        """Read whether no other worker has claimed or ended the event since it was read."""
        stored = Event.find(self.stripe_id)
        return stored is not None and not stored.processed and stored.turn == self.turn

    def schedule_retry(self, error: BaseException) -> None:
        """Schedule the next attempt after a failed one, and note the type of the error, no value.

        A waiting event remains waiting until its customer is found.
        """
        actions: list[Action] = []
        hides_cause = isinstance(error, MessageNotSentError) and self.last_error
        # What failed before the dead-letter queue did is more useful to know.
        if not hides_cause:
            actions.append(Event.last_error.set(type(error).__name__))
        backoff = min(
            _FIRST_BACKOFF_SECONDS * 2 ** min(self.attempts - 1, 10), _MAX_BACKOFF_SECONDS
        )
        self._schedule(actions, current().jittered(backoff))

    def continue_waiting(self) -> None:
        """Schedule the last lookup of its customer."""
        seconds = WAITING_SECONDS - self.age().total_seconds()
        actions = [
            Event.state.set(EventState.WAITING),
            Event.queue.set(WAITING_QUEUE),
        ]
        self._schedule(actions, max(seconds, _FIRST_BACKOFF_SECONDS))

    def has_waited_too_long(self) -> bool:
        """Return whether its customer has been unknown for so long that it can't be ours."""
        return self.age() >= timedelta(seconds=WAITING_SECONDS)

    @classmethod
    def finish_waiting(cls, stripe_id: str) -> None:
        """Ignore a waiting event whose customer is still unknown, without a claim."""
        event = cls(cls.key(stripe_id), cls.SORT_KEY)
        is_unclaimed: Condition = (Event.state == EventState.WAITING) & (
            Event.next_attempt <= int(current().clock())
        )
        actions = [*event._finish_actions(EventState.IGNORED, UNKNOWN_CUSTOMER), Event.turn.add(1)]
        event.update_if(actions, is_unclaimed)

    @classmethod
    def erase(cls, stripe_id: str) -> None:
        """Remove the payload and the user of an event whose customer was erased, and end it.

        One that has been applied, or ignored, keeps its state.
        """
        event = cls(cls.key(stripe_id), cls.SORT_KEY)
        has_ended: Condition = Event.state.is_in(EventState.APPLIED, EventState.IGNORED)
        ended = [*event._finish_actions(EventState.IGNORED, ERASED), Event.turn.add(1)]
        blanked = [Event.reason.set(ERASED), *_erasing_actions()]
        if not event.update_if(ended, Event.pk.exists() & ~has_ended):
            event.update_if(blanked, has_ended)

    @classmethod
    def requeue_after_unknown_customer(cls, stripe_id: str) -> None:
        """Requeue an event that was ignored because its customer was unknown."""
        has_ended: Condition = (Event.state == EventState.IGNORED) & (
            Event.reason == UNKNOWN_CUSTOMER
        )
        cls.requeue(stripe_id, has_ended)

    @classmethod
    def requeue(cls, stripe_id: str, condition: Condition | None = None) -> bool:
        """Put an event back into the queue, whatever its state.

        Its payload is not trusted any more: the customer will be fetched.

        Parameters
        ----------
        stripe_id : str
            The event's id.
        condition : Condition, optional
            The condition of the write; by default, that the event is stored.

        Returns
        -------
        bool
            False where there is no such event.
        """
        actions: list[Action] = [
            Event.state.set(EventState.PENDING),
            Event.attempts.set(0),
            Event.turn.add(1),
            Event.queue.set(_queue_of(stripe_id)),
            Event.next_attempt.set(int(current().clock())),
            Event.replayed_at.set(current().now()),
            Event.claimed_at.remove(),
            Event.effected_at.remove(),
            Event.published_at.remove(),
            Event.last_error.remove(),
            Event.reason.remove(),
            Event.expires_at.remove(),
        ]
        event = cls(cls.key(stripe_id), cls.SORT_KEY)
        return event.update_if(actions, Event.pk.exists() if condition is None else condition)

    def _schedule(self, actions: Sequence[Action], seconds: float) -> None:
        next_attempt = int(current().clock() + seconds)
        actions = [
            *actions,
            Event.next_attempt.set(next_attempt),
            Event.turn.set(self.turn + 1),
            Event.claimed_at.remove(),
            self._count_attempt(),
        ]
        self.update_if(actions, self._holds_turn())

    def _update_in_turn(self, actions: list[Action]) -> bool:
        """Update the event if it is still this worker's turn, and return whether it is.

        The link to the customer, which only the end of the event stores, remains set.
        """
        owner = self.user_id, self.customer_id
        is_written = self.update_if(actions, self._holds_turn())
        self.user_id, self.customer_id = owner
        return is_written

    def _claim_actions(self) -> list[Action]:
        """The actions by which an attempt claims the side effects, and is counted."""
        return [
            Event.turn.set(self.turn + 1),
            Event.next_attempt.set(claim_expires_at()),
            Event.claimed_at.set(current().now()),
            self._count_attempt(),
        ]

    def _count_attempt(self) -> Action:
        """The action that stores the number of the attempt: a first one has not stored it yet."""
        return Event.attempts.set(self.attempts)

    def _pending_actions(self) -> list[Action]:
        """The actions that make a waiting event pending."""
        return [
            Event.state.set(EventState.PENDING),
            Event.queue.set(_queue_of(self.stripe_id)),
            Event.turn.set(self.turn + 1),
        ]

    def _holds_turn(self) -> Condition:
        holds_turn: Condition = _is_unfinished() & (Event.turn == self.turn)
        return holds_turn

    def _finish_actions(self, state: EventState, reason: str | None) -> list[Action]:
        further = self._link_actions()
        if reason == UNKNOWN_CUSTOMER:
            further.append(Event.webhook_message.remove())
        elif reason == ERASED:
            further = _erasing_actions()
        return [
            Event.state.set(state),
            Event.expires_at.set(_expiry()),
            Event.queue.remove(),
            Event.next_attempt.remove(),
            Event.claimed_at.remove(),
            Event.last_error.remove(),
            Event.reason.set(reason) if reason else Event.reason.remove(),
            *further,
        ]

    def _is_linked_to(self, owner: Owner) -> bool:
        """Return whether it is linked to a user already, or needs no link to one."""
        if owner.user_id is not None or self.state is EventState.WAITING:
            return self.user_id is not None
        return self.customer_id == owner.customer_id

    def _link_actions(self) -> list[Action]:
        if self.customer_id is None:
            return []
        to_user = [] if self.user_id is None else [Event.user_id.set(self.user_id)]
        return [*to_user, Event.customer_id.set(self.customer_id)]


_UNFINISHED = (EventState.PENDING, EventState.WAITING)


def _queue_of(stripe_id: str) -> str:
    return QUEUES[zlib.crc32(stripe_id.encode()) % len(QUEUES)]


def _is_unfinished() -> Condition:
    condition: Condition = Event.state.is_in(*_UNFINISHED)
    return condition


def _erasing_actions() -> list[Action]:
    """The actions that remove what an event has besides ids, its type and its state."""
    return [Event.webhook_message.remove(), Event.request.remove(), Event.user_id.remove()]


def _expiry() -> datetime:
    return current().now() + _retention()


def _retention() -> timedelta:
    return timedelta(days=current().settings.event_retention_days)
