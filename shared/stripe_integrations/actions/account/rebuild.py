"""Rebuilding after a restore: Stripe's customers of this deployment are stored again.

A restored table has the state of an earlier time. A user who got a customer since then has none in
it, and the next `create` would create a second one on Stripe. So Stripe's customers are listed, and
those that this deployment created or adopted and the table lacks are stored. Stored records are not
changed: the sweep of Stripe's events updates them.

A user gets another customer only after the previous one was soft-deleted. So of several the one
that the user got last is the active one, and the others are soft-deleted. The token of an adopted
customer says when that was. Metadata can be copied on Stripe, but a token is of one customer: claim
and pointer have that of their customer, and another one that has it is a copy, which is reported.
"""

from __future__ import annotations

from pynamodb.transactions import TransactWrite

from stripe_integrations import errors, limits
from stripe_integrations.actions.account.page import Finding, Json, Page, Result
from stripe_integrations.actions.customers.assign import assign_customer, complete_create
from stripe_integrations.actions.customers.refresh import refresh_from_stripe, retrieve_if_known
from stripe_integrations.actions.customers.snapshot import (
    CustomerSnapshot,
    assigned_second,
    created_second,
    token_of,
)
from stripe_integrations.context import current
from stripe_integrations.models import (
    Customer,
    CustomerClaim,
    Owner,
    Pointer,
    UserRecords,
    read_customer,
)
from stripe_integrations.models.deployment import store_deployment_name
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.table import stale_if_changed, transact
from stripe_integrations.observability import error_log_fields, logger

NO_USER = "its metadata has our token and no user"
_CHANGED = "the records were changed since they were read"


def store_restored_name() -> None:
    """Store the deployment's name, or compare it: the process may have read it before the restore.

    Raises
    ------
    ConfigurationError
        The table has another name.
    """
    current().deployment_name = None
    store_deployment_name()


def rebuild_customers(page: Page) -> None:
    """Store the customers of a page that the table lacks.

    Raises
    ------
    StripeError, DatabaseUnavailableError, ConflictError
        The page is to be read again. What was written of it remains.
    """
    store_restored_name()
    page.process(_rebuild_customer)


def _rebuild_customer(obj: Json) -> Result | Finding:
    snapshot = CustomerSnapshot.from_fetch(obj)
    return restore_customer(snapshot) if snapshot.token else Result.UNASSIGNED


def restore_customer(snapshot: CustomerSnapshot) -> Result | Finding:
    """Store what is missing of a customer that has a deployment's token, if it is this one's."""
    if not CustomerClaim.is_ours(snapshot.token):
        return Result.FOREIGN
    if snapshot.user_id is None:
        return Finding(snapshot.stripe_id, Result.CONFLICT, NO_USER)
    user_id = snapshot.user_id

    def attempt(_: int) -> Result | Finding:
        records = UserRecords.read(user_id)
        owner = Pointer.find(snapshot.stripe_id)
        if owner and owner.user_id not in (None, user_id):
            raise errors.CustomerOfAnotherUserError("its pointer names another user")
        record = records.customer(snapshot.stripe_id)
        if record:
            has_stored = _complete(user_id, records, record, snapshot, str(snapshot.token))
            return Result.STORED if has_stored else Result.UNCHANGED
        # A release removes the token before the record, maybe since the customer was listed.
        fetched = CustomerSnapshot.from_fetch(retrieve_if_known(snapshot.stripe_id))
        if fetched.token != snapshot.token:
            return Result.UNCHANGED
        return _add(user_id, records, fetched)

    try:
        return retry_on_conflict(attempt)
    except errors.CustomerErasedError:
        return Result.ERASED
    except errors.CustomerOfAnotherUserError:
        # Its metadata was changed on Stripe, or could not be removed there.
        return Finding(snapshot.stripe_id, Result.CONFLICT, "another user has the customer")


def _add(user_id: str, records: UserRecords, snapshot: CustomerSnapshot) -> Result | Finding:
    claim = records.claim
    if claim and snapshot.is_for_claim(claim):
        _soft_delete_others(records, snapshot)
        _refresh(complete_create(user_id, claim, snapshot))
        return Result.STORED
    original = _find_original(records, snapshot)
    if original:
        _complete_original(user_id, records, original, str(snapshot.token))
        return Finding(snapshot.stripe_id, Result.CONFLICT, f"its token is of {original}")
    if _is_superseded(records, snapshot):
        _add_soft_deleted(user_id, snapshot)
        return Result.STORED
    replaced = _soft_delete_others(records, snapshot)
    _refresh(assign_customer(user_id, replaced, snapshot))
    return Result.STORED


def _soft_delete_others(records: UserRecords, snapshot: CustomerSnapshot) -> CustomerClaim | None:
    """Soft-delete a user's other active records, and return the claim that remains.

    There may be more than the claim points to: half of a soft delete leaves an active record.
    """
    claim = records.claim
    for customer in records.customers.values():
        if not customer.is_active or customer.stripe_id == snapshot.stripe_id:
            continue
        if retrieve_if_known(customer.stripe_id).get("deleted"):
            customer.soft_delete_as_deleted_on_stripe()
        else:
            customer.soft_delete()
        if claim and claim.stripe_id == customer.stripe_id:
            claim = None
    return claim


