"""Rebuilding: after a restore, the customers that Stripe has of ours are put back into the table.

A table that is restored shows an earlier time. A user who got a customer since then has none in it,
and the next `create` would make a second one on Stripe. So Stripe's customers are gone through, and
those that this deployment made and the table does not know are put back. What the table knows stays
as it is: the sweep of Stripe's events brings what has happened to it.

A user gets another customer only after the one before was soft-deleted. So of several the newest is
the active one, and the others are soft-deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pynamodb.transactions import TransactWrite

from stripe_integrations.actions.customers.create import (
    USER_KEY,
    CustomerSnapshot,
    adopt_customer,
    complete_create,
    created_second,
    is_for_claim,
    record_as_created,
    token_of,
)
from stripe_integrations.actions.customers.refresh import (
    customer_values,
    refresh_from_stripe,
    retry_on_conflict,
)
from stripe_integrations.context import current
from stripe_integrations.errors import (
    DatabaseRefusedError,
    NewerSchemaError,
    StaleRecordError,
    StripeIntegrationsError,
    StripeRefusedError,
)
from stripe_integrations.models import (
    Card,
    Customer,
    CustomerClaim,
    Pointer,
    Subscription,
    UserRecords,
)
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.observation import CLOCK_SKEW_SECONDS
from stripe_integrations.models.table import ConditionFailedError, transact
from stripe_integrations.observability import error_log_fields, logger

Json = Mapping[str, Any]

_NEEDS_SECONDS = 60
"""What has to be left of the invocation for another customer."""


@dataclass
class Rebuild:
    """What one call has done.

    Parameters
    ----------
    listed : int
        Customers seen in Stripe's list, those of others included.
    rebuilt : int
        Of those, the ones that something was written for.
    resume_from : str or None
        Where to go on, with the same call, since the time did not suffice, or something failed;
        None at the end.
    error : str or None
        The kind of error that stopped it.
    unreadable : int
        Of those listed, the ones left as they are, which did not stop it: a later release has
        written a record of their user. The log names them.
    """

    listed: int = 0
    rebuilt: int = 0
    resume_from: str | None = None
    error: str | None = None
    unreadable: int = 0


def rebuild_customers(created_from: int | None, resume_from: str | None) -> Rebuild:
    """`StripeCustomer.rebuild`."""
    done = Rebuild(resume_from=resume_from)
    try:
        for stripe_customer in current().stripe.list_customers(
            created_from, starting_after=resume_from
        ):
            user_id = _user_of(stripe_customer)
            try:
                if user_id and _put_back(user_id, stripe_customer):
                    done.rebuilt += 1
            except NewerSchemaError as error:
                # The next release can read it; the others must not wait for that.
                logger.warning(
                    "left out: a later release has written a record of its user",
                    extra={"stripe_customer_id": stripe_customer["id"], **error_log_fields(error)},
                )
                done.unreadable += 1
            done.listed += 1
            done.resume_from = stripe_customer["id"]
            if current().remaining_seconds() < _NEEDS_SECONDS:
                return done
    except StripeIntegrationsError as error:
        if not done.listed:
            raise
        logger.warning(
            "stopped", extra={"stripe_customer_id": done.resume_from, **error_log_fields(error)}
        )
        done.error = type(error).__name__
        return done
    done.resume_from = None
    return done


def _user_of(stripe_customer: Json) -> str | None:
    """Whose customer it is, where this deployment has made it."""
    user_id = value_at(stripe_customer, "metadata", USER_KEY)
    is_ours = CustomerClaim.is_ours(token_of(stripe_customer))
    return user_id if is_ours and isinstance(user_id, str) else None


def _put_back(user_id: str, stripe_customer: Json) -> bool:
    """Whether something was missing."""
    stripe_id: str = stripe_customer["id"]

    def attempt(_: int) -> bool:
        records = UserRecords.read(user_id)
        record = records.customer(stripe_id)
        if record:
            return _complete(user_id, records, record, stripe_customer)
        owner = Pointer.find(stripe_id)
        if owner and owner.user_id != user_id:
            return False  # the metadata was changed on Stripe since
        return _add(user_id, records, stripe_customer)

    return retry_on_conflict(attempt)


def _add(user_id: str, records: UserRecords, stripe_customer: Json) -> bool:
    claim = records.active
    made = CustomerSnapshot.found(stripe_customer)
    if claim and is_for_claim(claim, stripe_customer):
        _soft_delete_others(records, stripe_customer)
        return _bring_up_to_date(complete_create(user_id, claim, made))
    if _is_a_copy(records, stripe_customer):
        return False
    if _is_superseded(records, stripe_customer):
        _add_soft_deleted(user_id, stripe_customer)
        return True
    standing = _soft_delete_others(records, stripe_customer)
    return _bring_up_to_date(adopt_customer(user_id, standing, made))


def _soft_delete_others(records: UserRecords, stripe_customer: Json) -> CustomerClaim | None:
    """Let a user have no active record but this customer's; the claim that stands after that.

    Whichever the claim points to, there may be more: half of a soft delete leaves one behind.
    """
    claim = records.active
    for customer in records.customers.values():
        if not customer.is_active or customer.stripe_id == stripe_customer["id"]:
            continue
        customer.purge(deleted_on_stripe=bool(_on_stripe(customer).get("deleted")))
        if claim and claim.stripe_id == customer.stripe_id:
            claim = None
    return claim


def _is_a_copy(records: UserRecords, stripe_customer: Json) -> bool:
    """Whether the table has the customer of this token already, so that the token was copied.

    A token makes one customer. Another that carries it was made by hand, and never takes the place
    of the one that is known.
    """
    token = token_of(stripe_customer)
    known = next((c for c in records.customers.values() if _token_of_record(c) == token), None)
    if known is None:
        return False
    logger.warning(
        "left out: another customer has its token",
        extra={
            "stripe_customer_id": stripe_customer["id"],
            "known_customer_id": known.stripe_id,
        },
    )
    return True


def _token_of_record(customer: Customer) -> object:
    """What Stripe was asked with for the customer of a record."""
    return token_of({"metadata": customer.metadata})


def _is_superseded(records: UserRecords, stripe_customer: Json) -> bool:
    """Whether the user has got another customer, or asked for one, after this one."""
    claim = records.active
    if claim and claim.is_creating and not is_for_claim(claim, stripe_customer):
        asked = float(claim.since or 0) - CLOCK_SKEW_SECONDS
        if created_second(stripe_customer) < asked:
            return True
    return any(
        not _is_newer(stripe_customer, than=customer)
        for customer in records.customers.values()
        if customer.stripe_id != stripe_customer["id"]
    )


def _is_newer(stripe_customer: Json, *, than: Customer) -> bool:
    """Whether Stripe has made a customer after the one of a record."""
    second = created_second(stripe_customer)
    other = created_second(_on_stripe(than))
    if not other:
        # Stripe does not say any more. The record was made with it by our clock, or by its date.
        # In doubt it is the newer one: whom Stripe still has must not be taken from the user.
        made = than.created_at.timestamp() if than.created_at else 0
        return second >= int(made) - CLOCK_SKEW_SECONDS
    if second != other:
        return second > other
    listed = current().stripe.list_customers(second, created_until=second)
    places = {customer["id"]: place for place, customer in enumerate(listed)}
    last = len(places)
    return places.get(stripe_customer["id"], last) < places.get(than.stripe_id, last)


def _on_stripe(customer: Customer) -> Json:
    """What Stripe has of a record's customer; nothing where it does not know it."""
    try:
        return current().stripe.retrieve_customer(customer.stripe_id or "")
    except StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return {}


