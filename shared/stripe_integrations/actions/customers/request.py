"""The parameters of a create and of an update: checked before Stripe is called."""

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
_RESERVED_KEYS = (USER_KEY, TOKEN_KEY)
_TOKEN_PREFIXES = ("tok_", "btok_")
_EMPTY_INVOICE_SETTINGS = {
    "custom_fields": "",
    "default_payment_method": "",
    "footer": "",
    "rendering_options": "",
}


def create_request(billing_email: object, fields: Mapping[str, Any]) -> dict[str, Any]:
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
        Fields are unknown, read-only or of the wrong type: all of them are named.
    """
    reasons = {name: _field_error(name, value) for name, value in fields.items()}
    _require_valid({"billing_email": _email_error(billing_email), **reasons})
    table = fields_of(Customer)
    stripe: dict[str, Any] = {"email": billing_email}
    local: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        param = table[name].param
        if name == "metadata":
            stripe[name] = {key: _metadata_text(entry) for key, entry in value.items()}
        elif param:
            stripe[param] = value
        else:
            local[name] = value
        _require_size(name, [stripe, local])
    return {"stripe": stripe, "local": local}


def update_request(customer: Customer, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check a caller's values, and convert them to the parameters of Stripe's update call.

    Stripe takes an empty string for a value to be cleared. Metadata is cleared key by key, so that
    the keys that identify our customers remain.

    Parameters
    ----------
    customer : Customer
        The record, as it was read.
    fields : mapping
        Fields of the Customer model by name, and `billing_email`; None clears.

    Raises
    ------
    InvalidFieldError
        Fields are unknown, read-only, of the wrong type, or can't be cleared: all of them are
        named.
    """
    _require_valid({name: _update_error(name, value) for name, value in fields.items()})
    params: dict[str, Any] = {}
    for name, value in fields.items():
        param = "email" if name == "billing_email" else str(fields_of(Customer)[name].param)
        match name:
            case "metadata":
                params[param] = _metadata_changes(customer, value)
            case "invoice_settings" if value is None:
                params[param] = _EMPTY_INVOICE_SETTINGS
            case "default_source":
                # A token becomes a new source, and any other id is of an attached one.
                params[param if value.startswith(_TOKEN_PREFIXES) else name] = value
            case _:
                params[param] = _with_empty_strings(value)
        _require_size(name, params)
    return params


def caller_error(error: StripeRefusedError) -> StripeRefusedError | InvalidFieldError:
    """Return Stripe's refusal with the caller's name of the refused field, if there is one."""
    field = refused_field(error)
    if field is None:
        return error
    code = f" ({error.code})" if error.code else ""
    return InvalidFieldError(field, f"rejected by Stripe{code}")


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


def _require_valid(reasons: Mapping[str, str | None]) -> None:
    """Raise an error that names every refused field, if there are any."""
    field_errors = [(name, reason) for name, reason in reasons.items() if reason]
    if field_errors:
        first, *others = field_errors
        raise InvalidFieldError(*first, *others)


def _require_size(name: str, request: object) -> None:
    if len(json.dumps(request)) > _MAX_REQUEST_LENGTH:
        raise InvalidFieldError(name, "makes the request too long")


def _email_error(email: object) -> str | None:
    if email is None:
        return "is missing"
    error = fields_of(Customer)["email"].refusal(email) or _unencodable(email)
    return error or (None if str(email).strip() else "must not be empty")


def _field_error(name: str, value: object) -> str | None:
    """Why a field is refused; None where it is accepted."""
    field = fields_of(Customer).get(name)
    if name == "email":
        return "must be passed as billing_email"
    if field is None or field.private:
        return "is not a field of a customer"
    if not field.settable:
        return "is read-only"
    if value is None:
        return None
    error = field.refusal(value) or _unencodable(value)
    if error is None and name == "metadata" and isinstance(value, Mapping):
        return _metadata_error(value)
    return error


def _update_error(name: str, value: object) -> str | None:
    """Why a field of an update is refused; None where it is accepted."""
    if name == "billing_email":
        return None if value is None else _email_error(value)
    if name == "metadata" and isinstance(value, Mapping):
        value = _without_none(value)
    error = _field_error(name, value)
    if error:
        return error
    field = fields_of(Customer)[name]
    if field.param is None:
        return "is computed by Stripe, and can't be changed"
    if not field.clearable and value in (None, "", []):
        return "can't be cleared"
    return None


def _metadata_error(metadata: Mapping[object, object]) -> str | None:
    if len(metadata) > MAX_METADATA_KEYS:
        return f"must have at most {MAX_METADATA_KEYS} keys"
    for key, value in metadata.items():
        if key in _RESERVED_KEYS:
            return f"the key {key} is reserved"
        if not isinstance(key, str) or not 0 < len(key) <= MAX_METADATA_KEY_LENGTH:
            return f"keys must be 1 to {MAX_METADATA_KEY_LENGTH} characters long"
        if (
            not isinstance(value, str | int | float)
            or len(_metadata_text(value)) > MAX_METADATA_VALUE_LENGTH
        ):
            return (
                f"values must be strings of at most {MAX_METADATA_VALUE_LENGTH} characters,"
                " numbers, true or false"
            )
    return None


def _metadata_text(value: object) -> str:
    """The text that Stripe stores for a value, as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _metadata_changes(customer: Customer, metadata: Mapping[str, object] | None) -> dict[str, str]:
    """The parameter that changes metadata; for None, all of the caller's keys are cleared."""
    if metadata is None:
        return {key: "" for key in customer.metadata or {} if key not in _RESERVED_KEYS}
    return {key: _metadata_text(value) for key, value in _without_none(metadata).items()}


def _without_none(values: Mapping[Any, object]) -> dict[Any, object]:
    return {key: "" if value is None else value for key, value in values.items()}


def _with_empty_strings(value: object) -> object:
    """Replace None and empty lists by what Stripe takes for them, in nested values as well.

    Form encoding has no empty list: Stripe would not get the parameter.
    """
    if isinstance(value, Mapping):
        return {key: _with_empty_strings(nested) for key, nested in value.items()}
    if isinstance(value, list) and value:
        return [_with_empty_strings(nested) for nested in value]
    return "" if value in (None, []) else value


def _unencodable(value: object) -> str | None:
    """Why JSON can't represent a value: lone surrogates, NaN, deep nesting."""
    if depth(value, MAX_DEPTH) > MAX_DEPTH:
        return "is nested too deeply"
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError):
        return "can't be encoded as JSON in UTF-8"
    return None
