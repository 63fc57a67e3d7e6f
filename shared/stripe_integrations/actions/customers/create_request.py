"""The parameters of a create: checked before Stripe is called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.errors import InvalidFieldError, StripeRefusedError
from stripe_integrations.models import Customer
from stripe_integrations.models.fields import depth, fields_of

MAX_METADATA_KEYS, MAX_METADATA_KEY_LENGTH, MAX_METADATA_VALUE_LENGTH = 48, 40, 500
"""Stripe takes 50 keys; two of them are ours. https://docs.stripe.com/api/metadata"""
MAX_DEPTH = 8
"""Levels of nesting; no parameter of Stripe's has more than four."""
_MAX_REQUEST_LENGTH = 64 * 1024
"""Characters of JSON: the claim that stores them has to fit into an item with room to spare."""


def create_request(billing_email: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check a caller's values, and divide them into Stripe's parameters and local values.

    Parameters
    ----------
    billing_email : str
        Becomes Stripe's `email`.
    fields : mapping
        Fields of the Customer model by name.

    Returns
    -------
    dict
        `stripe`: the parameters of Stripe's create call; `local`: values of fields that Stripe's
        create call does not take.

    Raises
    ------
    InvalidFieldError
        A field is unknown, not the caller's to set, or of the wrong type.
    """
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
        if len(json.dumps([stripe, local])) > _MAX_REQUEST_LENGTH:
            raise InvalidFieldError(name, "makes the request too long")
    return {"stripe": stripe, "local": local}


def refused_field(error: StripeRefusedError) -> str | None:
    """Return the caller's name for the parameter that Stripe refused."""
    if error.status == 402:
        return "default_source"
    if not error.param:
        return None
    head, bracket, rest = error.param.partition("[")
    names = {field.param: name for name, field in fields_of(Customer).items() if field.param}
    names["email"] = "billing_email"
    return names.get(head, head) + bracket + rest


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if len(metadata) > MAX_METADATA_KEYS:
        raise InvalidFieldError("metadata", f"must have at most {MAX_METADATA_KEYS} keys")
    for key, value in metadata.items():
        if key in (USER_KEY, TOKEN_KEY):
            raise InvalidFieldError("metadata", f"the key {key} is reserved")
        if not isinstance(value, str) or len(value) > MAX_METADATA_VALUE_LENGTH:
            raise InvalidFieldError(
                "metadata",
                f"values must be strings of at most {MAX_METADATA_VALUE_LENGTH} characters",
            )
        if not isinstance(key, str) or not 0 < len(key) <= MAX_METADATA_KEY_LENGTH:
            raise InvalidFieldError(
                "metadata", f"keys must be 1 to {MAX_METADATA_KEY_LENGTH} characters long"
            )


def _check_encodable(name: str, value: object) -> None:
    """Refuse what only Python can represent: lone surrogates, NaN, deep nesting."""
    if depth(value, MAX_DEPTH) > MAX_DEPTH:
        raise InvalidFieldError(name, "is nested too deeply")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise InvalidFieldError(name, "can't be written as JSON in UTF-8") from None
