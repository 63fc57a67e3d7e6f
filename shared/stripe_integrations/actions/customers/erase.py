"""Erasing customers: what is stored of them is removed for good, and nothing is stored again.

A work item with the Stripe ids is stored first; the schedule completes what fails after that. Then
the customers are changed on Stripe; then their records are deleted, with a tombstone in place of
each pointer; then the ids are added to the erasure log, which is outside the table, for a
restore; then the events lose their payloads. A worker that has read a pointer before may store an
event after that: the schedule repeats the pass over the events 15 minutes later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from stripe_integrations import errors, limits
from stripe_integrations.actions.customers.adopt import valid_stripe_id
from stripe_integrations.actions.customers.metadata import remove_metadata
from stripe_integrations.context import current
from stripe_integrations.models import Event, Owner, Pointer, UserRecords, event_queue
from stripe_integrations.models.erasure import Erasure
from stripe_integrations.models.event import ERASED
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.observability import error_log_fields, logger

_EVENTS_A_READ = 100


@dataclass
class ErasedCustomers:
    """The outcome of an erasure, in ids of Stripe customers.

    Parameters
    ----------
    customer_ids : list of str
        The customers that are erased here.
    refused : list of str
        Of those, the ones that Stripe refused to delete, or to remove our metadata from.
    """

    customer_ids: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def erase_user(user_id: str, *, delete_on_stripe: object) -> ErasedCustomers:
    """Erase all customers of a user: see `StripeCustomer.erase`."""
    is_deletion = _valid_flag(delete_on_stripe)
    records = UserRecords.read(user_id)
    claim = records.claim
    if claim and claim.is_creating:
        raise errors.CustomerBeingCreatedError("the customer of this user is being created")
    if not records.customer_ids:
        _delete_orphans(user_id)
        return ErasedCustomers()
    return _erase(user_id, records, records.customer_ids, is_deletion=is_deletion)


def erase_stripe_customer(stripe_id: object, *, delete_on_stripe: object) -> ErasedCustomers:
    """Erase one customer, with or without a user: see `StripeCustomer.erase_stripe_customer`."""
    customer_id = valid_stripe_id(stripe_id)
    is_deletion = _valid_flag(delete_on_stripe)
    pointer = Pointer.read(customer_id)
    owner = pointer.owner if pointer else Owner(None, customer_id)
    records = UserRecords.of_partition(owner.pk)
    return _erase(owner.user_id, records, {customer_id}, is_deletion=is_deletion)


def _erase(
    user_id: str | None, records: UserRecords, customer_ids: Collection[str], *, is_deletion: bool
) -> ErasedCustomers:
    customers = {each: records.payment_method_ids(each) for each in sorted(customer_ids)}
    erasure = Erasure.start(user_id, customers, delete_on_stripe=is_deletion)
    return complete_erasure(erasure)


def _valid_flag(delete_on_stripe: object) -> bool:
    if not isinstance(delete_on_stripe, bool):
        raise errors.InvalidFieldError("delete_on_stripe", "must be true or false")
    return delete_on_stripe


def complete_erasure(erasure: Erasure) -> ErasedCustomers:
    """Take all steps of an erasure that are due; each may have been taken before.

    Parameters
    ----------
    erasure : Erasure
        The work item, claimed by this worker.

    Raises
    ------
    StripeError
        Stripe did not respond, or refused the API key.
    ConflictError
        The metadata is being written by an adoption or a release, or concurrent writers changed the
        records every time.
    MessageNotSentError
        The erasure log did not accept the ids.
    OutOfTimeError
        The invocation would end before the work is done.
    """
    is_second_pass = erasure.are_records_deleted
    result = ErasedCustomers()
    for customer_id in () if is_second_pass else erasure.customers:
        _check_time()
        _erase_customer(erasure, customer_id, result)
    if erasure.user_id:
        _delete_orphans(erasure.user_id)
    erased = {each: erasure.customers[each] for each in erasure.customers if _has_tombstone(each)}
    if erased:
        # The second pass adds them too: the first may run outside the stack, without a log.
        current().record_erasure(list(erased))
    _erase_events(erased)
    if is_second_pass:
        erasure.finish()
        return result
    erasure.schedule_second_pass()
    for customer_id in result.customer_ids:
        current().log_item("erased", customer_id)
    return result


def _erase_customer(erasure: Erasure, customer_id: str, result: ErasedCustomers) -> None:
    """Erase one customer, on Stripe and its records, unless another user has it by now."""
    if _has_tombstone(customer_id):
        # An earlier erasure may have left the customer on Stripe; a backup that was made during
        # one may have its records.
        is_accepted = not erasure.delete_on_stripe or _change_on_stripe(erasure, customer_id)
        _erase_records(erasure, customer_id)
    elif _has_other_owner(erasure, customer_id):
        logger.warning(
            "not erased: another user has the customer", extra={"stripe_customer_id": customer_id}
        )
        if erasure.user_id:
            _erase_stray_record(erasure.user_id, customer_id)
        return
    else:
        update = MetadataUpdate.acquire(customer_id)
        if update is None:
            raise errors.ConflictError(f"the metadata of {customer_id} is being written")
        # No user adopts it while the metadata is claimed, but one may have before.
        if _has_other_owner(erasure, customer_id):
            raise errors.ConflictError(f"{customer_id} is another user's by now")
        is_accepted = _change_on_stripe(erasure, customer_id)
        _erase_records(erasure, customer_id, update)
    result.customer_ids.append(customer_id)
    if not is_accepted:
        result.refused.append(customer_id)


def _erase_records(
    erasure: Erasure, customer_id: str, update: MetadataUpdate | None = None
) -> None:
    def attempt(_: int) -> None:
        pointer = Pointer.read(customer_id)
        owner = _owner(erasure, customer_id, pointer)
        if owner is None:
            raise errors.ConflictError(f"{customer_id} is another user's by now")
        records = UserRecords.of_partition(owner.pk)
        if update or records.names(customer_id):
            records.erase(owner, pointer, [update.remove_in] if update else [])

    retry_on_conflict(attempt)


def _erase_stray_record(user_id: str, customer_id: str) -> None:
    """Delete a user's record of a customer whose pointer names another, as a backup may have it."""

    def attempt(_: int) -> None:
        records = UserRecords.read(user_id)
        if records.names(customer_id):
            records.erase(Owner(user_id, customer_id), None, leaves_tombstone=False)

    retry_on_conflict(attempt)


