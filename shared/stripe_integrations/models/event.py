"""Stripe's events: each record is the proof that the event is safe, and its place in the queue.

States: `pending` (to be applied), `waiting` (its customer is not known yet), `applied`, and
`ignored` (for a stated reason). The last two expire.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pynamodb.attributes import TTLAttribute
from pynamodb.constants import BINARY
from pynamodb.exceptions import PutError, PynamoDBException, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import MalformedRequestError
from stripe_integrations.models.fields import (
    Document,
    Flag,
    Integer,
    Moment,
    StripeField,
    Text,
    read_stripe,
)
from stripe_integrations.models.record import Record, error_code, unavailable

_PAYLOAD_LIMIT_BYTES = 350_000
"""Below DynamoDB's 400 KB an item, with room for the other attributes."""
_REQUEST_LIMIT_BYTES = 10_000

_LONGEST_ID = 255
"""Stripe's own limit: https://docs.stripe.com/upgrades"""
_LATEST = 253_402_300_799
"""The end of the year 9999 in Unix seconds."""

_CONDITION_FAILED = "ConditionalCheckFailedException"

UNFINISHED = ("pending", "waiting")


class CompressedJson(StripeField[dict[str, Any] | None]):
    """A JSON object, kept compressed."""

    attr_type = BINARY

    def serialize(self, value: dict[str, Any]) -> bytes:
        return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 6)

    def deserialize(self, value: bytes) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(zlib.decompress(value))
        return payload


class Event(Record, discriminator="Event"):
    """One of Stripe's events, as it was received.

    `webhook_message` is the payload; None where it was too large for the table. `valid` says that
    its signature was verified. Follows https://docs.stripe.com/api/events/object.
    """

    stripe_id = Text(event="id")
    kind = Text(event="type")
    livemode = Flag(event="livemode")
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
    received_at = Moment()
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
            Whether its signature was verified.

        Raises
        ------
        MalformedRequestError
            It is not one of Stripe's events: it has no event's id, or no type. Whatever else is
            odd about it keeps nobody from storing it.
        """
        stripe_id = _id(payload.get("id"))
        if stripe_id is None or not stripe_id.startswith("evt_"):
            raise MalformedRequestError("not a Stripe event: no event id")
        if not isinstance(payload.get("type"), str):
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
            received_at=current().now(),
            **read_stripe(cls, "event", payload),
        )
        if len(Event.webhook_message.serialize(dict(payload))) > _PAYLOAD_LIMIT_BYTES:
            event.webhook_message = None
        if len(json.dumps(event.request)) > _REQUEST_LIMIT_BYTES:
            event.request = None
        event.is_stored = False
        return event

    @property
    def processed(self) -> bool:
        """Whether nothing is left to be done about it."""
        return self.state not in UNFINISHED

    def end(self, state: str, reason: str | None = None) -> None:
        """Set the state that the event ends in, and when it expires."""
        self.state = state
        self.reason = reason
        self.expires_at = _expiry()

    def wait(self) -> None:
        """Set the state of an event whose customer is not known yet."""
        self.state = "waiting"
        self.reason = None
        self.expires_at = None

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
            if error_code(error) == _CONDITION_FAILED:
                return Event.find(self.stripe_id or "") or self
            raise unavailable(error) from error
        self.is_stored = True
        return self

    def link(self, user_id: str) -> Event:
        """Link the event to its customer's user; one that is not in the table yet is put there.

        Returns
        -------
        Event
            The record that stands in the table.
        """
        if self.is_stored:
            self._change([Event.user_id.set(user_id)], Event.pk.exists())
            return self
        self.user_id = user_id
        standing = self.store()
        return standing if standing.user_id else standing.link(user_id)

    @classmethod
    def find(cls, stripe_id: str) -> Event | None:
        """The event of this id, strongly consistent."""
        return cls.read_one(cls.key(stripe_id), cls.SORT_KEY)

    @classmethod
    def begin(cls, stripe_id: str) -> Event | None:
        """Count one more try at an unfinished event, before it is tried.

        Returns
        -------
        Event or None
            The event as it stands; None where it is finished, or not there.
        """
        event = cls(cls.key(stripe_id), cls.SORT_KEY)
        try:
            event.update([Event.attempts.add(1)], _unfinished())
        except UpdateError as error:
            if error_code(error) == _CONDITION_FAILED:
                return None
            raise unavailable(error) from error
        return event

    def ending(self, state: str, reason: str | None = None) -> Callable[[TransactWrite], None]:
        """What ends the event as part of a transaction, together with its effect."""
        actions = self._ending(state, reason)
        return lambda transaction: transaction.update(self, actions, _unfinished())

    def finish(self, state: str, reason: str | None = None, user_id: str | None = None) -> None:
        """End the event, where nothing else is to be written; one that has ended stays as it is.

        Parameters
        ----------
        state, reason : str
            How it ends, and why.
        user_id : str, optional
            Whose customer it turned out to speak of.
        """
        link = [Event.user_id.set(user_id)] if user_id else []
        self._change([*self._ending(state, reason), *link], _unfinished())

    def is_finished_by_now(self) -> bool:
        """Whether somebody else has ended the event since it was read."""
        standing = Event.find(self.stripe_id or "")
        return standing is None or standing.processed

    def note_error(self, error: Exception) -> None:
        """Keep what the last try failed with: the kind of error, with no value in it."""
        self._change([Event.last_error.set(type(error).__name__)], _unfinished())

    @staticmethod
    def _ending(state: str, reason: str | None) -> list[Action]:
        return [
            Event.state.set(state),
            Event.expires_at.set(_expiry()),
            Event.last_error.remove(),
            Event.reason.set(reason) if reason else Event.reason.remove(),
        ]

    def _change(self, actions: list[Action], condition: Condition) -> None:
        try:
            self.update(actions, condition)
        except UpdateError as error:
            if error_code(error) != _CONDITION_FAILED:
                raise unavailable(error) from error

    @classmethod
    def ids_of_customer(cls, customer_id: str) -> Iterator[str]:
        """Ids of the events that name a Stripe customer, oldest first, eventually consistent."""
        try:
            for event in cls.by_customer.query(customer_id):
                yield event.pk.removeprefix(cls.key(""))
        except PynamoDBException as error:
            raise unavailable(error) from error


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
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID else None
