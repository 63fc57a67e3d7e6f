"""Updating a customer on Stripe, and the record from Stripe's response.

The record is read before the call, so Stripe's response is a fetch: it is written on condition that
the record's version has not changed. Where it has, or where Stripe replays a stored response, the
response may be older than the record. The call is not repeated then, since it took effect: the
customer is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from stripe_integrations import errors
from stripe_integrations.actions.customers.refresh import (
    read_again,
    refresh_until_written,
    values_of_update,
)
from stripe_integrations.actions.customers.request import (
    caller_error,
    refused_field,
    update_request,
)
from stripe_integrations.context import current
from stripe_integrations.models import Customer

MAX_KEY_LENGTH = 200
"""Characters of a caller's idempotency key: Stripe takes 255 with the customer's id."""
_KEY = re.compile(f"[ -~]{{1,{MAX_KEY_LENGTH}}}")


def update_customer(
    customer: Customer, fields: Mapping[str, Any], idempotency_key: str | None
) -> Customer:
    """Update a customer on Stripe and its record: see `StripeCustomer.update`."""
    params = update_request(customer, fields)
    key = _key_of(customer, idempotency_key)
    if idempotency_key is not None and fields.get("metadata", "") is None:
        # The parameters depend on the record's keys: a repeated call would have others.
        raise errors.InvalidFieldError(
            "metadata", "with an idempotency key, must be cleared key by key"
        )
    if not customer.is_active:
        raise errors.CustomerSoftDeletedError(f"{customer.stripe_id} is soft-deleted")
    sent = current().clock()
    try:
        response = current().stripe.update_customer(customer.stripe_id, params, key)
    except errors.StripeKeyReusedError as error:
        raise errors.InvalidFieldError(
            "idempotency_key", "was used with other values before"
        ) from error
    except errors.StripeRefusedError as error:
        refused = (refused_field(error) or "").partition("[")[0]
        if error.status == HTTPStatus.NOT_FOUND and refused not in fields:
            _fetch(customer)
            raise
        raise caller_error(error) from None
    values = values_of_update(response, key, sent)
    if not values or "default_source" in fields:
        # Stripe's response has no children: a new source is one, and a replaced one is removed.
        return _fetch(customer)
    try:
        customer.update_with(values)
    except errors.StaleRecordError:
        return _fetch(read_again(customer))
    return customer


def _key_of(customer: Customer, idempotency_key: object) -> str:
    """Make the key for Stripe, whose keys are those of the whole account, from the caller's."""
    if idempotency_key is None:
        return f"{customer.stripe_id}/{current().new_token()}"
    if not isinstance(idempotency_key, str) or not _KEY.fullmatch(idempotency_key):
        raise errors.InvalidFieldError(
            "idempotency_key", f"must be 1 to {MAX_KEY_LENGTH} printable ASCII characters"
        )
    return f"{customer.stripe_id}/{idempotency_key}"


def _fetch(customer: Customer) -> Customer:
    """Write what Stripe has, and raise an error if it has deleted the customer."""
    fetched = refresh_until_written(customer)
    if not fetched.is_active:
        raise errors.CustomerSoftDeletedError(f"Stripe has deleted {customer.stripe_id}")
    return fetched
