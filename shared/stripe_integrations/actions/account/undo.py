"""Undoing a run: the customers that it gave to users are released, unless assigned again since."""

from __future__ import annotations

from functools import partial

from stripe_integrations.actions.account.backfill import stores_unassigned, write_customers
from stripe_integrations.actions.account.page import Json, Page, Result, unless_unreadable
from stripe_integrations.actions.customers.assign import remove_assignment
from stripe_integrations.actions.customers.release import free_customer
from stripe_integrations.models import Pointer, UserRecords, read_customer
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import Run


def undo_customers(page: Page, run: Run) -> None:
    """Release the customers of a page that the undone run has assigned.

    Raises
    ------
    DatabaseUnavailableError, ConflictError
        The page is to be read again.
    """
    pointers = Pointer.read_all(obj["id"] for obj in page.objects)
    for obj in page.objects:
        pointer = pointers.get(obj["id"])
        if pointer is None or pointer.run_id != run.of_run:
            page.note(Result.UNCHANGED)
        else:
            page.note(unless_unreadable(obj["id"], partial(_undo, page, run, obj)))


def _undo(page: Page, run: Run, obj: Json) -> Result:
    undone = undo_assignment(obj["id"], str(run.of_run))
    if undone is Result.RELEASED and stores_unassigned() and not Pointer.read(obj["id"]):
        # Its record was never stored, and its events have waited for the record.
        write_customers(Page([obj], page.observation), run)
    return undone


def undo_assignment(customer_id: str, run_id: str) -> Result:
    """Release a customer that a run gave to its user, unless it was assigned again since."""

    def attempt(_: int) -> Result:
        pointer = Pointer.read(customer_id)
        if pointer is None or pointer.run_id != run_id:
            return Result.UNCHANGED
        record = read_customer(pointer.owner)
        if record is None:
            remove_assignment(pointer)
            return Result.RELEASED
        if not record.is_active:
            return Result.FROZEN
        free_customer(record)
        for child in UserRecords.of_partition(record.pk).orphans:
            child.delete_orphan()
        return Result.RELEASED

    return retry_on_conflict(attempt)
