"""Storing the customer that a user gets: claim, record and pointer together."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from pynamodb.transactions import TransactWrite

from stripe_integrations.actions.customers.snapshot import CustomerSnapshot
from stripe_integrations.context import current
from stripe_integrations.errors import (
    CustomerErasedError,
    CustomerOfAnotherUserError,
    CustomerSoftDeletedError,
    StaleRecordError,
)
from stripe_integrations.models import (
    Customer,
    CustomerClaim,
    Owner,
    Pointer,
    UserRecords,
    read_customer,
)
from stripe_integrations.models.claim import ClaimReplacement, new_token
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.table import ConditionFailedError, stale_if_changed, transact


def complete_create(
    user_id: str, claim: CustomerClaim, snapshot: CustomerSnapshot
) -> Customer | None:
    """Store the customer that Stripe created for a claim.

    Succeeds as well where another worker has stored the same customer.

    Parameters
    ----------
    user_id : str
        The user.
    claim : CustomerClaim
        The claim, as it was read.
    snapshot : CustomerSnapshot
        The customer.

    Returns
    -------
    Customer or None
        None where the claim is stored no longer: read the user's records again.

    Raises
    ------
    CustomerOfAnotherUserError, CustomerErasedError
        Another user has the customer by now, or it was erased. The claim is deleted, since it can't
        be completed.
    """
    customer = Customer.new(Owner(user_id, snapshot.stripe_id), current().now())
    for name, value in claim.parameters["local"].items():
        setattr(customer, name, value)
    try:
        return _store(snapshot.fill(customer), claim.completed(snapshot.stripe_id, snapshot.token))
    except CustomerSoftDeletedError:
        # A backup that was made during writes has the claim as it was before its customer.
        claim.release()
        return None
    except (CustomerOfAnotherUserError, CustomerErasedError):
        claim.release()
        raise


def assign_customer(
    user_id: str, replaced: CustomerClaim | None, snapshot: CustomerSnapshot
) -> Customer | None:
    """Store a customer of ours whose claim is lost, or whose record is.

    Where a run gave it to the user, its claim says so, and the pointer does: the run can be undone.

    Parameters
    ----------
    user_id : str
        The user.
    replaced : CustomerClaim or None
        The stored claim, as it was read: an earlier one than the customer's, or a pointer to this
        very customer.
    snapshot : CustomerSnapshot
        The customer.

    Returns
    -------
    Customer or None
        None where another claim is stored by now: read the user's records again.

    Raises
    ------
    CustomerOfAnotherUserError, CustomerErasedError
        Another user has the customer, or it was erased.
    """
    stripe_id, token = snapshot.stripe_id, str(snapshot.token)
    run_id = replaced.run_id if replaced and replaced.stripe_id == stripe_id else None
    replacement = CustomerClaim.assigned(user_id, stripe_id, token, replaced, run_id)
    with suppress(CustomerSoftDeletedError):
        return _store(snapshot.new_record(user_id), replacement)
    return None


def assign_adopted(
    user_id: str, replaced: CustomerClaim | None, snapshot: CustomerSnapshot, update: MetadataUpdate
) -> Customer | None:
    """Store an existing Stripe customer that a user adopts.

    Parameters
    ----------
    user_id : str
        The user.
    replaced : CustomerClaim or None
        The stored claim, as it was read: a pointer to this very customer.
    snapshot : CustomerSnapshot
        The customer.
    update : MetadataUpdate
        The work item of its metadata, which is stored with it.

    Returns
    -------
    Customer or None
        With `is_new` True if this call stored it. None where another claim is stored by now: read
        the user's records again.

    Raises
    ------
    CustomerSoftDeletedError
        Its record exists, and is soft-deleted.
    CustomerOfAnotherUserError, CustomerErasedError
        Another user has the customer, or it was erased.
    """
    replacement = CustomerClaim.assigned(user_id, snapshot.stripe_id, new_token(), replaced)
    customer = snapshot.fill(Customer.new(Owner(user_id, snapshot.stripe_id), current().now()))
    return _store(customer, replacement, [update.add_to])


def assign_unassigned(
    user_id: str, replaced: CustomerClaim | None, record: Customer, update: MetadataUpdate
) -> Customer | None:
    """Give an unassigned customer to the user who adopts it: its records move to the user's.

    Parameters
    ----------
    user_id : str
        The user.
    replaced : CustomerClaim or None
        The stored claim, as it was read: a pointer to this very customer.
    record : Customer
        The record, as it was read.
    update : MetadataUpdate
        The work item of its metadata, which is stored with it.

    Returns
    -------
    Customer or None
        With `is_new` True. None where another claim is stored by now, or the record was changed:
        read both again.

    Raises
    ------
    CustomerOfAnotherUserError, CustomerErasedError
        Another user has the customer by now, or it was erased.
    """
    replacement = CustomerClaim.assigned(user_id, record.stripe_id, new_token(), replaced)
    return _move(record, user_id, replacement, [update.add_to])


def store_unassigned(snapshot: CustomerSnapshot) -> Owner | None:
    """Store a customer on Stripe that no user has, unless it is stored.

    Returns
    -------
    Owner or None
        The customer, and the user who has it by now; None where it may not be stored, since its
        metadata has a token, of another deployment or of a claim that is lost.

    Raises
    ------
    CustomerErasedError
        It was erased.
    """
    if snapshot.token:
        return None
    owner = Owner(None, snapshot.stripe_id)
    if not store_record(snapshot.fill(Customer.new(owner, current().now())), None):
        with suppress(ConditionFailedError):
            # A backup that was made during a write may have the record alone.
            transact(Pointer.to(owner).create_in)
    return Pointer.find(snapshot.stripe_id)


def store_record(customer: Customer, pointer: Pointer | None) -> bool:
    """Store a new record with its children, and return whether it was not stored before.

    Parameters
    ----------
    customer : Customer
        Of the pointer's user; or unassigned, where there is no pointer.
    pointer : Pointer or None
        The customer's pointer, as it was read.
    """
    is_given = pointer is not None
    pointer = pointer or Pointer.to(customer.owner)

    def compose(transaction: TransactWrite) -> None:
        if is_given:
            pointer.check_in(transaction)
        else:
            pointer.create_in(transaction)
        customer.store_in(transaction)

    try:
        transact(compose)
    except ConditionFailedError:
        return False
    return True


def remove_assignment(pointer: Pointer, extra_items: Iterable[ExtraItem] = ()) -> None:
    """Delete the claim and the pointer that a mapping gave a user, whose customer has no record.

    A create may have replaced the claim, since the user can't have the customer: then it remains.

    Parameters
    ----------
    pointer : Pointer
        The pointer, as it was read.
    extra_items : iterable of callable
        Written in the same transaction.

    Raises
    ------
    StaleRecordError
        They were changed since the pointer was read, or the record was stored.
    """
    owner = pointer.owner
    claim = UserRecords.of_partition(owner.pk).claim

    def compose(transaction: TransactWrite) -> None:
        if claim and claim.stripe_id == owner.customer_id:
            CustomerClaim.remove_pointer(transaction, owner.pk, owner.customer_id)
        pointer.remove_in(transaction)
        Customer.check_is_missing(transaction, owner)
        for add_item in extra_items:
            add_item(transaction)

    with stale_if_changed("the customer was stored in the meantime"):
        transact(compose)


def _store(
    customer: Customer, replacement: ClaimReplacement, extra_items: Iterable[ExtraItem] = ()
) -> Customer | None:
    """Store a new customer with its pointer and claim.

    Raises
    ------
    CustomerSoftDeletedError
        Its record exists, and is soft-deleted.
    CustomerOfAnotherUserError, CustomerErasedError
        Another user has it, or it was erased.
    StaleRecordError
        It was unassigned, and was changed in the meantime.
    """
    pointer = _pointer(customer, replacement)

    def compose(transaction: TransactWrite) -> None:
        replacement.add_to(transaction)
        customer.store_in(transaction)
        pointer.add_to(transaction)
        for add_item in extra_items:
            add_item(transaction)

    try:
        transact(compose)
    except ConditionFailedError as error:
        claim = error.old_item(replacement.pointer)
        if claim and claim.stripe_id == customer.stripe_id:
            return UserRecords.of_partition(customer.pk).active_customer
        refusal = pointer.refusal(error)
        if refusal:
            raise refusal from error
        unassigned = read_customer(Owner(None, customer.stripe_id))
        if unassigned:
            return _move(unassigned, str(customer.user_id), replacement, extra_items)
        is_claim_unchanged = error.reasons[0] is None
        if not is_claim_unchanged:
            return None
        return _use_existing_record(customer, replacement, extra_items)
    customer.is_new = True
    return customer


def _move(
    record: Customer,
    user_id: str,
    replacement: ClaimReplacement,
    extra_items: Iterable[ExtraItem],
) -> Customer | None:
    """Move the records of an unassigned customer to a user.

    Returns
    -------
    Customer or None
        With `is_new` True. None where another claim is stored by now, or the record was changed.

    Raises
    ------
    CustomerOfAnotherUserError, CustomerErasedError
        Another user has the customer, or it was erased.
    StaleRecordError
        The record was changed while children were deleted that the transaction has no room for.
    """
    owner = Owner(user_id, record.stripe_id)
    pointer = Pointer.to(owner, replacement.pointer.token)
    record.drop_excess_children()
    try:
        customer = record.move_to(owner, [replacement.add_to, pointer.assign_in, *extra_items])
    except ConditionFailedError as error:
        refusal = pointer.refusal(error)
        if refusal:
            raise refusal from error
        return None
    customer.is_new = True
    return customer


def _use_existing_record(
    customer: Customer, replacement: ClaimReplacement, extra_items: Iterable[ExtraItem]
) -> Customer | None:
    """Point to a record that exists already, as a backup that was made during a create has it."""
    record = read_customer(customer.owner)
    if record is None:
        return None
    # In a transaction of its own: roles that may update a customer can't update its pointer.
    pointer = _pointer(customer, replacement)

    def compose(transaction: TransactWrite) -> None:
        pointer.add_to(transaction)
        for add_item in extra_items:
            add_item(transaction)

    try:
        transact(compose)
    except ConditionFailedError as error:
        refusal = pointer.refusal(error)
        if refusal:
            raise refusal from error
        return None
    with suppress(StaleRecordError):
        record.update_with({}, extra_items=[replacement.add_to])
        return record
    return None


def _pointer(customer: Customer, replacement: ClaimReplacement) -> Pointer:
    claim = replacement.pointer
    return Pointer.to(customer.owner, claim.token, claim.run_id)