def _has_other_owner(erasure: Erasure, customer_id: str) -> bool:
    return _owner(erasure, customer_id, Pointer.read(customer_id)) is None


def _owner(erasure: Erasure, customer_id: str, pointer: Pointer | None) -> Owner | None:
    """Return whose the records are: the user's, or no user's; None if another user has them."""
    if pointer is None or pointer.is_erased:
        return Owner(erasure.user_id, customer_id)
    return pointer.owner if pointer.user_id in (None, erasure.user_id) else None


def _has_tombstone(customer_id: str) -> bool:
    pointer = Pointer.read(customer_id)
    return pointer is not None and pointer.is_erased


def _change_on_stripe(erasure: Erasure, customer_id: str) -> bool:
    """Delete the customer on Stripe, or remove our metadata; return whether Stripe accepted it.

    A 404 is a refusal: Stripe returns deleted customers, so the key is of another account.
    """
    try:
        if current().stripe.retrieve_customer(customer_id).get("deleted"):
            return True
        if erasure.delete_on_stripe:
            current().stripe.delete_customer(customer_id)
        else:
            remove_metadata(customer_id)
    except errors.StripeRefusedError as error:
        if erasure.delete_on_stripe and _is_deleted(customer_id):
            return True  # by an attempt whose response was lost
        # It will be refused again, and the records must not stay for that.
        logger.warning(
            "Stripe refused to change the erased customer",
            extra={"stripe_customer_id": customer_id, **error_log_fields(error)},
        )
        return False
    return True


def _is_deleted(customer_id: str) -> bool:
    with suppress(errors.StripeRefusedError):
        return bool(current().stripe.retrieve_customer(customer_id).get("deleted"))
    return False


def _delete_orphans(user_id: str) -> None:
    for child in UserRecords.read(user_id).orphans:
        _check_time()
        child.delete_orphan()


def _erase_events(customers: Mapping[str, Collection[str]]) -> None:
    """Erase the events of customers, which have their PaymentMethods, found by index."""
    stripe_ids = event_queue.ids_of_customers(customers)
    while batch := list(islice(stripe_ids, _EVENTS_A_READ)):
        _check_time()
        for stripe_id, event in Event.find_all(batch).items():
            if event.reason != ERASED:
                Event.erase(stripe_id)


def _check_time() -> None:
    if not current().has_time_for(limits.ERASE_SECONDS):
        raise errors.OutOfTimeError("the schedule completes the erasure")
