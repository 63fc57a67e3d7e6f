"""Undoing a run: the customers that it gave to users are released, unless assigned again since.

Where a later run has written our metadata of such a customer, it is removed on Stripe first, while
the work item of the metadata is claimed, as by a release. If the process dies before the records
are changed, the schedule writes the metadata again: by the records, the user has the customer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from stripe_integrations import errors
from stripe_integrations.actions.account.backfill import stores_unassigned, write_customers
from stripe_integrations.actions.account.metadata import Wait, retrieve_existing
from stripe_integrations.actions.account.page import Finding, Json, Page, Result
from stripe_integrations.actions.customers.assign import remove_assignment
from stripe_integrations.actions.customers.metadata import remove_metadata
from stripe_integrations.actions.customers.release import free_customer
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, names_other_owner
from stripe_integrations.context import current
from stripe_integrations.models import Customer, Pointer, UserRecords, read_customer
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import Run


def undo_customers(page: Page, run: Run, wait: Wait) -> None:
    """Release the customers of a page that the undone run has assigned.

    Parameters
    ----------
    page : Page
        The page.
    run : Run
        The run that undoes another one.
    wait : callable
        Waits until a write of metadata is within the budget.

    Raises
    ------
    StripeError, DatabaseUnavailableError, ConflictError
        The page is to be read again.
    """
    pointers = Pointer.read_all(obj["id"] for obj in page.objects)

    def process(obj: Json) -> Result | Finding:
        pointer = pointers.get(obj["id"])
        if pointer is None or pointer.run_id != run.of_run:
            return Result.UNCHANGED
        return _undo(run, obj, wait)

    page.process(process)


def _undo(run: Run, obj: Json, wait: Wait) -> Result:
    undone = undo_assignment(obj["id"], str(run.of_run), wait, obj.get("metadata"))
    if undone is Result.RELEASED and stores_unassigned() and not Pointer.read(obj["id"]):
        # Its record was never stored, and its events have waited for the record.
        _store_unassigned(obj["id"], run)
    return undone


def _store_unassigned(customer_id: str, run: Run) -> None:
    """Store a customer as it is now: the metadata may have been removed since it was listed."""
    sent = current().clock()
    stripe_customer = retrieve_existing(customer_id)
    if not stripe_customer.get("deleted"):
        observation = Observation.of_fetch(sent, received=current().clock())
        write_customers(Page([stripe_customer], observation), run)


def undo_assignment(customer_id: str, run_id: str, wait: Wait, metadata: object = None) -> Result:
    """Release a customer that a run gave to its user, unless it was assigned again since.

    Parameters
    ----------
    customer_id, run_id : str
        The customer, and the run.
    wait : callable
        Waits until a write of metadata is within the budget.
    metadata : object
        Its metadata on Stripe, if it was listed: a backup may lack the note that it was written.

    Raises
    ------
    StripeError
        Stripe did not remove the metadata.
    """

    def attempt(_: int) -> Result:
        pointer = _read_assignment(customer_id, run_id)
        if pointer is None:
            return Result.UNCHANGED
        record = read_customer(pointer.owner)
        if record and not record.is_active:
            return Result.FROZEN
        # Once more: a worker of a stopped run may have written the metadata since the first read.
        pointer = _read_assignment(customer_id, run_id)
        if pointer is None:
            return Result.UNCHANGED
        if pointer.has_metadata or _names_user(metadata, pointer):
            return _remove_and_free(customer_id, run_id, wait)
        _free(pointer, record, [partial(MetadataUpdate.check_is_free, stripe_id=customer_id)])
        return Result.RELEASED

    return retry_on_conflict(attempt)


def _remove_and_free(customer_id: str, run_id: str, wait: Wait) -> Result:
    """Remove the metadata on Stripe, and release the customer."""
    wait()
    update = MetadataUpdate.acquire(customer_id)
    if update is None:
        raise errors.StaleRecordError(f"the metadata of {customer_id} is being written")
    pointer = _read_assignment(customer_id, run_id)
    record = read_customer(pointer.owner) if pointer else None
    if pointer is None or (record and not record.is_active):
        update.finish()
        return Result.FROZEN if pointer else Result.UNCHANGED
    values = remove_metadata(customer_id, retrieve_existing(customer_id))
    if record:
        for name, value in values.items():
            setattr(record, name, value)

    def attempt(number: int) -> Result:
        stored = read_customer(pointer.owner) if number else record
        if stored and not stored.is_active:
            update.finish()
            return Result.FROZEN
        _free(pointer, stored, [update.remove_in])
        return Result.RELEASED

    return retry_on_conflict(attempt)


def _free(pointer: Pointer, record: Customer | None, extra_items: Sequence[ExtraItem]) -> None:
    if record is None:
        remove_assignment(pointer, extra_items)
        return
    free_customer(record, extra_items)
    for child in UserRecords.of_partition(record.pk).orphans:
        child.delete_orphan()


def _read_assignment(customer_id: str, run_id: str) -> Pointer | None:
    """The pointer of a customer if the run has assigned it, and it was not assigned again since."""
    pointer = Pointer.read(customer_id)
    return pointer if pointer and pointer.run_id == run_id else None


def _names_user(metadata: object, pointer: Pointer) -> bool:
    """Return whether metadata on Stripe has a token of ours, and names the pointer's user."""
    has_token = value_at(metadata, TOKEN_KEY) is not None
    return has_token and not names_other_owner(metadata, pointer.user_id)
