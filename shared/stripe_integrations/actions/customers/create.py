"""Creating a user's customer exactly once, whatever fails on the way.

First a claim on the user is stored, with an idempotency token and the parameters. Then Stripe is
called with that token. Then, in one transaction, the claim becomes the pointer to the new record. A
caller that finds the claim of another waits for that one, and repeats its call to Stripe with the
same token if it does not finish: so Stripe creates one customer.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

from stripe_integrations import errors
from stripe_integrations.actions.customers.assign import assign_customer, complete_create
from stripe_integrations.actions.customers.guard import require_no_existing_customer
from stripe_integrations.actions.customers.request import caller_error, create_request
from stripe_integrations.actions.customers.snapshot import (
    TOKEN_KEY,
    USER_KEY,
    CustomerSnapshot,
    names_other_owner,
)
from stripe_integrations.config import ExistingCustomers
from stripe_integrations.context import current
from stripe_integrations.limits import CREATED_LOOKUP_MARGIN_SECONDS
from stripe_integrations.models import Customer, CustomerClaim, UserRecords, stored_kinds
from stripe_integrations.models.deployment import store_deployment_name
from stripe_integrations.models.keys import user_key
from stripe_integrations.models.retry import attempts
from stripe_integrations.models.table import ConditionFailedError, transact

_ATTEMPT_SECONDS = 8.0
"""The longest attempt of a call to Stripe: the owner of a younger claim is awaited. During a longer
retry Stripe returns 409 for the second call."""
_NOTHING_CREATED = (400, 402)
"""The refusals that release the claim; after any other the customer may have been created."""
_KEY_IN_USE = 409
_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS = 0.2, 1.0
_KEY_EXPIRES_SECONDS = 23 * 3600
"""Stripe stores an idempotency key for at least 24 hours."""
_LIST_ALL_SECONDS = 900
"""Up to this age of a claim, its customer is looked for among all, whatever their e-mail."""


class ClaimState(Enum):
    """The state of a user's claim, as a create finds it."""

    ACQUIRED = "this call has stored it"
    IN_PROGRESS = "another call stored it, and may still be calling Stripe"
    ABANDONED = "another call stored it, and has not finished in time"
    COMPLETED = "it points to the user's customer"


def create_customer(
    user_id: str, billing_email: str, fields: Mapping[str, Any], *, allow_existing: object
) -> Customer:
    """Create a user's customer, or return the existing one: see `StripeCustomer.create`."""
    request = create_request(billing_email, fields)
    if not isinstance(allow_existing, bool):
        raise errors.InvalidFieldError("allow_existing", "must be true or false")
    stored_kinds()  # an invalid setting is raised before anything is written
    try:
        current().stripe.require_key()
    except (errors.ConfigurationError, errors.SecretUnavailableError):
        # Stripe can't be called at all: nothing is written.
        customer = UserRecords.read(user_id).active_customer
        if customer:
            return customer
        raise
    store_deployment_name()
    for _ in attempts():
        claim, is_acquired = _claim(user_id, request, allow_existing=allow_existing)
        customer = _advance(user_id, claim, is_acquired=is_acquired)
        if customer:
            return customer
    raise errors.ConflictError("concurrent writers created and deleted the customer every time")


def _claim(
    user_id: str, request: dict[str, Any], *, allow_existing: bool
) -> tuple[CustomerClaim, bool]:
    """Return the stored claim; store one if there is none, once the guard has passed.

    Returns
    -------
    tuple
        The claim, and whether this call stored it.
    """
    is_guarded = current().settings.existing_customers is ExistingCustomers.CHECK
    if is_guarded and not allow_existing:
        stored = CustomerClaim.read(user_id)
        if stored:
            return stored, False
        require_no_existing_customer(request["stripe"]["email"])
    return CustomerClaim.acquire(user_id, request)


def _advance(user_id: str, claim: CustomerClaim, *, is_acquired: bool) -> Customer | None:
    """Take the step that the claim's state calls for; None where the claim is to be read again."""
    state = _state(claim, is_acquired=is_acquired)
    match state:
        case ClaimState.COMPLETED:
            return _existing_customer(user_id)
        case ClaimState.IN_PROGRESS:
            return _wait_for_owner(user_id, claim)
    try:
        snapshot = _create_on_stripe(user_id, claim)
    except _ParametersRefusedError as refusal:
        claim.release()
        if state is ClaimState.ABANDONED:
            return None  # the next attempt calls Stripe with this caller's own parameters
        raise caller_error(refusal.error) from None
    return complete_create(user_id, claim, snapshot) if snapshot else None


def _state(claim: CustomerClaim, *, is_acquired: bool) -> ClaimState:
    if not claim.is_creating:
        return ClaimState.COMPLETED
    if is_acquired:
        return ClaimState.ACQUIRED
    return ClaimState.IN_PROGRESS if _is_young(claim) else ClaimState.ABANDONED


