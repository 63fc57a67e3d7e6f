"""The table's stream: new events are applied, and those that arrived before a new customer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.errors import ApplyFailedError
from stripe_integrations.models import Event, event_queue


class StreamRecord(NamedTuple):
    """A new item of the table, as a record of the table's stream has it.

    Parameters
    ----------
    pk, sk : str
        Its key.
    customer_id : str or None
        The Stripe customer that an event names.
    """

    pk: str
    sk: str
    customer_id: str | None

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
        try:
            with suppress(
                ApplyFailedError
            ):  # each event has a retry scheduled, or is dead-lettered
                apply_events(_event_ids(group))
        except Exception as error:
            for record in group:
                yield record, error


def _by_customer(records: Iterable[StreamRecord]) -> Iterable[list[StreamRecord]]:
    groups: dict[str, list[StreamRecord]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    return groups.values()


def _event_ids(records: Iterable[StreamRecord]) -> list[str]:
    ids: dict[str, None] = {}
    for record in records:
        if record.is_event:
            ids[record.pk.removeprefix(Event.key(""))] = None
        else:
            ids |= dict.fromkeys(event_queue.ids_of_customer(record.new_customer_id))
    return list(ids)
