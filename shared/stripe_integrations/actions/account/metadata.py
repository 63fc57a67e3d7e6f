"""Writing our metadata to Stripe for the customers that backfills gave to users.

A backfill changes nothing on Stripe. A run of the kind `metadata` writes the user and the token of
each customer that backfills have assigned, so that a rebuild after a restore finds them. The
pointer notes that it was written: a run that is resumed or repeated leaves that customer out.

Meanwhile the work item of the metadata is claimed, as by an adoption and a release: no other worker
assigns, releases or erases the customer until it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from stripe_integrations import errors
from stripe_integrations.actions.account.page import Finding, Json, Page, Result
from stripe_integrations.actions.customers.metadata import set_metadata
from stripe_integrations.actions.customers.refresh import retrieve_if_known
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, names_other_owner
from stripe_integrations.models import Customer, Pointer, read_customer
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.retry import retry_on_conflict

NOT_STORED = "its record is not stored yet"
OTHER_OWNER = "its metadata names another owner"
DELETED = "Stripe has deleted the customer"
_WITHOUT_EFFECT = (401, 403, 429)
"""The statuses of calls that had no effect: another worker may write the metadata at once."""

Wait = Callable[[], None]
"""Waits until a write of metadata is within the budget of the run."""


def write_metadata_of_page(page: Page, wait: Wait) -> None:
    """Write the metadata of the customers of a page that lack it.

    Parameters
    ----------
    page : Page
        The page, with Stripe's customers.
    wait : callable
        Waits until a write of metadata is within the budget.

    Raises
    ------
    StripeError, DatabaseUnavailableError, ConflictError
        The page is to be read again. What was written of it remains.
    """
    pointers = Pointer.read_all(obj["id"] for obj in page.objects)

    def process(obj: Json) -> Result | Finding:
        pointer = pointers.get(obj["id"])
        if pointer is None or not pointer.lacks_metadata:
            return Result.UNCHANGED
        return retry_on_conflict(partial(_write, obj["id"], wait))

    page.process(process)


def _write(stripe_id: str, wait: Wait, _: int) -> Result | Finding:
    wait()
    update = MetadataUpdate.acquire(stripe_id)
    if update is None:
        raise errors.StaleRecordError(f"the metadata of {stripe_id} is being written")
    pointer = Pointer.read(stripe_id)
    if pointer is None or not pointer.lacks_metadata:
        update.finish()
        return Result.ERASED if pointer and pointer.is_erased else Result.UNCHANGED
    record = read_customer(pointer.owner)
    if record is None or not record.is_active:
        update.finish()
        return Result.FROZEN if record else _not_written(stripe_id, NOT_STORED)
    try:
        stripe_customer = retrieve_existing(stripe_id)
    except errors.StripeError:
        update.finish()
        raise
    try:
        obstacle, values = _write_on_stripe(pointer, stripe_customer)
    except errors.StripeError as error:
        if error.status in _WITHOUT_EFFECT:
            update.finish()
        raise
    if obstacle:
        update.finish()
        return _not_written(stripe_id, obstacle)
    _note(pointer, record, values, update)
    return Result.WRITTEN


def retrieve_existing(stripe_id: str) -> Json:
    """Retrieve a customer whose metadata is to be changed; Stripe returns deleted ones too.

    Raises
    ------
    StripeUnavailableError
        Stripe does not know it, as with the key of another account: the run must not continue.
    """
    stripe_customer = retrieve_if_known(stripe_id)
    if not stripe_customer:
        raise errors.StripeUnavailableError(f"Stripe does not know {stripe_id}")
    return stripe_customer


def _write_on_stripe(pointer: Pointer, stripe_customer: Json) -> tuple[str | None, dict[str, Any]]:
    """Write the metadata, unless Stripe has it already.

    Returns
    -------
    tuple
        Why it is not on Stripe, if it is not, and the field values that its response has.
    """
    if stripe_customer.get("deleted"):
        return DELETED, {}
    metadata = stripe_customer.get("metadata")
    if names_other_owner(metadata, pointer.user_id):
        return OTHER_OWNER, {}
    if value_at(metadata, TOKEN_KEY) == pointer.token:
        return None, {}
    try:
        return None, set_metadata(pointer)
    except errors.StripeRefusedError as error:
        return f"Stripe refused it: {error.code or error.param or error.status}", {}


def _note(
    pointer: Pointer, record: Customer, values: dict[str, Any], update: MetadataUpdate
) -> None:
    """Note that the metadata is written, in a transaction that raises the version of the record.

    So an undo, which reads the record and then the pointer, finds the note or has a conflict.
    Stripe's response is written to the record unless that has changed; then the event updates it.
    """
    items = (pointer.note_metadata_in, update.remove_in)

    def attempt(number: int) -> None:
        stored = read_customer(pointer.owner) if number else record
        if stored and stored.is_active:
            stored.update_with({} if number else values, extra_items=items)
        else:
            update.finish()  # soft-deleted in the meantime

    retry_on_conflict(attempt)


def _not_written(stripe_id: str, reason: str) -> Finding:
    return Finding(stripe_id, Result.NOT_WRITTEN, reason)
