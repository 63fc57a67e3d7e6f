"""A customer in an HTTP response: every public field of the field table, null or not."""

from __future__ import annotations

from typing import Any

from stripe_integrations.models import KINDS, Customer, stored_kinds
from stripe_integrations.models.child import Child
from stripe_integrations.models.fields import fields_of
from stripe_integrations.models.table import Record


def response_kinds() -> list[type[Child]]:
    """Return the kinds that a customer in a response has: the optional ones only if stored."""
    return [kind for kind in KINDS if kind.IS_DEFAULT or kind in stored_kinds()]


def customer_to_json(customer: Customer) -> dict[str, Any]:
    """Convert a customer and its children to a JSON object.

    Stripe's times are Unix seconds, our own are ISO 8601; amounts are in the currency's smallest
    unit. Each card has `is_default`.
    """
    children = {
        kind.COLLECTION: [
            {**_to_json(child), **{flag: getattr(child, flag) for flag in kind.COMPUTED_FLAGS}}
            for child in getattr(customer, kind.COLLECTION)
        ]
        for kind in response_kinds()
    }
    return {**_to_json(customer), **children}


def _to_json(record: Record) -> dict[str, Any]:
    return {
        name: field.to_json(getattr(record, name))
        for name, field in fields_of(type(record)).items()
        if not field.private
    }
