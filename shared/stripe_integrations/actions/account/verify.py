"""Verifying a page: its objects are compared with the table, and differences become suspicions.

The table has more than the page shows: an active customer that Stripe has deleted is not listed. So
the index of active customers is read for the seconds of the page. A second counts on the page that
has its last object; until then the window remembers the ids that were read of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, takewhile

from stripe_integrations import errors
from stripe_integrations.actions.account.backfill import customer_id_of
from stripe_integrations.actions.account.compare import (
    DELETED,
    Observed,
    compare_customer,
    compare_subscription,
    missing_pointer,
)
from stripe_integrations.actions.account.page import Finding, Page, Result
from stripe_integrations.actions.account.stored import StoredCustomer, read_readable, read_stored
from stripe_integrations.models import Customer, Subscription
from stripe_integrations.models.child import Child
from stripe_integrations.models.customer import CreatedEntry, created_between
from stripe_integrations.models.difference import DifferenceKind, Suspicion
from stripe_integrations.models.keys import customer_key
from stripe_integrations.models.pointer import Pointer
from stripe_integrations.models.run import Run
from stripe_integrations.models.table import Record
from stripe_integrations.models.window import Window

_MAX_ENTRIES = 1000
"""How many customers of the index are compared with one page; a page that has more is cut."""


def verify_customers(page: Page, window: Window, run: Run) -> None:
    """Compare the customers of a page, and store suspicions.

    Raises
    ------
    DatabaseUnavailableError
        The page is to be read again.
    """
    entries = _entries(page, window)
    stored = read_stored(obj["id"] for obj in page.objects)
    for obj in page.objects:
        known = stored.get(obj["id"])
        if known is None:
            page.note(_unreadable(obj["id"]))
            continue
        observed = compare_customer(obj, known)
        if observed and not _is_newer(page, known):
            observed = observed._replace(record_version=None)
        if observed:
            _suspect(page, window, run, obj["id"], observed)
        else:
            page.note(_result_of(known))
    _compare_index(page, window, run, entries, stored)
    page.cursor_second_ids = _cursor_second_ids(page, window)


def verify_subscriptions(page: Page, window: Window, run: Run) -> None:
    """Compare the subscriptions of a page whose customer is stored, and store suspicions.

    Raises
    ------
    DatabaseUnavailableError
        The page is to be read again.
    """
    customers = read_stored(customer_id_of(obj) for obj in page.objects)
    records = {
        obj["id"]: known.record
        for obj in page.objects
        if (known := customers.get(customer_id_of(obj))) and known.record
    }
    keys = {
        stripe_id: (record.pk, Subscription.key_under(record.stripe_id, stripe_id))
        for stripe_id, record in records.items()
    }
    children = read_readable(keys.values())
    for obj in page.objects:
        known, record = customers.get(customer_id_of(obj)), records.get(obj["id"])
        key = keys.get(obj["id"])
        if known is None or (key in children and children[key] is None):
            page.note(_unreadable(obj["id"]))
            continue
        child = children.get(key) if key else None
        observed = None
        if record and record.is_active:
            observed = compare_subscription(
                obj, record, child if isinstance(child, Child) else None
            )
        if observed:
            # A transaction on the customer and its subscription may be visible in part.
            observed = observed._replace(record_version=None)
            _suspect(page, window, run, obj["id"], observed, customer_id=customer_id_of(obj))
        else:
            page.note(_result_of(known))


def _is_newer(page: Page, known: StoredCustomer) -> bool:
    """Return whether a page is certainly newer than the stored state that was read after it."""
    stored = known.record.observation if known.record else None
    return stored is not None and page.observation.observed_from > stored.observed_to


def _result_of(known: StoredCustomer) -> Result:
    """What an object without a difference is counted as."""
    if known.record is None:
        return Result.ERASED if known.is_erased else Result.UNASSIGNED
    return Result.UNCHANGED if known.record.is_active else Result.FROZEN


def _unreadable(stripe_id: str) -> Finding:
    return Finding(stripe_id, Result.UNREADABLE, errors.NewerSchemaError.__name__)


def _suspect(
    page: Page,
    window: Window,
    run: Run,
    stripe_id: str,
    observed: Observed,
    *,
    customer_id: str | None = None,
    record_pk: str | None = None,
) -> None:
    suspicion = Suspicion.new(run.run_id, window.id, stripe_id, customer_id or stripe_id)
    suspicion.record_pk = record_pk
    suspicion.observe(*observed)
    suspicion.store()
    page.note(Result.SUSPECTED)


# ---- the index


def _entries(page: Page, window: Window) -> list[CreatedEntry]:
    """The customers of the index in the complete seconds of a page; cuts a page that has too many.

    Of the page's last second, the list may have more.
    """
    latest = window.created_until - 1
    earliest = page.cursor[0] + 1 if isinstance(page.cursor, tuple) else window.created_from
    if earliest is not None and earliest > latest:
        return []
    found = created_between(earliest, latest)
    entries = list(islice(found, _MAX_ENTRIES))
    if len(entries) == _MAX_ENTRIES:
        last = entries[-1].created
        entries += takewhile(lambda entry: entry.created == last, found)
        page.objects = [obj for obj in page.objects if obj["created"] >= last]
        page.cursor = (last - 1, None)
    return entries


def _cursor_second_ids(page: Page, window: Window) -> list[str]:
    """The ids that were read so far of the second in which the list continues."""
    if not isinstance(page.cursor, tuple):
        return []
    second = page.cursor[0]
    earlier = window.cursor_second_ids if window.cursor_created == second else None
    read = [obj["id"] for obj in page.objects if obj["created"] == second]
    return list(dict.fromkeys([*(earlier or ()), *read]))


def _compare_index(
    page: Page,
    window: Window,
    run: Run,
    entries: list[CreatedEntry],
    stored: Mapping[str, StoredCustomer],
) -> None:
    """Suspect active records that Stripe does not list, or to which no pointer leads."""
    read_ids = {*(obj["id"] for obj in page.objects), *(window.cursor_second_ids or ())}
    others = [entry for entry in entries if entry.stripe_id not in stored]
    pointers = read_readable(Pointer.key_of(entry.stripe_id) for entry in others)
    unlisted = [entry for entry in others if entry.stripe_id not in read_ids]
    records = read_readable((entry.pk, customer_key(entry.stripe_id)) for entry in unlisted)
    for entry in entries:
        key, record_key = Pointer.key_of(entry.stripe_id), (entry.pk, customer_key(entry.stripe_id))
        if None in (pointers.get(key, key), records.get(record_key, key)):
            page.note(_unreadable(entry.stripe_id))
            continue
        known = stored.get(entry.stripe_id)
        pointer = known.pointer if known else pointers.get(key)
        observed = None
        reason = missing_pointer(pointer if isinstance(pointer, Pointer) else None, entry.pk)
        if reason:
            observed = Observed(DifferenceKind.ORPHAN, reason)
        elif entry.stripe_id not in read_ids:
            observed = _unlisted(records.get(record_key))
        if observed:
            _suspect(page, window, run, entry.stripe_id, observed, record_pk=entry.pk)


def _unlisted(record: Record | None) -> Observed | None:
    """Suspect an active customer that Stripe does not list, as it lists none of a test clock."""
    if not isinstance(record, Customer) or not record.is_active:
        return None
    version = None if record.test_clock else int(record.version or 0)
    return Observed(DifferenceKind.EXTRA, DELETED, version)
