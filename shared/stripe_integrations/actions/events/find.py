"""Finding stored events: of a customer or a user, in a state, of a range of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from stripe_integrations.config import matches_pattern
from stripe_integrations.models import Event, EventState, UserRecords, event_queue
from stripe_integrations.models.event_queue import FoundEvent

_PAGE_EVENTS = 100
"""How many events one call to DynamoDB returns."""
_FOREVER = 2**40


@dataclass(frozen=True)
class Search:
    """The selection: see `StripeEvent.find`."""

    state: EventState | None = None
    kind: str | None = None
    created_from: int = 0
    created_to: int = _FOREVER

    def matches(self, event: Event) -> bool:
        """Return whether an event, as it was read, is selected."""
        return (
            self.state in (None, event.state)
            and (self.kind is None or matches_pattern(event.kind, self.kind))
            and self.created_from <= event.created <= self.created_to
        )


def find_events(user_id: str | None, customer_id: str | None, search: Search) -> Iterator[Event]:
    """Yield events, newest first: see `StripeEvent.find`."""
    if user_id is not None:
        customer_ids = UserRecords.read(user_id).customer_ids
    elif customer_id is not None:
        customer_ids = {customer_id}
    elif search.state in event_queue.QUEUED_STATES:
        yield from filter(search.matches, _read(event_queue.ids_in_state(search.state)))
        return
    else:
        scanned = event_queue.scan_created(search.created_from, search.created_to)
        newest_first = sorted(scanned, key=lambda found: -found.created)
        yield from filter(search.matches, _read(found.stripe_id for found in newest_first))
        return
    yield from filter(search.matches, _read(_of_customers(customer_ids, search)))


def _of_customers(customer_ids: Iterable[str], search: Search) -> Iterator[str]:
    each: list[Iterator[FoundEvent]] = [
        event_queue.newest_of_customer(customer_id, search.created_from, search.created_to)
        for customer_id in customer_ids
    ]
    merged = heapq.merge(*each, key=lambda found: -found.created)
    return (found.stripe_id for found in merged)


def _read(stripe_ids: Iterable[str]) -> Iterator[Event]:
    """Read events page by page, in the given order, as they are needed."""
    left = iter(stripe_ids)
    while page := list(islice(left, _PAGE_EVENTS)):
        stored = Event.read_without_payloads(page)
        yield from (stored[stripe_id] for stripe_id in page if stripe_id in stored)
