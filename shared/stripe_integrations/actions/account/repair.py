"""Repairing what a verification has found: each customer of its report is fetched again.

A repair decides anew from what Stripe and the table have now. Nothing is removed: a customer that
Stripe does not know, and duplicates, are reported for a person to decide.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import islice

from stripe_integrations import errors
from stripe_integrations.actions.account.backfill import write_customers
from stripe_integrations.actions.account.compare import UNKNOWN, compare_customer
from stripe_integrations.actions.account.page import (
    Finding,
    Json,
    Page,
    Result,
    unless_unreadable,
)
from stripe_integrations.actions.account.rebuild import restore_customer
from stripe_integrations.actions.account.stored import StoredCustomer, read_one
from stripe_integrations.actions.customers.refresh import refresh_until_written, retrieve_if_known
from stripe_integrations.actions.customers.snapshot import CustomerSnapshot
from stripe_integrations.context import current
from stripe_integrations.models import Pointer, read_customer
from stripe_integrations.models.difference import Difference, DifferenceKind
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.run import Run
from stripe_integrations.models.table import ConditionFailedError, transact
from stripe_integrations.models.window import WalkedList, Window

_BATCH = 25
_NOT_REFRESHED = (DifferenceKind.MISSING, DifferenceKind.DUPLICATE, DifferenceKind.ORPHAN)


def repair_page(window: Window, run: Run) -> Page:
    """Repair the next differences of the report, from the window's cursor on.

    Raises
    ------
    StripeError, DatabaseUnavailableError, ConflictError
        The differences are to be repaired again.
    """
    walked_list = WalkedList(window.walked_list)
    report = Difference.in_list(str(run.of_run), walked_list, after=window.cursor_id)
    differences = list(islice(report, _BATCH))
    sent = current().clock()
    page = Page([], Observation.of_fetch(sent, received=sent))
    for difference in differences:
        page.note(unless_unreadable(difference.stripe_id, partial(_repair, difference, run)))
    if len(differences) == _BATCH:
        page.cursor = (0, differences[-1].stripe_id)
    return page


def _repair(difference: Difference, run: Run) -> Result | Finding:
    stored = read_one(difference.customer_id, difference.record_pk)
    if stored.is_erased:
        return Result.ERASED
    if stored.record and not stored.record.is_active:
        return Result.FROZEN
    sent = current().clock()
    obj = retrieve_if_known(difference.customer_id)
    observation = Observation.of_fetch(sent, received=current().clock())
    observed = compare_customer(obj, stored)
    kind = observed.kind if observed else None
    if not obj:
        return Finding(difference.stripe_id, difference.kind, UNKNOWN)
    if kind is DifferenceKind.DUPLICATE:
        return Finding(difference.stripe_id, DifferenceKind.DUPLICATE, "")
    if kind is None and difference.stripe_id == difference.customer_id:
        return Result.UNCHANGED
    if kind is DifferenceKind.MISSING:
        write_customers(Page([obj], observation), run)
    elif kind is DifferenceKind.ORPHAN:
        _complete(obj, stored, observation, run)
    return _refresh(difference, obj)


def _refresh(difference: Difference, obj: Json) -> Result | Finding:
    """Fetch a customer with its children, unless its records still don't belong together."""
    stored = read_one(difference.customer_id, difference.record_pk)
    left = compare_customer(obj, stored)
    if left and left.kind in _NOT_REFRESHED:
        return Finding(difference.stripe_id, left.kind, left.reason)
    if stored.record and stored.record.is_active:
        record = read_customer(stored.record.owner)
        with suppress(errors.CustomerSoftDeletedError):
            refresh_until_written(record or stored.record)
    return Result.FETCHED


def _complete(obj: Json, stored: StoredCustomer, observation: Observation, run: Run) -> None:
    """Store what is missing of a customer whose claim, record and pointer don't belong together."""
    if stored.record is None:
        write_customers(Page([obj], observation), run)
    elif stored.pointer is None:
        token = stored.claim.token if stored.claim else None
        with suppress(ConditionFailedError):
            transact(Pointer.to(stored.record.owner, token).create_in)
    restore_customer(CustomerSnapshot(obj, observation, is_initial=False))
