"""Stripe's events: each record is the proof that the event is safe, and its place in the queue.

An event is `pending` (to be applied) or `waiting` (its customer is not known yet) until it is
`applied`, `ignored` (for a stated reason) or `failed` (with its reason, and a message in the
dead-letter queue). Applied and ignored ones expire; a failed one stands until it is replayed.

An unfinished event says when it is to be tried next. The index `by_queue` holds the unfinished
ones, spread over a few partitions, and the failed ones.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from pynamodb.attributes import TTLAttribute
from pynamodb.constants import BINARY
from pynamodb.exceptions import PutError, PynamoDBException, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import (
    MalformedRequestError,
    MessageNotSentError,
    NewerSchemaError,
)
from stripe_integrations.models.fields import (
    Document,
    Flag,
    Integer,
    Moment,
    StripeField,
    Text,
    depth,
    is_text,
    read_stripe,
    value_at,
)
from stripe_integrations.models.observation import CLOCK_SKEW_SECONDS
from stripe_integrations.models.pointer import Owner
from stripe_integrations.models.table import CONDITION_FAILED, Record, error_code, unavailable

_PAYLOAD_LIMIT_BYTES = 350_000
"""Below DynamoDB's 400 KB an item, with room for the other attributes."""
_DEEPEST_PAYLOAD = 100
"""Levels of nesting; Stripe's objects have a dozen, and what is stored has to be read again."""
_REQUEST_LIMIT_BYTES = 10_000

_LONGEST_ID = 255
"""Stripe's own limit: https://docs.stripe.com/upgrades"""
_LATEST = 253_402_300_799
"""The end of the year 9999 in Unix seconds."""

UNFINISHED = ("pending", "waiting")
MAX_ATTEMPTS = 40
"""With the pauses between them these take almost three days, as long as Stripe itself retries."""

_QUEUES = 8
_FAILED = "failed"
_STREAM_SECONDS = 120
"""How long the stream has to process_stream_records for a new event, before the schedule looks after it."""
_CLAIM_SECONDS = 120
"""How long a try may take, where the invocation does not end before."""
_SCANNED = 1000
_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 60, 7200


Json = dict[str, Any]


class CompressedJson(StripeField[dict[str, Any] | None]):
    """A JSON object, kept compressed."""

    attr_type = BINARY

    def serialize(self, value: dict[str, Any]) -> bytes:
        return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 6)

    def deserialize(self, value: bytes) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(zlib.decompress(value))
        return payload


@dataclass(frozen=True)
class QueueEntry:
    """An event as the queue's index shows it, a moment late.

    Parameters
    ----------
    stripe_id : str
        The event's id.
    customer_id : str or None
        The Stripe customer that it names.
    was_interrupted : bool
        Whether the last try at it has not ended, or not yet.
    """

    stripe_id: str
    customer_id: str | None
    was_interrupted: bool