def _add_soft_deleted(user_id: str, stripe_customer: Json) -> None:
    """Put the record of a customer that its user has no more: its late events find it then."""
    customer = record_as_created(user_id, stripe_customer)
    for name, value in customer_values(stripe_customer).items():
        setattr(customer, name, value)
    customer.is_active = False
    customer.date_purged = customer.modified_at = current().now()

    def compose(transaction: TransactWrite) -> None:
        transaction.save(customer)
        transaction.save(Pointer.to(stripe_customer["id"], user_id))

    _write_or_read_again(compose)


def _complete(user_id: str, records: UserRecords, record: Customer, stripe_customer: Json) -> bool:
    """Make whole what a record lacks that stands already.

    Beside a backup a transaction may have been under way: a backup is of one moment only almost.
    And a run before this one may have ended between the record and its cards.
    """
    stripe_id = record.stripe_id or ""
    claim = records.active
    is_pointed_to = claim is not None and claim.stripe_id == stripe_id
    if not record.is_active:
        if is_pointed_to:
            _write_or_read_again(lambda t: CustomerClaim.remove_pointer(t, user_id, stripe_id))
        return is_pointed_to
    others = any(other.is_active for other in records.customers.values() if other is not record)
    if (others or not is_pointed_to) and _is_superseded(records, stripe_customer):
        record.purge()
        return True
    standing = _soft_delete_others(records, stripe_customer)
    if not is_pointed_to or not Pointer.find(stripe_id):
        token = str(token_of(stripe_customer))
        record.update_with(
            {},
            also=(
                lambda t: CustomerClaim.adopt(t, user_id, stripe_id, token, standing),
                lambda t: t.save(Pointer.to(stripe_id, user_id)),
            ),
        )
        return True
    stored = current().settings.stored_records
    kinds = [kind for kind in (Card, Subscription) if kind.__name__ in stored]
    if all(record.listing_observation(kind) for kind in kinds):
        return False
    return _bring_up_to_date(record)


def _bring_up_to_date(customer: Customer | None) -> bool:
    if customer is None:
        raise StaleRecordError("the user's claim is another one now")
    try:
        refresh_from_stripe(customer)
    except DatabaseRefusedError as error:
        # The user has the customer, which is what this is for; the others must not wait.
        logger.warning(
            "not brought up to date",
            extra={"stripe_customer_id": customer.stripe_id, **error_log_fields(error)},
        )
    return True


def _write_or_read_again(compose: Callable[[TransactWrite], None]) -> None:
    try:
        transact(compose)
    except ConditionFailedError as error:
        raise StaleRecordError("the user's records were changed since they were read") from error
