"""Syncing and soft-deleting a customer that the caller has read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations import errors
from stripe_integrations.actions.arguments import stripe_json
from stripe_integrations.actions.customers.refresh import (
    observation_of_given,
    read_again,
    refresh_from_stripe,
    refresh_until_written,
)
from stripe_integrations.context import current
from stripe_integrations.models import Card, Customer, Subscription, stored_kinds
from stripe_integrations.models.retry import retry_on_conflict

_REQUIRED_KINDS = (Card, Subscription)


def sync_customer(customer: Customer, stripe_customer: object = None) -> Customer:
    """Update a customer from Stripe: see `StripeCustomer.sync`."""
    missing = [kind.__name__ for kind in _REQUIRED_KINDS if kind not in stored_kinds()]
    if missing:
        names = " and ".join(missing)
        raise errors.RecordsNotStoredError(f"sync needs {names} records; STORED_RECORDS omits them")
    if not customer.is_active:
        raise errors.CustomerSoftDeletedError(f"{customer.stripe_id} is soft-deleted")
    if stripe_customer is not None:
        given = _json_of(customer, stripe_customer)
        refresh_from_stripe(customer, given)
        return customer
    return refresh_until_written(customer)


def sync_from_stripe_data(customer: Customer, stripe_customer: object) -> Customer:
    """Update a record from Stripe's object: see `StripeCustomer.sync_from_stripe_data`."""
    given = _json_of(customer, stripe_customer)
    if given.get("deleted"):
        customer.soft_delete_as_deleted_on_stripe()
    else:
        observed = observation_of_given(customer).as_fields()
        customer.update_with({**Customer.values_of(given), **observed, "update_key": None})
    return customer


def soft_delete_customer(customer: Customer) -> None:
    """Soft-delete a customer: see `StripeCustomer.soft_delete`."""

    def attempt(number: int) -> None:
        record = read_again(customer) if number else customer
        if record.is_active:
            record.soft_delete()

    retry_on_conflict(attempt)


def _json_of(customer: Customer, stripe_customer: object) -> Mapping[str, Any]:
    """Convert Stripe's object to JSON, and check that it is this customer's, in this mode."""
    given = stripe_json("stripe_customer", stripe_customer)
    if given.get("id") != customer.stripe_id:
        raise errors.InvalidFieldError("stripe_customer", f"is not {customer.stripe_id}")
    if given.get("livemode") not in (None, current().settings.livemode):
        raise errors.WrongModeError(f"{customer.stripe_id} is of the other mode")
    return given
