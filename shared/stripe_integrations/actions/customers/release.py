"""Releasing a customer: any user may adopt it.

The deployment forgets it, or stores it as unassigned, if it stores such customers.

While the metadata is removed on Stripe, the work item of the metadata is claimed. If the process
dies before the records are deleted, the schedule writes the metadata again, as they still have it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pynamodb.transactions import TransactWrite

from stripe_integrations import errors
from stripe_integrations.actions.customers.metadata import remove_metadata
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import current
from stripe_integrations.models import Customer, CustomerClaim, Owner, Pointer, UserRecords
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.table import stale_if_changed


def release_customer(user_id: str) -> None:
    """Delete what is stored of a user's customer: see `StripeCustomer.release`."""
    records = UserRecords.read(user_id)
    customer = records.active_customer
    if customer is None and not records.orphans:
        if records.claim and records.claim.is_creating:
            raise errors.CustomerBeingCreatedError("the customer of this user is being created")
        raise errors.CustomerNotFoundError("this user has no customer")
    if customer:
        _release(user_id, customer.stripe_id)
    for child in UserRecords.read(user_id).orphans:
        child.delete_orphan()


def _release(user_id: str, stripe_id: str) -> None:
    owner = Pointer.find(stripe_id)
    if owner and owner.user_id != user_id:
        raise errors.CustomerOfAnotherUserError(f"the pointer of {stripe_id} names another user")
    update = MetadataUpdate.acquire(stripe_id)
    if update is None:
        raise errors.ConflictError(f"the metadata of {stripe_id} is being written: try again later")
    remove_metadata(stripe_id)

    def attempt(_: int) -> None:
        customer = UserRecords.read(user_id).active_customer
        if customer is None or customer.stripe_id != stripe_id:
            raise errors.CustomerNotFoundError("this user has the customer no longer")
        free_customer(customer, [update.remove_in])

    retry_on_conflict(attempt)


def free_customer(customer: Customer, extra_items: Sequence[ExtraItem] = ()) -> None:
    """Free a user and the customer: it is unassigned then, or unknown.

    Parameters
    ----------
    customer : Customer
        The record, as it was read.
    extra_items : sequence of callable
        Written in the same transaction, 20 at most.

    Raises
    ------
    StaleRecordError
        The record was changed since it was read.
    """
    if current().settings.unassigned_customers is UnassignedCustomers.STORE:
        _unassign(customer, extra_items)
    else:
        customer.release(extra_items)


def _unassign(customer: Customer, extra_items: Sequence[ExtraItem]) -> None:
    """Store a user's customer as unassigned, without the metadata that was removed."""
    if CustomerClaim.is_ours(value_at(customer.metadata, TOKEN_KEY)):
        customer.metadata = {
            name: value
            for name, value in (customer.metadata or {}).items()
            if name not in (USER_KEY, TOKEN_KEY)
        }
    unassigned = Pointer.to(Owner(None, customer.stripe_id))

    def free_user(transaction: TransactWrite) -> None:
        CustomerClaim.remove_pointer(transaction, customer.pk, customer.stripe_id)
        unassigned.unassign_in(transaction, customer.owner)
        for add_item in extra_items:
            add_item(transaction)

    with stale_if_changed("the customer was changed since it was read"):
        customer.move_to(unassigned.owner, [free_user])
