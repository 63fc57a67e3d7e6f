"""Creating a user's customer: once, whatever happens on the way.

First a claim is put up on the user, with an idempotency token and the parameters; then Stripe is
asked with that token; then, in one transaction, the claim becomes the pointer to the new record.
Whoever finds a claim waits for its owner, and asks the same question with the same token where the
owner does not come back: so all come to the same customer, and Stripe makes no second one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pynamodb.transactions import TransactWrite

from stripe_integrations.actions.customers.refresh import customer_values
from stripe_integrations.context import current
from stripe_integrations.errors import (
    ConfigurationError,
    ConflictError,
    CustomerSoftDeletedError,
    InvalidFieldError,
    SecretUnavailableError,
    StaleRecordError,
    StripeError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import (
    Card,
    Customer,
    CustomerClaim,
    Pointer,
    Subscription,
    UserRecords,
)
from stripe_integrations.models.fields import depth, fields_of, value_at
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.table import ConditionFailedError, transact

Json = Mapping[str, Any]

USER_KEY = "stripe_integrations_user_id"
TOKEN_KEY = "stripe_integrations_token"  # noqa: S105 - the name of a metadata key
"""The keys of Stripe's metadata by which a customer of ours is known again."""

_ROUNDS = 8
_CLAIM_IS_YOUNG_SECONDS = 8.0
"""As long as one try of asking Stripe may take: until then its owner is waited for."""
_NOTHING_WAS_MADE = (400, 402)
"""The refusals after which the user is free again; after any other the customer may be there."""
_KEY_IS_IN_USE = 409
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.2, 1.0
_KEY_IS_KEPT_SECONDS = 23 * 3600
"""Stripe keeps an idempotency key for at least 24 hours."""
_CLOCKS_DIFFER_SECONDS = 300
_LOOKED_THROUGH_SECONDS = 900
"""How far back all customers are looked through, for one whose e-mail is not sure."""
METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 48, 40, 500
"""Stripe takes 50 keys; two of them are ours. https://docs.stripe.com/api/metadata"""
DEEPEST_FIELD = 8
"""Levels of nesting; no parameter of Stripe's has more than four."""
_LONGEST_REQUEST = 64 * 1024
"""Characters of JSON: what the claim keeps has to fit an item with room to spare."""


def create_customer(user_id: str, billing_email: str, fields: Mapping[str, Any]) -> Customer:
    """`StripeCustomer.create`, for a user id that is known to be one."""
    request = _request(billing_email, fields)
    try:
        _ = current().stripe
    except (ConfigurationError, SecretUnavailableError):
        # Stripe can't be asked at all: that shows before anything is written.
        customer = UserRecords.read(user_id).active_customer
        if customer:
            return customer
        raise
    for _ in range(_ROUNDS):
        claim, is_mine = CustomerClaim.claim(user_id, request)
        if claim.stripe_id:
            customer = _existing(user_id)
        else:
            customer = _ask_stripe(user_id, claim, is_mine=is_mine)
        if customer:
            return customer
    raise ConflictError("others kept creating and deleting this user's customer")


@dataclass(frozen=True)
class CustomerSnapshot:
    """A customer that Stripe has made for a claim.

    Parameters
    ----------
    stripe_customer : mapping
        Stripe's customer.
    observation : Observation
        When it was so.
    is_first : bool
        Whether it is shown as it was made, with no card or subscription yet.
    """

    stripe_customer: Json
    observation: Observation
    is_first: bool

    @classmethod
    def answered(cls, stripe_customer: Json) -> CustomerSnapshot:
        """What the create call, or the event of the creation, shows.

        It may be an old answer, replayed: it is true as of the customer's own second, no later.
        """
        created = created_second(stripe_customer)
        if not created:
            return cls.found(stripe_customer)
        return cls(stripe_customer, Observation.of_event(created), is_first=True)

    @classmethod
    def found(cls, stripe_customer: Json) -> CustomerSnapshot:
        """What a list shows, or a look at the customer: it may have changed since it was made."""
        observation = Observation.of_fetch(created_second(stripe_customer), current().clock())
        return cls(stripe_customer, observation, is_first=False)