def _is_young(claim: CustomerClaim) -> bool:
    return current().clock() < claim.claimed_at + _ATTEMPT_SECONDS


def _wait_for_owner(user_id: str, claim: CustomerClaim) -> Customer | None:
    """Poll a young claim until its owner has finished; None if it has not."""
    pause = _FIRST_POLL_SECONDS
    stored: CustomerClaim | None = claim
    while stored and stored.is_creating and stored.token == claim.token and _is_young(claim):
        current().pause(pause)
        pause = min(2 * pause, _MAX_POLL_SECONDS)
        stored = CustomerClaim.read(user_id)
    if stored and stored.stripe_id:
        return UserRecords.read(user_id).active_customer
    return None


def _existing_customer(user_id: str) -> Customer | None:
    """Return the active customer, unless Stripe has deleted it."""
    records = UserRecords.read(user_id)
    customer = records.active_customer
    if customer is None:
        return _repair_pointer(user_id, records)
    try:
        deleted = current().stripe.retrieve_customer(customer.stripe_id).get("deleted")
    except (errors.StripeError, errors.ConfigurationError, errors.SecretUnavailableError):
        return customer
    if not deleted:
        return customer
    # After a concurrent write the next attempt reads the result.
    with suppress(errors.StaleRecordError, errors.CustomerSoftDeletedError):
        customer.soft_delete_as_deleted_on_stripe()
    return None


def _repair_pointer(user_id: str, records: UserRecords) -> Customer | None:
    """Store the customer of a pointer that has no active record, or delete the pointer.

    A mapping that is staged has such pointers, and a backup that was made during a write.
    """
    claim = records.claim
    if claim is None or claim.stripe_id is None:
        return None
    stripe_id = claim.stripe_id
    if records.customer(stripe_id) is None:
        stripe_customer = current().stripe.retrieve_customer(stripe_id)
        is_others = names_other_owner(stripe_customer.get("metadata"), user_id)
        if not stripe_customer.get("deleted") and not is_others:
            with suppress(errors.CustomerErasedError):
                return assign_customer(user_id, claim, CustomerSnapshot.from_fetch(stripe_customer))
    with suppress(ConditionFailedError):
        transact(lambda t: CustomerClaim.remove_pointer(t, user_key(user_id), stripe_id))
    return None


class _ParametersRefusedError(Exception):
    """Stripe refused the parameters of the create call, so that nothing was created."""

    def __init__(self, error: errors.StripeRefusedError) -> None:
        super().__init__(str(error))
        self.error = error


def _create_on_stripe(user_id: str, claim: CustomerClaim) -> CustomerSnapshot | None:
    """Create the claim's customer, or find it; None where Stripe is busy with the same call.

    Raises
    ------
    _ParametersRefusedError
        Stripe refused the parameters: no customer was created for this claim.
    """
    has_key_expired = current().clock() > claim.claimed_at + _KEY_EXPIRES_SECONDS
    created = _find_created(claim) if has_key_expired else None
    if created:
        return created
    try:
        return _post(user_id, claim)
    except errors.StripeRefusedError as error:
        if error.status not in _NOTHING_CREATED:
            raise
        raise _ParametersRefusedError(error) from error
    except errors.StripeUnavailableError as error:
        if error.status == _KEY_IN_USE:
            current().pause(_MAX_POLL_SECONDS)
            return None
        if not error.replayed:
            raise
        # Stripe has stored this failure for the token, and would repeat it for a day.
        return _find_created(claim) or _post_with_new_token(user_id, claim)


def _post(user_id: str, claim: CustomerClaim) -> CustomerSnapshot:
    """Call Stripe for the claim's customer: the call is the same for every caller."""
    parameters = claim.parameters["stripe"]
    metadata = {
        **parameters.get("metadata", {}),
        USER_KEY: user_id,
        TOKEN_KEY: claim.token,
    }
    response = current().stripe.create_customer({**parameters, "metadata": metadata}, claim.token)
    return CustomerSnapshot.from_creation(response)


def _post_with_new_token(user_id: str, claim: CustomerClaim) -> CustomerSnapshot | None:
    """Call Stripe with another token, once: the next caller continues from there."""
    renewed = claim.renew_token()
    return _post(user_id, renewed) if renewed else None


def _find_created(claim: CustomerClaim) -> CustomerSnapshot | None:
    """List the customer that Stripe created for a claim, where its token gets no response."""
    since = int(claim.claimed_at) - CREATED_LOOKUP_MARGIN_SECONDS
    # Its e-mail may have been changed since. Only where all customers are too many to list, those
    # with the e-mail of the claim have to do.
    are_few = current().clock() < since + _LIST_ALL_SECONDS
    email = None if are_few else claim.parameters["stripe"]["email"]
    snapshots = map(CustomerSnapshot.from_fetch, current().stripe.list_customers(since, email))
    return next((snapshot for snapshot in snapshots if snapshot.is_for_claim(claim)), None)
