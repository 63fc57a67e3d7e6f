"""Checking a window's suspicions: a difference counts once it was seen twice, 15 minutes apart.

A check fetches the object under the version: the record is read before and after the fetch, and
must be the same. All events until the first observation must have been received and applied, and
the record must still have the version that differed. Otherwise what is seen now is a new suspicion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from typing import Any

from stripe_integrations import errors
from stripe_integrations.actions.account.compare import (
    Observed,
    compare_customer,
    compare_subscription,
)
from stripe_integrations.actions.account.page import UNREADABLE, Finding, Page, Result
from stripe_integrations.actions.account.stored import read_one
from stripe_integrations.actions.customers.refresh import retrieve_if_known
from stripe_integrations.context import current
from stripe_integrations.models import Customer, EventState, Pointer, Subscription, read_customer
from stripe_integrations.models.difference import Difference, DifferenceKind, Suspicion
from stripe_integrations.models.event_queue import has_event_in
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import Run
from stripe_integrations.models.sweep_cursor import SweepCursor
from stripe_integrations.models.table import Record
from stripe_integrations.models.window import WalkedList, Window

_BATCH = 25
_MAX_CHECKS = 8
"""After these, which take two hours, an alarm says that events are not applied."""
_SWEEP_MARGIN_SECONDS = 120
"""A sweep leaves the newest events to their deliveries."""


def check_suspicions(window: Window, run: Run) -> Iterator[Page]:
    """Check the due suspicions of a window, and let the window wait for the others.

    Yields
    ------
    Page
        What became of each batch, after it was written; `findings` has the differences.

    Raises
    ------
    StaleRecordError
        Another worker has the window.
    StripeError, DatabaseUnavailableError
        The batch is to be checked again.
    """
    now = current().clock()
    suspicions = Suspicion.of_window(run.run_id, window.id)
    due = (suspicion for suspicion in suspicions if suspicion.due_at <= now)
    while batch := list(islice(due, _BATCH)):
        yield _check_batch(window, run, batch)
    later = min((s.due_at for s in Suspicion.of_window(run.run_id, window.id)), default=None)
    if later is None and (twice := window.counts.get(Result.SUSPECTED, 0)):
        # An object that was on two pages was counted twice, and checked once.
        window.record_checks({Result.SUSPECTED: -twice}, [], [])
    window.wait_until(later)


def differences_of(run_id: str) -> Iterator[Finding]:
    """The differences that a verification has found so far, list by list.

    Raises
    ------
    DatabaseUnavailableError
        They could not be read.
    """
    for walked_list in WalkedList:
        for found in Difference.in_list(run_id, walked_list):
            yield Finding(found.stripe_id, found.kind, found.reason)


def _check_batch(window: Window, run: Run, batch: list[Suspicion]) -> Page:
    walked_list = WalkedList(window.walked_list)
    swept_until = int(SweepCursor.read().swept_until)
    sent = current().clock()
    outcomes = [_check(walked_list, suspicion, swept_until) for suspicion in batch]
    page = Page([], Observation.of_fetch(sent, received=current().clock()))
    stored: list[Record] = []
    deleted: list[Record] = []
    for suspicion, outcome in zip(batch, outcomes, strict=True):
        if outcome is Result.SUSPECTED:
            stored.append(suspicion)
            continue
        deleted.append(suspicion)
        page.note(outcome)
        if isinstance(outcome, Finding) and outcome.result is suspicion.kind:
            stored.append(Difference.of(run.run_id, walked_list, suspicion))
    changes = Counter({str(result): count for result, count in page.results.items()})
    changes[Result.SUSPECTED] -= len(deleted)
    window.record_checks(changes, stored, deleted)
    return page


def _check(walked_list: WalkedList, suspicion: Suspicion, swept_until: int) -> Result | Finding:
    """Check a suspicion: it stays one, is cleared, or becomes a difference."""
    suspicion.checks += 1
    observe = _observe_customer if walked_list is WalkedList.CUSTOMERS else _observe_subscription
    obstacle = _obstacle(suspicion, swept_until)
    if obstacle:
        return _postpone(suspicion, obstacle)
    try:
        observed = retry_on_conflict(lambda _: observe(suspicion))
    except errors.ConflictError:
        return _postpone(suspicion, "changed during every fetch")
    except UNREADABLE as error:
        return Finding(suspicion.stripe_id, Result.UNREADABLE, type(error).__name__)
    if observed is None:
        return Result.UNCHANGED
    if observed.confirms(suspicion):
        suspicion.reason = observed.reason
        return Finding(suspicion.stripe_id, suspicion.kind, observed.reason)
    suspicion.observe(*observed)
    return _postpone(suspicion, "changed before every check")


def _postpone(suspicion: Suspicion, reason: str) -> Result | Finding:
    if suspicion.checks < _MAX_CHECKS:
        suspicion.postpone()
        return Result.SUSPECTED
    suspicion.kind, suspicion.reason = DifferenceKind.UNDECIDED, reason
    return Finding(suspicion.stripe_id, suspicion.kind, reason)


def _obstacle(suspicion: Suspicion, swept_until: int) -> str | None:
    """Why the events until the first observation may not all have been applied."""
    if swept_until < suspicion.observed_at + _SWEEP_MARGIN_SECONDS:
        return "its events were not swept"
    if _has_unfinished_event(suspicion):
        return "its events were not applied"
    return None


def _observe_customer(suspicion: Suspicion) -> Observed | None:
    before = read_one(suspicion.customer_id, suspicion.record_pk)
    obj = retrieve_if_known(suspicion.customer_id)
    after = read_one(suspicion.customer_id, suspicion.record_pk)
    _check_unchanged(before.record, after.record)
    return compare_customer(obj, after)


def _observe_subscription(suspicion: Suspicion) -> Observed | None:
    before = read_one(suspicion.customer_id, suspicion.record_pk).record
    if before is None or not before.is_active:
        return None
    objects = {obj["id"]: obj for obj in _list_subscriptions(before.stripe_id)}
    after = read_customer(before.owner)
    _check_unchanged(before, after)
    obj = objects.get(suspicion.stripe_id)
    if obj is None or after is None:
        return None
    return compare_subscription(obj, after, after.child(Subscription, suspicion.stripe_id))


def _check_unchanged(before: Customer | None, after: Customer | None) -> None:
    if _identity(before) != _identity(after):
        raise errors.StaleRecordError("the customer was changed while it was fetched")


def _identity(record: Customer | None) -> tuple[object, ...] | None:
    return (record.pk, record.created_at, record.version) if record else None


def _has_unfinished_event(suspicion: Suspicion) -> bool:
    """Return whether an event is still to be applied; those of an unknown customer wait in vain."""
    states = {EventState.PENDING}
    if Pointer.read(suspicion.customer_id):
        states.add(EventState.WAITING)
    return has_event_in(suspicion.customer_id, states)


def _list_subscriptions(customer_id: str) -> list[dict[str, Any]]:
    try:
        return current().stripe.list_subscriptions(customer_id)
    except errors.StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return []
