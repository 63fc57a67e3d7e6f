"""Reading and storing the payload of an event, which may contain anything."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pynamodb.constants import BINARY

from stripe_integrations.context import current
from stripe_integrations.models.fields import StripeField, depth, is_text, value_at
from stripe_integrations.models.payload_dictionary import DICTIONARY

Json = Mapping[str, Any]

MAX_ID_LENGTH = 255
"""Stripe's own limit: https://docs.stripe.com/upgrades"""
_MAX_PAYLOAD_BYTES = 350_000
"""Below DynamoDB's 400 KB an item, with room for the other attributes."""
_MAX_DEPTH = 100
"""Levels of nesting; Stripe's objects have a dozen, and what is stored has to be read again."""
_LATEST = 253_402_300_799
"""The end of the year 9999 in Unix seconds."""


class CompressedJson(StripeField[dict[str, Any] | None]):
    """A JSON object, stored compressed: see https://docs.python.org/3/library/zlib.html."""

    attr_type = BINARY

    def serialize(self, value: Json) -> bytes:
        text = json.dumps(value, separators=(",", ":")).encode()
        compressor = zlib.compressobj(zdict=DICTIONARY)
        return compressor.compress(text) + compressor.flush()

    def deserialize(self, value: bytes) -> dict[str, Any]:
        text = zlib.decompressobj(zdict=DICTIONARY).decompress(value)
        payload: dict[str, Any] = json.loads(text)
        return payload


def is_storable(payload: Json) -> bool:
    """Return whether a payload fits into its event's item and can be read again."""
    if depth(payload, _MAX_DEPTH) > _MAX_DEPTH:
        return False
    return len(CompressedJson().serialize(payload)) <= _MAX_PAYLOAD_BYTES


def event_second(payload: Json) -> int:
    """Read Unix seconds; events of API v2 have ISO 8601 instead. Now, if it can't be read."""
    created = payload.get("created")
    if isinstance(created, int | float) and 0 < created <= _LATEST:
        return int(created)
    try:
        return int(datetime.fromisoformat(str(created)).astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        return int(current().clock())


def customer_id_of(payload: Json) -> str | None:
    """Read the Stripe customer of an event; that of a detached card is in the previous values."""
    data_object = value_at(payload, "data", "object")
    if not isinstance(data_object, Mapping):
        return None
    if value_at(data_object, "object") == "customer":
        return id_of(data_object)
    return id_of(value_at(data_object, "customer")) or id_of(
        value_at(payload, "data", "previous_attributes", "customer")
    )


def payment_method_id_of(payload: Json) -> str | None:
    """Read the PaymentMethod id of a payment_method.* event: its object may name no customer."""
    is_about_method = str(payload.get("type")).startswith("payment_method.")
    return id_of(value_at(payload, "data", "object")) if is_about_method else None


def id_of(value: object) -> str | None:
    """Read an id, or the id of an expanded object; None for what can't be one."""
    if isinstance(value, Mapping):
        value = value.get("id")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        return None
    return value if is_text(value) else None