def _find_original(records: UserRecords, snapshot: CustomerSnapshot) -> str | None:
    """The user's stored customer that the snapshot's token created; None where that is unknown.

    Its own metadata may have lost the token, and has it alone where a backup lacks the pointer.
    """
    token, claim = snapshot.token, records.claim
    if claim and claim.stripe_id and claim.token == token:
        return None if claim.stripe_id == snapshot.stripe_id else claim.stripe_id
    return next(
        (
            customer.stripe_id
            for customer in records.customers.values()
            if token_of({"metadata": customer.metadata}) == token
            or Pointer.token_of(customer.stripe_id) == token
        ),
        None,
    )


def _complete_original(user_id: str, records: UserRecords, stripe_id: str, token: str) -> None:
    """Do for the original of a copy what its own metadata, which it may lack, would call for."""
    stripe_customer = retrieve_if_known(stripe_id)
    record = records.customer(stripe_id)
    if stripe_customer.get("deleted") and record and record.is_active:
        record.soft_delete_as_deleted_on_stripe()
        return
    if not stripe_customer or stripe_customer.get("deleted"):
        return
    snapshot = CustomerSnapshot.from_fetch(stripe_customer)
    if record is None:
        _refresh(assign_customer(user_id, records.claim, snapshot))
    else:
        _complete(user_id, records, record, snapshot, token)


def _is_superseded(records: UserRecords, snapshot: CustomerSnapshot) -> bool:
    """Return whether the user got, or requested, another customer after this one."""
    claim = records.claim
    if (
        claim
        and claim.is_creating
        and not snapshot.is_for_claim(claim)
        and snapshot.assigned < claim.claimed_at - limits.CLOCK_SKEW_SECONDS
    ):
        return True
    return any(
        not _is_newer(snapshot, customer, _token_of_record(records, customer))
        for customer in records.customers.values()
        if customer.stripe_id != snapshot.stripe_id
    )


def _token_of_record(records: UserRecords, customer: Customer) -> object:
    """The newest token of a stored customer: its own metadata may have a former one, or none."""
    claim = records.claim
    if claim and claim.stripe_id == customer.stripe_id:
        return claim.token
    return Pointer.token_of(customer.stripe_id) or token_of({"metadata": customer.metadata})


def _is_newer(snapshot: CustomerSnapshot, than: Customer, token: object) -> bool:
    """Return whether the user got a customer after that of a record, which has this token."""
    created = created_second(retrieve_if_known(than.stripe_id))
    if not created:
        # Stripe has its date no longer. The record was made by our clock, or has Stripe's date.
        # Where that is ambiguous the snapshot counts as newer: Stripe still has its customer.
        made = int(than.created_at.timestamp())
        return snapshot.assigned >= made - limits.CLOCK_SKEW_SECONDS
    own = (snapshot.assigned, snapshot.created)
    other = (assigned_second(created, token), created)
    if own != other:
        return own > other
    listed = current().stripe.list_customers(created, created_until=created)
    places = {customer["id"]: place for place, customer in enumerate(listed)}
    last = len(places)
    return places.get(snapshot.stripe_id, last) < places.get(than.stripe_id, last)


def _add_soft_deleted(user_id: str, snapshot: CustomerSnapshot) -> None:
    """Store the record of a customer that its user has no more: its late events find it then."""
    customer = snapshot.new_record(user_id)
    customer.is_active, customer.created_shard = False, None
    customer.date_purged = customer.modified_at = current().now()
    pointer = Pointer.to(customer.owner, str(snapshot.token))
    unassigned = read_customer(Owner(None, snapshot.stripe_id))
    if unassigned:
        unassigned.drop_excess_children()
        with stale_if_changed(_CHANGED):
            unassigned.move_to(customer.owner, [pointer.assign_in]).soft_delete()
        return

    def compose(transaction: TransactWrite) -> None:
        transaction.save(customer)
        pointer.add_to(transaction)

    with stale_if_changed(_CHANGED):
        transact(compose)


def _complete(
    user_id: str, records: UserRecords, record: Customer, snapshot: CustomerSnapshot, token: str
) -> bool:
    """Add what a stored record lacks, and return whether something was missing.

    A backup is not of exactly one moment: it may have a part of a transaction. And an earlier run
    may have ended between the record and its children.
    """
    stripe_id = record.stripe_id
    claim = records.claim
    is_pointed_to = claim is not None and claim.stripe_id == stripe_id
    if not record.is_active:
        if is_pointed_to:
            with stale_if_changed(_CHANGED):
                transact(lambda t: CustomerClaim.remove_pointer(t, record.pk, stripe_id))
        return is_pointed_to
    others = any(other.is_active for other in records.customers.values() if other is not record)
    if (others or not is_pointed_to) and _is_superseded(records, snapshot):
        record.soft_delete()
        return True
    replaced = _soft_delete_others(records, snapshot)
    if not is_pointed_to or not Pointer.find(stripe_id):
        replacement = CustomerClaim.assigned(user_id, stripe_id, token, replaced)
        pointer = Pointer.to(record.owner, replacement.pointer.token)
        record.update_with({}, extra_items=(replacement.add_to, pointer.add_to))
        return True
    if record.is_listed:
        return False
    _refresh(record)
    return True


def _refresh(customer: Customer | None) -> None:
    if customer is None:
        raise errors.StaleRecordError("the user has another claim by now")
    try:
        refresh_from_stripe(customer)
    except errors.DatabaseRefusedError as error:
        # The user has the customer, which is the purpose; the other users must not wait.
        logger.warning(
            "not refreshed",
            extra={"stripe_customer_id": customer.stripe_id, **error_log_fields(error)},
        )
