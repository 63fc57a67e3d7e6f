"""The schedule: recovers what the webhook and the stream have lost.

It lists Stripe's events for those that never arrived, retries unfinished events that are due,
fetches the children of customers that were never listed, writes the metadata that is due on Stripe,
and completes erasures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from stripe_integrations import errors, limits
from stripe_integrations.actions.customers.erase import complete_erasure
from stripe_integrations.actions.customers.metadata import complete_metadata
from stripe_integrations.actions.customers.refresh import fetch_missing_children
from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.actions.events.event_types import applied_event_types, is_publish_type
from stripe_integrations.actions.events.handlers import has_handlers
from stripe_integrations.actions.events.receive import receive_event
from stripe_integrations.adapters.stripe_gateway import MAX_EVENT_TYPES
from stripe_integrations.context import current
from stripe_integrations.models import Event, Pointer, SweepCursor, event_queue
from stripe_integrations.models.customer import due_fetches
from stripe_integrations.models.erasure import Erasure
from stripe_integrations.models.event_payload import event_second
from stripe_integrations.models.event_queue import QueueEntry, WaitingEvent
from stripe_integrations.models.lookup_cursor import LookupCursor
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.observability import Metric

Json = dict[str, Any]

T = TypeVar("T")

OVERLAP_SECONDS = 600
"""How much each sweep overlaps the previous one: clocks differ, and lists lag behind."""
_DELIVERY_SECONDS = 60
"""The age from which a recovered event is counted: a younger one may still be in delivery."""
_MAX_RESTARTS = 2
_BATCH_EVENTS = 1000
"""How many pending events are read and grouped before the first is attempted."""
_LOOKUP_BATCH_SIZE = 100
"""How many waiting events are looked up by one request."""
_DUE_FETCHES = 1000
"""How many customers' children one run fetches at most."""


@dataclass
class Reconciliation:
    """The outcome of one run, in numbers of events.

    Parameters
    ----------
    swept : int
        Listed by Stripe.
    recovered : int
        Of those, the ones that had never arrived.
    attempted : int
        Unfinished and due, and attempted.
    failures : list of Exception
        What stopped a part of it.
    """

    swept: int = 0
    recovered: int = 0
    attempted: int = 0
    failures: list[Exception] = field(default_factory=list)


def emit_backlog_metrics() -> None:
    """Emit the ages of the oldest pending event and of the last complete sweep, for alarms."""
    swept_until = int(SweepCursor.read().swept_until)
    current().add_metric(Metric.SWEEP_AGE, max(int(current().clock()) - swept_until, 0))
    oldest = int(event_queue.oldest_pending_seconds())
    current().add_metric(Metric.OLDEST_UNFINISHED_EVENT_AGE, oldest)


def sweep(result: Reconciliation) -> None:
    """Receive the events that Stripe lists and the table lacks, since the last sweep.

    A sweep that runs out of time is resumed by the next run; that of a concurrent run is skipped.

    Raises
    ------
    StripeError
        Stripe did not respond.
    """
    cursor = SweepCursor.read()
    event_types = _swept_event_types()
    chunks = _chunks(event_types)
    restarts = _MAX_RESTARTS
    try:
        cursor.start(event_types)
        while current().has_time_for(limits.EVENTS_PAGE_SECONDS):
            try:
                events, has_more = _page(cursor, chunks)
            except errors.StripeRefusedError:
                if cursor.after is None or not restarts:
                    raise
                # Stripe no longer lists the event that `starting_after` names.
                restarts -= 1
                cursor.restart_chunk()
                continue
            result.swept += len(events)
            result.recovered += _receive_unknown(events, result)
            if has_more:
                cursor.advance(events[-1]["id"])
            elif cursor.chunk < len(chunks) - 1:
                cursor.finish_chunk()
            else:
                cursor.finish()
                return
    except errors.StaleRecordError:
        return


def retry_due(result: Reconciliation) -> None:
    """Attempt the pending events that are due, customer by customer, while there is time.

    During an outage of Stripe the rest is left to the next run.
    """
    due = event_queue.due()
    while batch := list(islice(due, _BATCH_EVENTS)):
        if left := sum(entry.is_unattempted for entry in batch):
            current().add_metric(Metric.EVENTS_MISSED_BY_STREAM, left)
        for stripe_ids in grouped(batch):
            if not _attempt(stripe_ids, result):
                return


def look_up_waiting(result: Reconciliation) -> None:
    """Look up the customers of waiting events, and end those whose customer stays unknown.

    A lookup that finds no customer writes nothing, except the last one, which ends the event. This
    runs after `retry_due`, so that events of our customers come first.
    """
    cursor = LookupCursor.read()
    until = int(current().clock()) - event_queue.FIRST_LOOKUP_SECONDS
    waiting = event_queue.due_for_lookup(int(cursor.looked_up_until), until)
    has_found_any = False
    while batch := list(islice(waiting, _LOOKUP_BATCH_SIZE)):
        has_found_any = True
        if not _look_up(batch, result):
            return
    if has_found_any:
        cursor.advance(until)


def write_due_metadata(result: Reconciliation) -> None:
    """Write the metadata that is due on Stripe, while there is time and Stripe responds."""
    for update in MetadataUpdate.due():
        if not current().has_time_for(limits.APPLY_SECONDS):
            return
        try:
            if update.claim_due():
                complete_metadata(update)
        except errors.StripeError as error:
            result.failures.append(error)
            if errors.is_stripe_outage(error):
                return