class Event(Record, discriminator="Event"):
    """One of Stripe's events, as it was received.

    `webhook_message` is the payload; None where it was too large for the table. `valid` says that
    its signature was verified, or that Stripe's own list had it. `next_try` is in Unix seconds.
    Follows https://docs.stripe.com/api/events/object.
    """

    stripe_id = Text(event="id")
    object = Text(event="object")
    kind = Text(event="type")
    livemode = Flag(event="livemode")
    account = Text(event="account")
    api_version = Text(event="api_version")
    created = Integer()
    request = Document(event="request")
    pending_webhooks = Integer(event="pending_webhooks")
    webhook_message = CompressedJson()
    valid = Flag()
    customer_id = Text()
    user_id = Text()
    state = Text()
    reason = Text()
    attempts = Integer()
    last_error = Text()
    claimed_at = Moment()
    effected_at = Moment()
    queue = Text()
    next_try = Integer()
    received_at = Moment()
    replayed_at = Moment()
    expires_at = TTLAttribute(null=True)

    SORT_KEY = "EVENT"

    is_stored = True
    """False until the event stands in the table."""

    @staticmethod
    def key(stripe_id: str) -> str:
        """The partition of one event."""
        return f"EVENT#{stripe_id}"

    @classmethod
    def received(cls, payload: Mapping[str, Any], *, valid: bool) -> Event:
        """The record of an event that has just arrived, not in the table yet.

        Parameters
        ----------
        payload : mapping
            Stripe's event object.
        valid : bool
            Whether it is known to be Stripe's.

        Raises
        ------
        MalformedRequestError
            It is not one of Stripe's events: it has no event's id, or no type. Whatever else is
            odd about it keeps nobody from storing it.
        """
        stripe_id = _id(payload.get("id"))
        if stripe_id is None or not stripe_id.startswith("evt_"):
            raise MalformedRequestError("not a Stripe event: no event id")
        kind = payload.get("type")
        if not isinstance(kind, str) or len(kind) > _LONGEST_ID:
            raise MalformedRequestError("not a Stripe event: no type")
        event = cls(
            cls.key(stripe_id),
            cls.SORT_KEY,
            customer_id=_customer_id(payload),
            created=_seconds(payload.get("created")),
            webhook_message=dict(payload),
            valid=valid,
            state="pending",
            attempts=0,
            queue=_queue_of(stripe_id),
            next_try=int(current().clock()) + _STREAM_SECONDS,
            received_at=current().now(),
            **read_stripe(cls, "event", payload),
        )
        if payload.get("account"):
            # Whatever it is that stands there, it is not nothing.
            event.account = event.account or "unknown"
        for name in ("account", "api_version"):
            if len(getattr(event, name) or "") > _LONGEST_ID:
                setattr(event, name, "too long")
        if (
            depth(payload, _DEEPEST_PAYLOAD) > _DEEPEST_PAYLOAD
            or len(Event.webhook_message.serialize(dict(payload))) > _PAYLOAD_LIMIT_BYTES
        ):
            event.webhook_message = None
        if len(json.dumps(event.request)) > _REQUEST_LIMIT_BYTES:
            event.request = None
        event.is_stored = False
        return event

    @property
    def processed(self) -> bool:
        """Whether nothing is left to be done about it."""
        return self.state not in UNFINISHED

    @property
    def subject(self) -> Mapping[str, Any]:
        """The object that it speaks of, as its payload has it; empty where that was not kept."""
        subject = value_at(self.webhook_message, "data", "object")
        return subject if isinstance(subject, Mapping) else {}

    @property
    def payment_method_id(self) -> str | None:
        """The PaymentMethod that it speaks of; one that was detached may name no customer."""
        if not (self.kind or "").startswith("payment_method."):
            return None
        return _id(self.subject)

    # ---- received

    def end(self, reason: str) -> None:
        """Let an event that is not in the table yet be ignored from the start."""
        self.state = "ignored"
        self.reason = reason
        self.queue = self.next_try = None
        self.expires_at = _expiry()

    def wait(self) -> None:
        """Let an event that is not in the table yet wait for its customer."""
        self.state = "waiting"

    def store(self) -> Event:
        """Put the event into the table, unless it stands there already.

        Returns
        -------
        Event
            The record that stands in the table: this one, or the one that came first.
        """
        try:
            self.save(Event.pk.does_not_exist())
        except PutError as error:
            if error_code(error) == CONDITION_FAILED:
                with suppress(NewerSchemaError):  # it stands there all the same
                    return Event.find(self.stripe_id or "") or self
                return self
            raise unavailable(error) from error
        self.is_stored = True
        return self

    def link(self, owner: Owner) -> Event:
        """Link the event to its customer; one that is not in the table yet is put there.

        Returns
        -------
        Event
            The record that stands in the table.
        """
        self.user_id, self.customer_id = owner
        if self.is_stored:
            self._change(self._linking(), Event.pk.exists())
            return self
        standing = self.store()
        return standing if standing.user_id else standing.link(owner)

    @classmethod
    def find(cls, stripe_id: str) -> Event | None:
        """The event of this id, strongly consistent."""
        return cls.read_one(cls.key(stripe_id), cls.SORT_KEY)

    @classmethod
    def known(cls, stripe_ids: Iterable[str]) -> set[str]:
        """Which of these events stand in the table, strongly consistent; 100 ids at most."""
        keys = [(cls.key(stripe_id), cls.SORT_KEY) for stripe_id in stripe_ids]
        try:
            found = cls.batch_get(
                keys, consistent_read=True, attributes_to_get=["pk", "record_type"]
            )
            return {_stripe_id_of(event) for event in found}
        except PynamoDBException as error:
            raise unavailable(error) from error

    # ---- tried

    @classmethod
    def claim(cls, stripe_id: str) -> Event | None:
        """Take an unfinished event to try it: the try is counted before it is begun.

        Others leave the event alone for as long as a try may take. One that waits for its customer
        is nobody's to hold: whoever learns of the customer may take it.

        Returns
        -------
        Event or None
            The event as it stands; None where it is finished, not there, or somebody else's.
        """
        event = cls(cls.key(stripe_id), cls.SORT_KEY)
        now = current().clock()
        seconds = min(_CLAIM_SECONDS, current().remaining_seconds()) + 2 * CLOCK_SKEW_SECONDS
        mine: Condition = (
            (Event.attempts == 0) | (Event.next_try <= int(now)) | (Event.state == "waiting")
        )
        actions: list[Action] = [
            Event.attempts.add(1),
            Event.next_try.set(int(now + seconds)),
            Event.claimed_at.set(current().now()),
        ]
        try:
            event.update(actions, _unfinished() & mine)
        except UpdateError as error:
            if error_code(error) == CONDITION_FAILED:
                return None
            raise unavailable(error) from error
        return event

    @property
    def is_exhausted(self) -> bool:
        """Whether it was tried often enough."""
        return (self.attempts or 0) > MAX_ATTEMPTS

    def effect_mark(self) -> Callable[[TransactWrite], None]:
        """What notes the effect as part of its transaction, where the event ends later."""
        actions: list[Action] = [Event.effected_at.set(current().now())]
        return lambda transaction: transaction.update(self, actions, _unfinished())

    def ending(self, state: str, reason: str | None = None) -> Callable[[TransactWrite], None]:
        """What ends the event as part of a transaction, together with its effect."""
        actions = self._ending(state, reason)
        return lambda transaction: transaction.update(self, actions, _unfinished())

    def finish(self, state: str, reason: str | None = None) -> bool:
        """End the event, where nothing else is to be written; one that has ended stays as it is.

        Parameters
        ----------
        state, reason : str
            How it ends, and why.

        Returns
        -------
        bool
            Whether it has ended by this.
        """
        return self._change(self._ending(state, reason), _unfinished())

    def fail(self, reason: str) -> None:
        """Set an unfinished event aside: it stands as failed until it is replayed.

        Parameters
        ----------
        reason : str
            Why, with no value in it.
        """
        actions: list[Action] = [
            Event.state.set("failed"),
            Event.reason.set(reason),
            Event.queue.set(_FAILED),
            Event.next_try.set(int(current().clock())),
            Event.claimed_at.remove(),
        ]
        self._change(actions, _unfinished())

    def is_finished_meanwhile(self) -> bool:
        """Whether somebody else has ended the event since it was read."""
        standing = Event.find(self.stripe_id or "")
        return standing is None or standing.processed

    def schedule_retry(self, error: BaseException) -> None:
        """Try again later, after a try that failed; the kind of error is kept, and no value.

        The event waits for its customer no longer, but for a better day.
        """
        actions: list[Action] = [Event.state.set("pending")]
        is_told = isinstance(error, MessageNotSentError) and self.last_error
        # That the dead-letter queue can't be told of an error is not what has to be known of it.
        if not is_told:
            actions.append(Event.last_error.set(type(error).__name__))
        self._schedule_retry(actions)

    def continue_waiting(self) -> None:
        """Look again later whether its customer is known."""
        self._schedule_retry([Event.state.set("waiting")])

    def has_waited_too_long(self) -> bool:
        """Whether its customer was unknown for so long that it must be none of ours."""
        return self._age() > timedelta(days=1)

    def _age(self) -> timedelta:
        now = current().now()
        return now - (self.replayed_at or self.received_at or now)

    @classmethod
    def requeue(cls, stripe_id: str) -> bool:
        """Put an event back into the queue, whatever has become of it.

        What it says is in doubt from then on: Stripe is asked for what is true now.

        Returns
        -------
        bool
            False where there is no such event.
        """
        actions: list[Action] = [
            Event.state.set("pending"),
            Event.attempts.set(0),
            Event.queue.set(_queue_of(stripe_id)),
            Event.next_try.set(int(current().clock())),
            Event.replayed_at.set(current().now()),
            Event.claimed_at.remove(),
            Event.effected_at.remove(),
            Event.last_error.remove(),
            Event.reason.remove(),
            Event.expires_at.remove(),
        ]
        return cls(cls.key(stripe_id), cls.SORT_KEY)._change(actions, Event.pk.exists())

    def _schedule_retry(self, actions: list[Action]) -> None:
        backoff = min(
            _FIRST_BACKOFF_SECONDS * 2 ** min((self.attempts or 1) - 1, 10),
            _LONGEST_BACKOFF_SECONDS,
        )
        then = int(current().clock() + current().jittered(backoff))
        # Whoever has claimed it since knows better.
        mine: Condition = Event.attempts == self.attempts
        actions = [*actions, Event.next_try.set(then), Event.claimed_at.remove()]
        self._change(actions, _unfinished() & mine)

    def _ending(self, state: str, reason: str | None) -> list[Action]:
        return [
            Event.state.set(state),
            Event.expires_at.set(_expiry()),
            Event.queue.remove(),
            Event.next_try.remove(),
            Event.claimed_at.remove(),
            Event.last_error.remove(),
            Event.reason.set(reason) if reason else Event.reason.remove(),
            *self._linking(),
        ]

    def _linking(self) -> list[Action]:
        if self.user_id is None:
            return []
        return [Event.user_id.set(self.user_id), Event.customer_id.set(self.customer_id)]

    def _change(self, actions: list[Action], condition: Condition) -> bool:
        """Whether the condition held."""
        try:
            self.update(actions, condition)
        except UpdateError as error:
            if error_code(error) != CONDITION_FAILED:
                raise unavailable(error) from error
            return False
        return True

    # ---- looked up, all eventually consistent

    @classmethod
    def ids_of_customer(cls, customer_id: str) -> Iterator[str]:
        """Ids of the events that name a Stripe customer, oldest first."""
        try:
            for event in cls.by_customer.query(customer_id):
                yield _stripe_id_of(event)
        except PynamoDBException as error:
            raise unavailable(error) from error

    @classmethod
    def due(cls) -> Iterator[QueueEntry]:
        """The unfinished events whose next try is due."""
        now = int(current().clock())
        for number in range(_QUEUES):
            yield from cls._queued(str(number), cls.next_try <= now)

    @classmethod
    def oldest_pending_seconds(cls) -> float:
        """For how long the oldest pending event has been here, or was replayed; 0 without one.

        Those that wait for an unknown customer don't count: they end after a day by themselves. In
        each of the queues so many are looked at as one page holds, those that are due first.
        """
        ages = (
            event._age().total_seconds()
            for number in range(_QUEUES)
            for event in islice(cls._in_queue(str(number), page_size=_SCANNED), _SCANNED)
            if event.state == "pending"
        )
        return max(ages, default=0)

    @classmethod
    def failed(cls) -> Iterator[QueueEntry]:
        """The failed events, oldest failure first."""
        yield from cls._queued(_FAILED)

    @classmethod
    def created_between(
        cls, earliest: int, latest: int, resume_from: Json | None = None
    ) -> tuple[list[QueueEntry], Json | None]:
        """Events of a range of time: some of them, and where to go on, since all is looked through.

        Parameters
        ----------
        earliest, latest : int
            Unix seconds of the events' own stamps.
        resume_from : mapping, optional
            What the call before this one returned.

        Returns
        -------
        tuple
            Events, and what to call with for more; None at the end.
        """
        # By the page: a limit would count what was found, and look through the whole table for it.
        pages = cls.scan(
            cls.created.between(earliest, latest),
            attributes_to_get=_OF_AN_ENTRY,
            last_evaluated_key=resume_from,
            page_size=_SCANNED,
        ).page_iter
        try:
            items = next(pages)["Items"]
        except PynamoDBException as error:
            raise unavailable(error) from error
        return [_entry(cls.from_raw_data(item)) for item in items], pages.last_evaluated_key

    @classmethod
    def _queued(cls, queue: str, condition: Condition | None = None) -> Iterator[QueueEntry]:
        return map(_entry, cls._in_queue(queue, condition))

    @classmethod
    def _in_queue(
        cls, queue: str, condition: Condition | None = None, page_size: int | None = None
    ) -> Iterator[Event]:
        """Events as the index shows them: with the attributes that it has."""
        try:
            yield from cls.by_queue.query(queue, condition, page_size=page_size)
        except PynamoDBException as error:
            raise unavailable(error) from error