def created_second(stripe_customer: Json) -> int:
    """When Stripe made a customer, in Unix seconds; 0 where it does not say."""
    created = stripe_customer.get("created")
    return created if isinstance(created, int) else 0


def complete_create(user_id: str, claim: CustomerClaim, made: CustomerSnapshot) -> Customer | None:
    """Make the record of a customer that Stripe made for this claim.

    Finding it made already, of the same customer, is success.

    Parameters
    ----------
    user_id : str
        Whose claim it is.
    claim : CustomerClaim
        The claim, as it was read.
    made : CustomerSnapshot
        What Stripe has made.

    Returns
    -------
    Customer or None
        None where the claim is gone: what is there now has to be looked at anew.
    """
    stripe_id: str = made.stripe_customer["id"]
    customer = Customer.new(user_id, stripe_id, current().now())
    values = {
        **(claim.parameters or {}).get("local", {}),
        **customer_values(made.stripe_customer),
        **made.observation.as_fields(),
    }
    if made.is_first:
        values |= {**Card.listed(made.observation), **Subscription.listed(made.observation)}
    try:
        return _put(user_id, customer, values, lambda t: claim.activate(t, stripe_id))
    except CustomerSoftDeletedError:
        # A backup made beside writes has the claim as it was before it had its customer.
        claim.release()
        return None


def adopt_customer(
    user_id: str, standing: CustomerClaim | None, made: CustomerSnapshot
) -> Customer | None:
    """Make the record of a customer of ours whose claim is lost.

    Parameters
    ----------
    user_id : str
        Whose customer it is.
    standing : CustomerClaim or None
        What stands in the claim's place, as it was read: a claim that the customer came after, or
        a pointer to this very customer.
    made : CustomerSnapshot
        What Stripe has made.

    Returns
    -------
    Customer or None
        None where something else stands there now, which has to be looked at anew.
    """
    stripe_id: str = made.stripe_customer["id"]
    token = str(token_of(made.stripe_customer))
    values = {**customer_values(made.stripe_customer), **made.observation.as_fields()}
    with suppress(CustomerSoftDeletedError):
        return _put(
            user_id,
            record_as_created(user_id, made.stripe_customer),
            values,
            lambda t: CustomerClaim.adopt(t, user_id, stripe_id, token, standing),
        )
    return None


def record_as_created(user_id: str, stripe_customer: Json) -> Customer:
    """The record of a customer that Stripe made some time ago, not in the table yet."""
    moment = datetime.fromtimestamp(created_second(stripe_customer), UTC)
    return Customer.new(user_id, stripe_customer["id"], moment)


def _put(
    user_id: str,
    customer: Customer,
    values: Mapping[str, Any],
    point_to_it: Callable[[TransactWrite], None],
) -> Customer | None:
    """Put a new customer, what leads to it and what points to it: all, or nothing.

    Raises
    ------
    CustomerSoftDeletedError
        Its record stands already, and was soft-deleted.
    """
    stripe_id = customer.stripe_id or ""
    for name, value in values.items():
        setattr(customer, name, value)

    def compose(transaction: TransactWrite) -> None:
        point_to_it(transaction)
        transaction.save(customer)
        transaction.save(Pointer.to(stripe_id, user_id))

    try:
        transact(compose)
    except ConditionFailedError as error:
        standing = error.old_item(0, CustomerClaim)
        if standing and standing.stripe_id == stripe_id:
            return UserRecords.read(user_id).active_customer
        is_unchanged = error.reasons[0] is None
        return _use_existing_record(user_id, stripe_id, point_to_it) if is_unchanged else None
    customer.is_new = True
    return customer


def _use_existing_record(
    user_id: str, stripe_id: str, point_to_it: Callable[[TransactWrite], None]
) -> Customer | None:
    """Point to a record that stands already, as a backup that was made beside a create has it."""
    record = UserRecords.read(user_id).customer(stripe_id)
    if record is None:
        return None
    # By itself: together they would need a role that may update what leads to a customer.
    transact(lambda t: t.save(Pointer.to(stripe_id, user_id)))
    with suppress(StaleRecordError):
        record.update_with({}, also=[point_to_it])
        return record
    return None


