"""The table's stream: new events are applied, and those that arrived before a new customer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from stripe_integrations import limits
from stripe_integrations.actions.customers.refresh import fetch_missing_children
from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.context import current
from stripe_integrations.errors import ApplyFailedError, OutOfTimeError, StaleRecordError
from stripe_integrations.models import Event, EventState, event_queue
from stripe_integrations.models.event import UNKNOWN_CUSTOMER


class StreamRecord(NamedTuple):
    """A new item of the table, as a record of the table's stream has it.

    Parameters
    ----------
    pk, sk : str
        Its key.
    customer_id : str or None
        The Stripe customer that an event names.
    lacks_children : bool
        Whether it is a customer whose children were never listed.
    """

    pk: str
    sk: str
    customer_id: str | None = None
    lacks_children: bool = False

    @property
    def is_event(self) -> bool:
        """Whether it is an event; otherwise it is a customer."""
        return self.sk == Event.SORT_KEY

    @property
    def log_id(self) -> str:
        """What identifies it in a log: an event's key, or a customer's without its user's id."""
        return self.pk if self.is_event else self.sk

    @property
    def new_customer_id(self) -> str:
        """The Stripe id of a customer."""
        return self.sk.partition("#")[2]

    @property
    def group(self) -> str:
        """What it is processed together with: the customer's id, or its own key without one."""
        customer_id = self.customer_id if self.is_event else self.new_customer_id
        return customer_id or self.pk


def process_stream_records(
    records: Iterable[StreamRecord],
) -> Iterator[tuple[StreamRecord, Exception]]:
    """Apply the events that records call for: see `StripeEvent.process_stream_records`."""
    for group in _by_customer(records):
        if not current().has_time_for(limits.APPLY_SECONDS):
            for record in group:
                yield record, OutOfTimeError("the batch has no time left")
            continue
        try:
            with suppress(
                ApplyFailedError
            ):  # each event has a retry scheduled, or is dead-lettered
                new = _new_events(group)
                apply_events([*new, *_older_events(group, new)], new)
            for record in group:
                if not record.is_event:
                    _finish_new_customer(record)
        except Exception as error:
            for record in group:
                yield record, error


def _finish_new_customer(record: StreamRecord) -> None:
    """Check that no event waits for a new customer, and fetch its children if none were listed.

    Raises
    ------
    StaleRecordError
        An event still waits: another worker looked up the customer before it was stored.
    """
    if any(map(_is_waiting, _events_of(record.new_customer_id).values())):
        raise StaleRecordError("an event still waits for the customer")
    if record.lacks_children:
        fetch_missing_children(record.pk, record.new_customer_id)


def _by_customer(records: Iterable[StreamRecord]) -> Iterable[list[StreamRecord]]:
    groups: dict[str, list[StreamRecord]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    return groups.values()


def _new_events(records: Iterable[StreamRecord]) -> list[str]:
    keys = dict.fromkeys(record.pk for record in records if record.is_event)
    return [pk.removeprefix(Event.key("")) for pk in keys]


def _older_events(records: Iterable[StreamRecord], new: Collection[str]) -> list[str]:
    """Find the events that arrived before the customers among the records."""
    ids: dict[str, None] = {}
    for record in records:
        if not record.is_event:
            ids |= dict.fromkeys(_ids_of_new_customer(record.new_customer_id))
    return [stripe_id for stripe_id in ids if stripe_id not in new]


def _ids_of_new_customer(customer_id: str) -> Iterator[str]:
    """Find the events that arrived before a customer, and requeue those that were ignored."""
    for stripe_id, event in _events_of(customer_id).items():
        if _ended_with_unknown_customer(event):
            Event.requeue_after_unknown_customer(stripe_id)
        if _ended_with_unknown_customer(event) or not event.processed:
            yield stripe_id


def _is_waiting(event: Event) -> bool:
    """Return whether an event waits for its customer, or was ignored because it was unknown."""
    return event.state is EventState.WAITING or _ended_with_unknown_customer(event)


def _ended_with_unknown_customer(event: Event) -> bool:
    """Return whether an event was ignored because its customer was unknown."""
    return event.state is EventState.IGNORED and event.reason == UNKNOWN_CUSTOMER


def _events_of(customer_id: str) -> dict[str, Event]:
    return Event.find_all(event_queue.ids_of_customer(customer_id))
