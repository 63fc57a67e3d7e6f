"""What the schedule does: brings home what the webhook and the stream have not.

Nothing here is needed as long as nothing is lost. It asks Stripe for the events that never arrived,
and tries again what is unfinished and due; it deletes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stripe_integrations.actions.events.apply import NEEDED_SECONDS, apply_events
from stripe_integrations.actions.events.handlers import applied_event_types, has_handlers
from stripe_integrations.actions.events.receive import receive_event
from stripe_integrations.context import current
from stripe_integrations.errors import (
    ConfigurationError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    MalformedRequestError,
    SecretUnavailableError,
    StaleRecordError,
    StripeAccessError,
    StripeObjectChangedError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import Event, Sweep
from stripe_integrations.models.event import QueueEntry
from stripe_integrations.observability import Metric

Json = dict[str, Any]

OVERLAP_SECONDS = 600
"""How far back each sweep begins before the last one's begin: clocks differ, lists lag behind."""
_STRIPE_CANT_BE_ASKED = (
    ConfigurationError,
    SecretUnavailableError,
    StripeAccessError,
    StripeUnavailableError,
)
_RESTARTS = 2
_PAGE_NEEDS_SECONDS = 45
"""What has to be left of the invocation for another page."""
_AT_ONCE = 1000
"""How many unfinished events are looked at, and grouped, before the first is tried."""


@dataclass
class Reconciliation:
    """What one run has done, in numbers of events.

    Parameters
    ----------
    swept : int
        Seen in Stripe's list.
    recovered : int
        Of those, the ones that had never arrived.
    tried : int
        Unfinished and due, and tried again.
    failures : list of Exception
        What stopped it, if anything did.
    """

    swept: int = 0
    recovered: int = 0
    tried: int = 0
    failures: list[Exception] = field(default_factory=list)


def sweep(done: Reconciliation) -> None:
    """Receive what Stripe's list has and we have not, from where the last sweep began.

    A sweep that runs out of time is gone on with by the next run. One that another run is at is
    left to it.

    Raises
    ------
    StripeError
        Stripe can't say now.
    """
    cursor = Sweep.read()
    try:
        cursor.begin()
        restarts = _RESTARTS
        while current().remaining_seconds() > _PAGE_NEEDS_SECONDS:
            try:
                events, has_more = _page(cursor)
            except StripeRefusedError:
                if cursor.after is None or not restarts:
                    raise
                # The event to go on from is listed no longer.
                restarts -= 1
                cursor.restart()
                continue
            done.swept += len(events)
            done.recovered += _receive_unknown(events, done)
            if not has_more:
                cursor.end()
                return
            cursor.reach(events[-1]["id"])
    except StaleRecordError:
        return


def retry_due(done: Reconciliation) -> None:
    """Try again what is unfinished and due, customer by customer, for as long as there is time.

    Where Stripe can't be asked now, or asks to slow down, the rest is left to the next run.
    """
    due = Event.due()
    while batch := list(islice(due, _AT_ONCE)):
        for stripe_ids in grouped(batch):
            if current().remaining_seconds() < NEEDED_SECONDS:
                return
            done.tried += len(stripe_ids)
            try:
                failure = apply_events(stripe_ids)
            except DatabaseUnavailableError:
                raise
            except Exception as error:
                done.failures.append(error)
                continue
            concerns_one = isinstance(failure, StripeObjectChangedError)
            if isinstance(failure, _STRIPE_CANT_BE_ASKED) and not concerns_one:
                return


def emit_backlog_metrics(_: Reconciliation) -> None:
    """Note how old what is unfinished is, and the last whole sweep: the alarms watch both."""
    swept_until = int(Sweep.read().swept_until)
    current().add_metric(Metric.SWEEP_AGE, max(int(current().clock()) - swept_until, 0))
    current().add_metric(Metric.OLDEST_UNFINISHED_EVENT_AGE, int(Event.oldest_pending_seconds()))


def grouped(entries: Iterable[QueueEntry]) -> Iterator[list[str]]:
    """Ids of events by customer; those whose last try did not end come last, and alone.

    One of them may have taken its process with it, and the others of its group would be counted as
    tried.
    """
    groups: dict[str, list[str]] = {}
    suspects: list[list[str]] = []
    for entry in entries:
        if entry.was_interrupted:
            suspects.append([entry.stripe_id])
        else:
            groups.setdefault(entry.customer_id or entry.stripe_id, []).append(entry.stripe_id)
    yield from groups.values()
    # In no certain order: those behind one that ends the run must not be the same each time.
    current().random.shuffle(suspects)
    yield from suspects


def _page(cursor: Sweep) -> tuple[list[Json], bool]:
    since = int(cursor.swept_until) - OVERLAP_SECONDS
    return current().stripe.list_events(since, _swept_kinds(), cursor.after)


def _swept_kinds() -> tuple[str, ...]:
    """The types to ask Stripe's list for; none, which means all, with handlers of one's own.

    The list takes twenty types and no patterns, and refuses a type that Stripe does not have.
    """
    return () if current().settings.event_handlers else applied_event_types()


def _receive_unknown(events: list[Json], done: Reconciliation) -> int:
    wanted = {
        event["id"]: event
        for event in events
        if isinstance(event.get("type"), str)
        and (event["type"] in applied_event_types() or has_handlers(event["type"]))
    }
    unknown = wanted.keys() - Event.known(wanted)
    received = 0
    # Oldest first, as they would have arrived.
    for stripe_id in reversed(wanted):
        if stripe_id in unknown:
            try:
                receive_event(wanted[stripe_id])
                received += 1
                current().add_metric(Metric.EVENTS_RECOVERED)
            except (DatabaseRefusedError, MalformedRequestError) as error:
                # It will be refused again, and must not keep the others from being received.
                done.failures.append(error)
    return received