def is_for_claim(claim: CustomerClaim, stripe_customer: Json) -> bool:
    """Whether Stripe made this customer when it was asked for this claim."""
    return claim.is_creating and token_of(stripe_customer) in claim.tokens


def is_for_current_token(claim: CustomerClaim, stripe_customer: Json) -> bool:
    """Whether that was under the token with which Stripe is asked now, and no former one."""
    return token_of(stripe_customer) == claim.token


def token_of(stripe_customer: Json) -> object:
    """What Stripe was asked with for a customer, if it was by one of ours."""
    return value_at(stripe_customer, "metadata", TOKEN_KEY)


def _existing(user_id: str) -> Customer | None:
    records = UserRecords.read(user_id)
    customer = records.active_customer
    if customer is None:
        return _repair_pointer(user_id, records)
    try:
        deleted = current().stripe.retrieve_customer(customer.stripe_id or "").get("deleted")
    except (StripeError, ConfigurationError, SecretUnavailableError):
        return customer
    if not deleted:
        return customer
    # Where somebody else changed it, the next round sees to what.
    with suppress(StaleRecordError, CustomerSoftDeletedError):
        customer.purge(deleted_on_stripe=True)
    return None


def _repair_pointer(user_id: str, records: UserRecords) -> Customer | None:
    """What comes of a pointer that leads to no active record, as in a backup made beside a write.

    Its customer is put back, or the user is free again.
    """
    pointer = records.active
    if pointer is None or pointer.stripe_id is None:
        return None
    stripe_id = pointer.stripe_id
    if records.customer(stripe_id) is None:
        stripe_customer = current().stripe.retrieve_customer(stripe_id)
        if not stripe_customer.get("deleted"):
            return adopt_customer(user_id, pointer, CustomerSnapshot.found(stripe_customer))
    with suppress(ConditionFailedError):
        transact(lambda t: CustomerClaim.remove_pointer(t, user_id, stripe_id))
    return None


def _ask_stripe(user_id: str, claim: CustomerClaim, *, is_mine: bool) -> Customer | None:
    if not is_mine:
        standing = _wait_for_owner(user_id, claim)
        if standing is None:
            return None
        if standing.stripe_id:
            return UserRecords.read(user_id).active_customer
        claim = standing
    key_is_forgotten = current().clock() > float(claim.since or 0) + _KEY_IS_KEPT_SECONDS
    made = _find_created(claim) if key_is_forgotten else None
    try:
        made = made or _post(user_id, claim)
    except StripeRefusedError as error:
        if error.status not in _NOTHING_WAS_MADE:
            raise
        # The user is free again. Where somebody else's parameters were refused, the next round
        # asks with the caller's own.
        claim.release()
        if not is_mine:
            return None
        field = _field_of(error)
        if field is None:
            raise
        raise InvalidFieldError(field, f"Stripe refuses it ({error.code})") from error
    except StripeUnavailableError as error:
        if error.status == _KEY_IS_IN_USE:
            current().pause(_LONGEST_POLL_SECONDS)
            return None
        if not error.replayed:
            raise
        # Stripe gives the failure that it keeps under this token, and would for a day.
        made = _find_created(claim) or _post_with_new_token(user_id, claim)
    return complete_create(user_id, claim, made) if made else None


def _wait_for_owner(user_id: str, claim: CustomerClaim) -> CustomerClaim | None:
    """Wait while the claim is young and unfinished; the claim as it stands then, if it does."""
    standing: CustomerClaim | None = claim
    pause = _FIRST_POLL_SECONDS
    while (
        standing
        and standing.is_creating
        and standing.token == claim.token
        and current().clock() < float(claim.since or 0) + _CLAIM_IS_YOUNG_SECONDS
    ):
        current().pause(pause)
        pause = min(2 * pause, _LONGEST_POLL_SECONDS)
        standing = CustomerClaim.read(user_id)
    return standing


