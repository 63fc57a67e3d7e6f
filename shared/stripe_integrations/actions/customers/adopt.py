"""Adopting a customer that exists on Stripe: it becomes a user's, with its children.

One transaction stores the claim, the record and the pointer, as for a customer that was created,
and the work item by which the metadata on Stripe is written after it. Nothing is changed on Stripe
before that transaction, so that a call that loses a race changes nothing there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from stripe_integrations import errors
from stripe_integrations.actions.customers.assign import assign_adopted, assign_unassigned
from stripe_integrations.actions.customers.metadata import complete_metadata, write_metadata
from stripe_integrations.actions.customers.refresh import fetch_missing_children
from stripe_integrations.actions.customers.snapshot import (
    CustomerSnapshot,
    names_other_owner,
)
from stripe_integrations.context import current
from stripe_integrations.models import (
    Customer,
    CustomerClaim,
    Owner,
    Pointer,
    UserRecords,
    read_customer,
    stored_kinds,
)
from stripe_integrations.models.deployment import store_deployment_name
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.observability import Metric

ID_PATTERN = "^cus_[A-Za-z0-9]+$"
"""The ids of Stripe's customers."""
MAX_ID_LENGTH = 255
_ID = re.compile(ID_PATTERN.strip("^$"))
_USER_ID = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{Pointer.MAX_USER_ID_LENGTH}}}")
_REFUSALS = (
    errors.CustomerBeingCreatedError,
    errors.CustomerErasedError,
    errors.CustomerOfAnotherUserError,
    errors.CustomerSoftDeletedError,
    errors.TakeOverRequiredError,
    errors.UserHasAnotherCustomerError,
)


def adopt_customer(user_id: str, stripe_id: object, *, take_over: object) -> Customer:
    """Make an existing Stripe customer a user's: see `StripeCustomer.adopt`."""
    valid_id = valid_stripe_id(stripe_id)
    if not isinstance(take_over, bool):
        raise errors.InvalidFieldError("take_over", "must be true or false")
    stored_kinds()  # an invalid setting is raised before anything is written
    store_deployment_name()
    update = MetadataUpdate.of(valid_id, take_over=take_over)

    def attempt(_: int) -> Customer:
        return _assign(user_id, valid_id, update, take_over=take_over)

    customer = retry_on_conflict(attempt)
    if customer.is_new:
        current().add_metric(Metric.CUSTOMERS_ADOPTED)  # whatever becomes of the metadata
        write_metadata(update)
    elif update.claim_due():
        complete_metadata(update)
    return customer if customer.is_listed else _with_children(customer)


def adopt_by_metadata(stripe_id: str) -> str | None:
    """Let the user whom its metadata names adopt an unassigned customer: see `Settings.adopt_from`.

    The record decides, which contains events in their order, and not the payload of one event. A
    customer that is assigned or deleted remains as it is. Where Stripe does not take the metadata
    of the adoption now, the schedule writes it.

    Parameters
    ----------
    stripe_id : str
        The customer.

    Returns
    -------
    str or None
        Why that user has not adopted it, without values; None where the user has, or there is none.

    Raises
    ------
    ConflictError
        Concurrent writers changed the records every time.
    """
    store_deployment_name()
    update = MetadataUpdate.of(stripe_id, take_over=False)
    try:
        customer = retry_on_conflict(lambda _: _assign_by_metadata(stripe_id, update))
    except _REFUSALS as refusal:
        return f"not adopted: {refusal}"
    if customer:
        current().add_metric(Metric.CUSTOMERS_ADOPTED)
        with suppress(errors.StripeError):  # the work item remains
            write_metadata(update)
    return None


def _assign_by_metadata(stripe_id: str, update: MetadataUpdate) -> Customer | None:
    owner = Pointer.find(stripe_id)
    if owner is None or owner.user_id is not None:
        return None
    record = read_customer(owner)
    if record is None:
        raise errors.StaleRecordError(f"{stripe_id} is a user's by now")
    user_id = named_user(record, record.metadata)
    if user_id is None or not record.is_active:
        return None
    records = UserRecords.read(user_id)
    _stored_customer(records, stripe_id)
    if records.claim:
        raise errors.UserHasAnotherCustomerError("this user has a customer")
    _check_metadata(_snapshot_of(record), user_id, take_over=False)
    return _assign_unassigned(user_id, records, record, update)


def named_user(customer: Customer, metadata: object) -> str | None:
    """The user who is to adopt an unassigned customer with this metadata: see `adopt_by_metadata`.

    None where it names none, or the one from whom the customer was released.
    """
    key = current().settings.adopt_from
    user_id = value_at(metadata, key) if key else None
    if not isinstance(user_id, str) or not _USER_ID.fullmatch(user_id):
        return None
    return None if user_id == customer.released_from else user_id


def valid_stripe_id(stripe_id: object) -> str:
    """Return the id of a Stripe customer.

    Raises
    ------
    InvalidFieldError
        It can't be one.
    """
    is_valid = isinstance(stripe_id, str) and len(stripe_id) <= MAX_ID_LENGTH
    if not is_valid or not _ID.fullmatch(str(stripe_id)):
        raise errors.InvalidFieldError("stripe_id", "must be the id of a Stripe customer, cus_…")
    return str(stripe_id)


