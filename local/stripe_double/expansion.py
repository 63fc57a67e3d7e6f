"""``expand[]``: the expandable properties, checked before a request takes effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import Json, invalid

_MAX_DEPTH = 4


@dataclass(frozen=True)
class _Field:
    shape: str
    how: str


def _reference(shape: str) -> _Field:
    return _Field(shape, "reference")


def _included(shape: str) -> _Field:
    return _Field(shape, "included")


def _nested(shape: str) -> _Field:
    return _Field(shape, "nested")


_FIELDS: dict[str, dict[str, _Field]] = {
    "customer": {
        "default_source": _reference("payment_source"),
        "invoice_settings": _nested("invoice_settings"),
        "sources": _included("list payment_source"),
        "subscriptions": _included("list subscription"),
    },
    "entitlements.active_entitlement": {"feature": _reference("entitlements.feature")},
    "entitlements.feature": {},
    "event": {},
    "invoice": {"customer": _reference("customer")},
    "invoice_settings": {"default_payment_method": _reference("payment_method")},
    "payment_method": {"customer": _reference("customer")},
    "payment_source": {"customer": _reference("customer")},
    "price": {"product": _reference("product")},
    "product": {},
    "source": {},
    "tax_id": {"customer": _reference("customer")},
    "subscription": {
        "customer": _reference("customer"),
        "default_payment_method": _reference("payment_method"),
        "default_source": _reference("payment_source"),
        "items": _nested("list subscription_item"),
        "latest_invoice": _reference("invoice"),
        "pending_setup_intent": _reference("setup_intent"),
    },
    "subscription_item": {"price": _nested("price")},
}

Fetch = Callable[[str, str], Json | None]
"""Returns a referenced object or the list of an owner; None for a deleted object."""


def check(shape: str, paths: list[str]) -> None:
    """Raise 400 for a path that can't be expanded in a response of this shape."""
    for path in paths:
        parts = path.split(".")
        if len(parts) > _MAX_DEPTH:
            raise invalid(f"expand goes at most {_MAX_DEPTH} levels deep ({path}).", "expand")
        current, last = shape, "nested"
        for part in parts:
            field = _field(current, part)
            if field is None:
                raise invalid(f"This property cannot be expanded ({path}).", "expand")
            current, last = field.shape, field.how
        if last == "nested":
            raise invalid(f"This property cannot be expanded ({path}).", "expand")


def apply(value: Json, shape: str, paths: list[str], fetch: Fetch) -> None:
    """Expand checked paths in a response, in place."""
    for path in paths:
        _expand(value, shape, path.split("."), fetch)


def _field(shape: str, part: str) -> _Field | None:
    if shape.startswith("list "):
        return _nested(shape.removeprefix("list ")) if part == "data" else None
    return _FIELDS.get(shape, {}).get(part)


def _expand(value: Any, shape: str, parts: list[str], fetch: Fetch) -> None:
    if isinstance(value, list):
        for entry in value:
            _expand(entry, shape, parts, fetch)
        return
    if not isinstance(value, dict) or value.get("deleted") or not parts:
        return
    part, *rest = parts
    field = _field(shape, part)
    if field is None:
        return
    if field.how == "included" and part not in value:
        value[part] = fetch(field.shape, value["id"])
    if field.how == "reference" and isinstance(value.get(part), str):
        value[part] = fetch(field.shape, value[part]) or value[part]
    _expand(value.get(part), field.shape, rest, fetch)