_OF_AN_ENTRY = ["pk", "sk", "record_type", "customer_id", "claimed_at"]


def _entry(event: Event) -> QueueEntry:
    return QueueEntry(_stripe_id_of(event), event.customer_id, event.claimed_at is not None)


def _stripe_id_of(event: Event) -> str:
    return event.pk.removeprefix(Event.key(""))


def _queue_of(stripe_id: str) -> str:
    return str(zlib.crc32(stripe_id.encode()) % _QUEUES)


def _unfinished() -> Condition:
    condition: Condition = Event.state.is_in(*UNFINISHED)
    return condition


def _expiry() -> datetime:
    return current().now() + timedelta(days=current().settings.event_retention_days)


def _seconds(created: object) -> int:
    """Unix seconds; events of API v2 give ISO 8601 instead. What can't be read is now."""
    if isinstance(created, int | float) and 0 < created <= _LATEST:
        return int(created)
    try:
        return int(datetime.fromisoformat(str(created)).astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        return int(current().clock())


def _customer_id(payload: Mapping[str, Any]) -> str | None:
    """The Stripe customer that an event speaks of; a detached card names it as it was before."""
    data = payload.get("data")
    if not isinstance(data, Mapping):
        return None
    obj = data.get("object")
    if not isinstance(obj, Mapping):
        return None
    if obj.get("object") == "customer":
        return _id(obj)
    before = data.get("previous_attributes")
    named = _id(obj.get("customer"))
    return named or (_id(before.get("customer")) if isinstance(before, Mapping) else None)


def _id(value: object) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("id")
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
        return None
    return value if is_text(value) else None