def _assign(user_id: str, stripe_id: str, update: MetadataUpdate, *, take_over: bool) -> Customer:
    """Read, decide and store.

    Raises
    ------
    StaleRecordError
        The user's claim was changed since it was read.
    """
    records = UserRecords.read(user_id)
    stored = _stored_customer(records, stripe_id)
    if stored:
        return stored
    owner = Pointer.find(stripe_id)
    if owner and owner.user_id not in (None, user_id):
        raise _of_another_user(stripe_id)
    if owner and owner.user_id is None:
        unassigned = _read_unassigned(owner)
        _check_metadata(_snapshot_of(unassigned), user_id, take_over=take_over)
        return _assign_unassigned(user_id, records, unassigned, update)
    snapshot = _retrieve(stripe_id)
    _check_metadata(snapshot, user_id, take_over=take_over)
    return _unless_stale(assign_adopted(user_id, records.claim, snapshot, update))


def _assign_unassigned(
    user_id: str, records: UserRecords, unassigned: Customer, update: MetadataUpdate
) -> Customer:
    if records.has_orphans_of(unassigned.stripe_id):
        unassigned.listings = None  # a fetch compares them
    return _unless_stale(assign_unassigned(user_id, records.claim, unassigned, update))


def _unless_stale(customer: Customer | None) -> Customer:
    if customer is None:
        raise errors.StaleRecordError("the user has another claim by now")
    return customer


def _read_unassigned(owner: Owner) -> Customer:
    """Read an unassigned customer, whose events keep it current: no call to Stripe is needed."""
    record = read_customer(owner)
    if record is None:
        raise errors.StaleRecordError(f"{owner.customer_id} is another user's by now")
    if not record.is_active:
        raise _deleted(owner.customer_id)
    return record


def _snapshot_of(record: Customer) -> CustomerSnapshot:
    """The metadata of a stored customer, which says whose it is."""
    named = {"id": record.stripe_id, "metadata": record.metadata}
    return CustomerSnapshot(named, Observation.of_event(record.observed_to or 0), is_initial=False)


def _stored_customer(records: UserRecords, stripe_id: str) -> Customer | None:
    """The user's active customer if it is this one; None where the user may adopt it.

    Raises
    ------
    CustomerSoftDeletedError, CustomerBeingCreatedError, UserHasAnotherCustomerError
        The user may not.
    """
    record, claim = records.customer(stripe_id), records.claim
    if record and not record.is_active:
        raise errors.CustomerSoftDeletedError(f"{stripe_id} is soft-deleted")
    if claim is None:
        return None
    if claim.is_creating:
        raise errors.CustomerBeingCreatedError("the customer of this user is being created")
    if claim.stripe_id != stripe_id:
        raise errors.UserHasAnotherCustomerError("this user has another customer")
    return record


def _retrieve(stripe_id: str) -> CustomerSnapshot:
    sent = current().clock()
    try:
        stripe_customer: Mapping[str, Any] = current().stripe.retrieve_customer(stripe_id)
    except errors.StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        raise errors.CustomerNotFoundError(f"Stripe has no customer {stripe_id}") from error
    if stripe_customer.get("deleted"):
        raise _deleted(stripe_id)
    observation = Observation.of_fetch(sent, received=current().clock())
    return CustomerSnapshot(stripe_customer, observation, is_initial=False)


def _check_metadata(snapshot: CustomerSnapshot, user_id: str, *, take_over: bool) -> None:
    """Raise if the metadata names another owner, unless it is to be taken from that one.

    Raises
    ------
    CustomerOfAnotherUserError
        Stripe has created it for a user whose record is not stored yet.
    TakeOverRequiredError
        It is another deployment's; or the metadata was copied, or is left of a lost record.
    """
    if not names_other_owner(snapshot.stripe_customer.get("metadata"), user_id):
        return
    stripe_id = snapshot.stripe_id
    if snapshot.is_claimed():
        raise _of_another_user(stripe_id)
    if not take_over:
        whose = "user" if CustomerClaim.is_ours(snapshot.token) else "deployment"
        raise errors.TakeOverRequiredError(
            f"the metadata of {stripe_id} names another {whose}: it is adopted only with take_over"
        )


def _with_children(customer: Customer) -> Customer:
    """Fetch the children of a customer whose children were never listed."""
    fetch_missing_children(customer.pk, customer.stripe_id)
    stored = read_customer(customer.owner)
    if stored is None:
        raise errors.CustomerNotFoundError(f"{customer.stripe_id} was released meanwhile")
    if not stored.is_active:
        raise _deleted(customer.stripe_id)
    stored.is_new = customer.is_new
    return stored


def _of_another_user(stripe_id: str) -> errors.CustomerOfAnotherUserError:
    return errors.CustomerOfAnotherUserError(f"{stripe_id} is another user's")


def _deleted(stripe_id: str) -> errors.CustomerNotFoundError:
    return errors.CustomerNotFoundError(f"Stripe has deleted {stripe_id}")
