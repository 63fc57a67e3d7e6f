"""Queries for unfinished events, and for other events: all are eventually consistent."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition

from stripe_integrations.context import current
from stripe_integrations.models.event import (
    FAILED_QUEUE,
    QUEUES,
    WAITING_QUEUE,
    WAITING_SECONDS,
    Event,
    EventState,
)
from stripe_integrations.models.table import unavailable

Json = dict[str, Any]

FIRST_LOOKUP_SECONDS = 120
"""How long after its receipt a waiting event is looked up for the first time: the index lags."""
QUEUED_STATES = (EventState.PENDING, EventState.WAITING, EventState.FAILED)
"""The states whose events are in the index `by_queue`."""
_PAGE_ITEMS = 1000
_LISTED_ITEMS = 100
"""A page of a list, of which often only the beginning is needed."""
_ENTRY_ATTRIBUTES = ["pk", "sk", "record_type", "customer_id", "claimed_at"]


@dataclass(frozen=True)
class QueueEntry:
    """An event as the queue's index has it, with a small delay.

    Parameters
    ----------
    stripe_id : str
        The event's id.
    customer_id : str or None
        The Stripe customer that it names.
    was_interrupted : bool
        Whether its last attempt has not ended, or not yet.
    is_unattempted : bool
        Whether it was neither attempted nor replayed since it was received.
    """

    stripe_id: str
    customer_id: str | None
    was_interrupted: bool = False
    is_unattempted: bool = False


class FoundEvent(NamedTuple):
    """An event's id, and its `created` on Stripe in Unix seconds."""

    stripe_id: str
    created: int


@dataclass(frozen=True, kw_only=True)
class WaitingEvent(QueueEntry):
    """An event that waits for its customer; `customer_id` may be the id of its PaymentMethod.

    Parameters
    ----------
    kind : str
        Its type.
    is_final_lookup : bool
        Whether it ends if its customer is still unknown.
    """

    kind: str
    is_final_lookup: bool


def due() -> Iterator[QueueEntry]:
    """Find the pending events whose next attempt is due, with the partitions in random order."""
    now = int(current().clock())
    for queue in current().random.sample(QUEUES, len(QUEUES)):
        yield from map(_entry, _in_queue(queue, Event.next_attempt <= now))


def due_for_lookup(received_from: int, received_until: int) -> Iterator[WaitingEvent]:
    """Find the waiting events that are due for their first lookup, or, after a day, their last.

    The first lookup finds events that the customer's INSERT missed because the index lags.

    Parameters
    ----------
    received_from, received_until : int
        Unix seconds: the events received in this interval are looked up for the first time.
    """
    now = int(current().clock())
    for event in _in_queue(WAITING_QUEUE, Event.next_attempt <= now):
        yield _waiting(event, is_final_lookup=event.has_waited_too_long())
    # One that was never claimed is due a day after its receipt.
    first, last = received_from + WAITING_SECONDS, received_until + WAITING_SECONDS
    for event in _in_queue(WAITING_QUEUE, Event.next_attempt.between(max(first, now + 1), last)):
        yield _waiting(event, is_final_lookup=False)


def failed(failed_until: int) -> Iterator[QueueEntry]:
    """Find the events that have failed until a time, in Unix seconds, oldest failure first."""
    yield from map(_entry, _in_queue(FAILED_QUEUE, Event.next_attempt <= failed_until))


def oldest_pending_seconds() -> float:
    """Measure how long ago the oldest pending event was received or replayed; 0 without one.

    Events that wait for an unknown customer don't count: they end after a day. Of each queue one
    page is read, the events that are due first.
    """
    ages = (
        event.age().total_seconds()
        for queue in QUEUES
        for event in islice(_in_queue(queue, page_size=_PAGE_ITEMS), _PAGE_ITEMS)
    )
    return max(ages, default=0)


def ids_of_customer(customer_id: str) -> Iterator[str]:
    """Find the ids of the events that name a Stripe customer, oldest first."""
    try:
        for event in Event.by_customer.query(customer_id):
            yield event.id_in_key
    except PynamoDBException as error:
        raise unavailable(error) from error


def newest_of_customer(
    customer_id: str, created_from: int, created_to: int
) -> Iterator[FoundEvent]:
    """Find the events that name a Stripe customer in a range of time, newest first.

    Parameters
    ----------
    customer_id : str
        The Stripe customer.
    created_from, created_to : int
        Unix seconds of Stripe's `created`, both included.
    """
    in_range = Event.created.between(created_from, created_to)
    try:
        for event in Event.by_customer.query(customer_id, in_range, scan_index_forward=False):
            yield FoundEvent(event.id_in_key, event.created)
    except PynamoDBException as error:
        raise unavailable(error) from error