def fetch_due_children(result: Reconciliation) -> None:
    """Fetch the children that are due, while there is time and Stripe responds."""
    due = list(islice(due_fetches(), _DUE_FETCHES))
    # In random order: one that ends its run must not always precede the same others.
    current().random.shuffle(due)
    _process_due(
        due,
        limits.APPLY_SECONDS,
        lambda fetch: fetch_missing_children(fetch.pk, fetch.stripe_id),
        result,
    )


def complete_erasures(result: Reconciliation) -> None:
    """Run the second pass of erasures, and complete those that were interrupted."""

    def complete(erasure: Erasure) -> None:
        if erasure.claim_due():
            complete_erasure(erasure)

    _process_due(Erasure.due(), limits.ERASE_SECONDS, complete, result)


def _process_due(
    due: Iterable[T], seconds: float, process: Callable[[T], None], result: Reconciliation
) -> None:
    """Process what is due, while there is time and Stripe responds; failures are noted.

    Parameters
    ----------
    due : iterable
        What is due.
    seconds : float
        The time that one of them needs.
    process : callable
        Processes one of them.
    result : Reconciliation
        Takes the failures.
    """
    for each in due:
        if not current().has_time_for(seconds):
            return
        try:
            process(each)
        except errors.OutOfTimeError:
            return
        except errors.DatabaseUnavailableError:
            raise
        except errors.StripeIntegrationsError as error:
            # The others must not wait for this one.
            result.failures.append(error)
            if errors.is_stripe_outage(error):
                return


def _look_up(batch: Sequence[WaitingEvent], result: Reconciliation) -> bool:
    """Look up the customers of some events, and return whether to continue."""
    if not current().has_time_for(limits.APPLY_SECONDS):
        return False
    pointers = Pointer.read_all({str(event.customer_id) for event in batch})
    known = [event for event in batch if event.customer_id in pointers]
    if not all(_attempt(stripe_ids, result) for stripe_ids in grouped(known)):
        return False
    for event in batch:
        if event.customer_id in pointers or not event.is_final_lookup:
            continue
        if not current().has_time_for(limits.APPLY_SECONDS):
            return False
        if not has_handlers(event.kind):
            Event.finish_waiting(event.stripe_id)
        elif not _attempt([event.stripe_id], result):
            return False
    return True


def _attempt(stripe_ids: Sequence[str], result: Reconciliation) -> bool:
    """Apply events, and return whether to continue: there is time, and Stripe responds."""
    if not current().has_time_for(limits.APPLY_SECONDS):
        return False
    result.attempted += len(stripe_ids)
    try:
        apply_events(stripe_ids)
    except errors.ApplyFailedError as group:
        return not any(map(errors.is_stripe_outage, group.exceptions))
    except errors.DatabaseUnavailableError:
        raise
    except Exception as error:
        result.failures.append(error)
    return True


def grouped(entries: Iterable[QueueEntry]) -> Iterator[list[str]]:
    """Group event ids by customer; those whose last attempt was interrupted come last, and alone.

    Such an event may have ended its process, and would count an attempt of each other of its group.
    """
    groups: dict[str, list[str]] = {}
    interrupted: list[list[str]] = []
    for entry in entries:
        if entry.was_interrupted:
            interrupted.append([entry.stripe_id])
        else:
            groups.setdefault(entry.customer_id or entry.stripe_id, []).append(entry.stripe_id)
    yield from groups.values()
    # In random order: one that ends its run must not always precede the same others.
    current().random.shuffle(interrupted)
    yield from interrupted


def _swept_event_types() -> tuple[str, ...]:
    """The types to list; none, which means all, where further types are handled or published.

    Stripe takes no patterns, and refuses unknown types.
    """
    settings = current().settings
    has_further_types = settings.event_handlers or settings.publish_types
    return () if has_further_types else applied_event_types()


def _chunks(event_types: Sequence[str]) -> list[Sequence[str]]:
    """Split event types into chunks that one call accepts."""
    starts = range(0, max(len(event_types), 1), MAX_EVENT_TYPES)
    return [event_types[start : start + MAX_EVENT_TYPES] for start in starts]


def _page(cursor: SweepCursor, chunks: list[Sequence[str]]) -> tuple[list[Json], bool]:
    since = int(cursor.swept_until) - OVERLAP_SECONDS
    return current().stripe.list_events(since, chunks[int(cursor.chunk)], cursor.after)


def _is_relevant_type(event_type: str) -> bool:
    """Return whether events of a type change records, are handled or are published."""
    is_applied = event_type in applied_event_types()
    return is_applied or has_handlers(event_type) or is_publish_type(event_type)


def _receive_unknown(events: list[Json], result: Reconciliation) -> int:
    relevant = {
        event["id"]: event
        for event in events
        if isinstance(event.get("type"), str) and _is_relevant_type(event["type"])
    }
    unknown = relevant.keys() - Event.find_all(relevant).keys()
    received = 0
    # Oldest first, as they would have arrived.
    for stripe_id in reversed(relevant):
        if stripe_id in unknown:
            try:
                receive_event(relevant[stripe_id])
                received += 1
                if _is_overdue(relevant[stripe_id]):
                    current().add_metric(Metric.EVENTS_RECOVERED)
            except (errors.DatabaseRefusedError, errors.MalformedRequestError) as error:
                # It will be refused again, and must not prevent the receipt of the others.
                result.failures.append(error)
    return received


def _is_overdue(payload: Json) -> bool:
    """Return whether Stripe created an event so long ago that it should have arrived."""
    return event_second(payload) <= current().clock() - _DELIVERY_SECONDS
