"""A customer in an HTTP response: every public field of the field table, null or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from stripe_integrations.models import KINDS, Customer, stored_kinds
from stripe_integrations.models.child import MAX_BYTES, Child
from stripe_integrations.models.fields import fields_of
from stripe_integrations.models.table import Record

_MAX_RESPONSE_BYTES = 5_900_000
"""Below Lambda's limit of 6 MB, with room for headers."""


def response_kinds() -> list[type[Child]]:
    """Return the kinds that a customer in a response has: the optional ones only if stored."""
    return [kind for kind in KINDS if kind.IS_DEFAULT or kind in stored_kinds()]


def customer_to_json(customer: Customer) -> dict[str, Any]:
    """Convert a customer and its children to a JSON object.

    Stripe's times are Unix seconds, our own are ISO 8601; amounts are in the currency's smallest
    unit. Each card has `is_default`. If the response would exceed Lambda's limit, each child has
    only its main fields.
    """
    full = _with_children(customer, _to_json)
    may_be_too_large = len(customer.children) * MAX_BYTES > _MAX_RESPONSE_BYTES
    if may_be_too_large and _size(full) > _MAX_RESPONSE_BYTES:
        return {**_with_children(customer, _main_fields), "is_incomplete": True}
    return full


def _with_children(
    customer: Customer, child_to_json: Callable[[Child], dict[str, Any]]
) -> dict[str, Any]:
    children = {
        kind.COLLECTION: list(map(child_to_json, getattr(customer, kind.COLLECTION)))
        for kind in response_kinds()
    }
    return {**_to_json(customer), **children}


def _main_fields(child: Child) -> dict[str, Any]:
    fields = _to_json(child)
    main = {"stripe_id", "customer_id", *child.REDUCED_FIELDS, *child.COMPUTED_FLAGS}
    shown = {name: value if name in main else None for name, value in fields.items()}
    return {**shown, "is_incomplete": True}


def _size(body: dict[str, Any]) -> int:
    """The bytes that a body takes in Lambda's response, where it is a JSON string."""
    return len(json.dumps(json.dumps(body)))


def _to_json(record: Record) -> dict[str, Any]:
    fields = {
        name: field.to_json(getattr(record, name))
        for name, field in fields_of(type(record)).items()
        if not field.private
    }
    return {**fields, **{flag: getattr(record, flag) for flag in record.COMPUTED_FLAGS}}