def ids_in_state(state: EventState) -> Iterator[str]:
    """Find the ids of the events in one of the `QUEUED_STATES`.

    Those whose next attempt is last come first: the waiting ones that were received last, and the
    failed ones that failed last. No more of the index is read than is needed.
    """
    queues = {EventState.WAITING: (WAITING_QUEUE,), EventState.FAILED: (FAILED_QUEUE,)}
    each = (
        _in_queue(queue, page_size=_LISTED_ITEMS, is_backward=True)
        for queue in queues.get(state, QUEUES)
    )
    merged = heapq.merge(*each, key=lambda event: -(event.next_attempt or 0))
    return (event.id_in_key for event in merged)


def scan_created(created_from: int, created_to: int) -> Iterator[FoundEvent]:
    """Find the events of a range of time, in no order, by a scan of the whole table.

    Parameters
    ----------
    created_from, created_to : int
        Unix seconds of Stripe's `created`, both included.
    """
    found = Event.scan(
        Event.created.between(created_from, created_to),
        attributes_to_get=["pk", "sk", "record_type", "created"],
        page_size=_PAGE_ITEMS,
    )
    try:
        yield from (FoundEvent(event.id_in_key, event.created) for event in found)
    except PynamoDBException as error:
        raise unavailable(error) from error


def has_event_in(customer_id: str, states: Collection[EventState]) -> bool:
    """Return whether an event that names a Stripe customer is in one of these states."""
    keys = [(Event.key(stripe_id), Event.SORT_KEY) for stripe_id in ids_of_customer(customer_id)]
    try:
        found = Event.batch_get(
            keys, consistent_read=True, attributes_to_get=["pk", "sk", "record_type", "state"]
        )
        return any(event.state in states for event in found)
    except PynamoDBException as error:
        raise unavailable(error) from error


def ids_of_customers(customers: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Find the ids of the events that name customers, or only their PaymentMethods.

    Of the latter, the failed ones are found. An unfinished one ends within a day, when it is
    applied or looked up; one that has ended names the customer, or has no payload.

    Parameters
    ----------
    customers : mapping
        The ids of their PaymentMethods, by the customer's id.
    """
    for customer_id in customers:
        yield from ids_of_customer(customer_id)
    payment_methods = {each for methods in customers.values() for each in methods}
    for event in _in_queue(FAILED_QUEUE) if payment_methods else ():
        if event.customer_id is None and event.payment_method_id in payment_methods:
            yield event.id_in_key


def created_between(
    earliest: int, latest: int, resume_from: Json | None = None
) -> tuple[list[QueueEntry], Json | None]:
    """Find one page of the events of a range of time, by a scan of the table.

    Parameters
    ----------
    earliest, latest : int
        Unix seconds of Stripe's `created`, both included.
    resume_from : mapping, optional
        What the previous call returned.

    Returns
    -------
    tuple
        Events, and where the next call resumes; None at the end.
    """
    # Page by page: PynamoDB's `limit` counts matches, so it would scan the whole table.
    pages = Event.scan(
        Event.created.between(earliest, latest),
        attributes_to_get=_ENTRY_ATTRIBUTES,
        last_evaluated_key=resume_from,
        page_size=_PAGE_ITEMS,
    ).page_iter
    try:
        items = next(pages)["Items"]
    except PynamoDBException as error:
        raise unavailable(error) from error
    return [_entry(Event.from_raw_data(item)) for item in items], pages.last_evaluated_key


def _in_queue(
    queue: str,
    condition: Condition | None = None,
    page_size: int | None = None,
    *,
    is_backward: bool = False,
) -> Iterator[Event]:
    """Events with the attributes that the index has, those that are due first at the beginning."""
    try:
        yield from Event.by_queue.query(
            queue, condition, page_size=page_size, scan_index_forward=not is_backward
        )
    except PynamoDBException as error:
        raise unavailable(error) from error


def _waiting(event: Event, *, is_final_lookup: bool) -> WaitingEvent:
    return WaitingEvent(
        event.id_in_key,
        event.named_id,
        event.claimed_at is not None,
        kind=event.kind,
        is_final_lookup=is_final_lookup,
    )


def _entry(event: Event) -> QueueEntry:
    return QueueEntry(
        event.id_in_key,
        event.customer_id,
        was_interrupted=event.claimed_at is not None,
        is_unattempted=event.attempts == 0 and event.replayed_at is None,
    )