def _post(user_id: str, claim: CustomerClaim) -> CustomerSnapshot:
    """Ask Stripe for the claim's customer: whoever asks, the question is the same."""
    parameters = (claim.parameters or {})["stripe"]
    metadata = {
        **parameters.get("metadata", {}),
        USER_KEY: user_id,
        TOKEN_KEY: claim.token,
    }
    answer = current().stripe.create_customer({**parameters, "metadata": metadata}, claim.token)
    return CustomerSnapshot.answered(answer)


def _post_with_new_token(user_id: str, claim: CustomerClaim) -> CustomerSnapshot | None:
    """Ask under another token, once: the next caller goes on from there."""
    renewed = claim.renew_token()
    return _post(user_id, renewed) if renewed else None


def _find_created(claim: CustomerClaim) -> CustomerSnapshot | None:
    """What Stripe has made for this claim, where its answer can't be had by the token any more."""
    since = int(claim.since or 0) - _CLOCKS_DIFFER_SECONDS
    # Its e-mail may have been changed since. Only where all that were made are too many to look
    # at, those with the e-mail it was made with have to do.
    are_few = current().clock() < since + _LOOKED_THROUGH_SECONDS
    email = None if are_few else (claim.parameters or {})["stripe"]["email"]
    listed = current().stripe.list_customers(since, email)
    return next(
        (CustomerSnapshot.found(customer) for customer in listed if is_for_claim(claim, customer)),
        None,
    )


def _request(billing_email: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check what the caller passed, and sort it into what Stripe takes and what stays here."""
    table = fields_of(Customer)
    refusal = table["email"].refusal(billing_email)
    if refusal or not billing_email.strip():
        raise InvalidFieldError("billing_email", refusal or "must not be empty")
    _check_encodable("billing_email", billing_email)
    stripe: dict[str, Any] = {"email": billing_email}
    local: dict[str, Any] = {}
    for name, value in fields.items():
        field = table.get(name)
        if field is None or field.private:
            raise InvalidFieldError(name, "is not a field of a customer")
        if not field.settable:
            raise InvalidFieldError(name, "is not the caller's to set")
        if value is None:
            continue
        refusal = field.refusal(value)
        if refusal:
            raise InvalidFieldError(name, refusal)
        _check_encodable(name, value)
        if name == "metadata":
            _check_metadata(value)
        if field.param:
            stripe[field.param] = value
        else:
            local[name] = value
        if len(json.dumps([stripe, local])) > _LONGEST_REQUEST:
            raise InvalidFieldError(name, "makes the request too long")
    return {"stripe": stripe, "local": local}


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if len(metadata) > METADATA_KEYS:
        raise InvalidFieldError("metadata", f"must have at most {METADATA_KEYS} keys")
    for key, value in metadata.items():
        if key in (USER_KEY, TOKEN_KEY):
            raise InvalidFieldError("metadata", f"the key {key} is reserved")
        if not isinstance(value, str) or len(value) > METADATA_VALUE_LENGTH:
            raise InvalidFieldError(
                "metadata", f"values must be strings of at most {METADATA_VALUE_LENGTH} characters"
            )
        if not isinstance(key, str) or not 0 < len(key) <= METADATA_KEY_LENGTH:
            raise InvalidFieldError(
                "metadata", f"keys must be 1 to {METADATA_KEY_LENGTH} characters long"
            )


def _check_encodable(name: str, value: object) -> None:
    """Refuse what Python can hold and nobody else can read: lone surrogates, NaN, great depth."""
    if depth(value, DEEPEST_FIELD) > DEEPEST_FIELD:
        raise InvalidFieldError(name, "is nested too deeply")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise InvalidFieldError(name, "can't be written as JSON in UTF-8") from None


def _field_of(error: StripeRefusedError) -> str | None:
    """The caller's name for the parameter that Stripe refused."""
    if error.status == 402:
        return "default_source"
    if not error.param:
        return None
    head, bracket, rest = error.param.partition("[")
    names = {field.param: name for name, field in fields_of(Customer).items() if field.param}
    names["email"] = "billing_email"
    return names.get(head, head) + bracket + rest
