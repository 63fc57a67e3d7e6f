"""Undoing a run: the customers that it gave to users are released, unless assigned again since."""

from __future__ import annotations

from stripe_integrations.actions.account.backfill import (
    UNREADABLE,
    stores_unassigned,
    write_customers,
)
from stripe_integrations.actions.account.page import Finding, Page, Result
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
        is_assigned = pointer is not None and pointer.run_id == run.of_run
        try:
            undone = undo_assignment(obj["id"], str(run.of_run)) if is_assigned else None
            if undone is Result.RELEASED and stores_unassigned() and not Pointer.read(obj["id"]):
                # Its record was never stored, and its events have waited for the record.
                write_customers(Page([obj], page.observation), run)
            page.note(undone or Result.UNCHANGED)
        except UNREADABLE as error:
            page.note(Finding(obj["id"], Result.UNREADABLE, type(error).__name__))


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
