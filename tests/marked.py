"""Marked values for everything that is personal or secret, and the search for them.

Each place has a mark of its own, so that what is found says where it came from. A mark is short: it
is found in a part of a value too, and in one that was encoded.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from typing import Any

from stripe_integrations.models.payload_dictionary import DICTIONARY

Json = dict[str, Any]

_MARK = re.compile(r"mk[a-z2-7]{6}")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{12,}")
_PRESSED = re.compile(rb"x[\x01\x5e\x9c\xda\x20\x3f\x7d\xbb\xf9]")
"""The headers of zlib, without and with a preset dictionary."""
_DEEPEST = 2
_names: dict[str, str] = {}


@cache
def mark(name: str) -> str:
    """The mark of a place: eight letters and digits, which no encoding of text changes."""
    digest = blake2b(name.encode(), digest_size=5).digest()
    word = "mk" + base64.b32encode(digest).decode().lower()[:6]
    if _names.setdefault(word, name) != name:
        raise ValueError(f"{name} and {_names[word]} have the same mark")
    return word


def marks_in(text: str | bytes) -> list[str]:
    """The places whose marks are in a text: plain, in upper case, cut off, or encoded.

    Percent-encoding and JSON's escapes leave a mark as it is. Base64 and zlib are decoded, one
    inside the other too.
    """
    found = {_names[word] for word in _words(_as_text(text), 0) if word in _names}
    return sorted(found)


def _words(text: str, level: int) -> Iterator[str]:
    yield from _MARK.findall(text.lower())
    if level == _DEEPEST:
        return
    for content in _decoded(text):
        yield from _words(content, level + 1)


def _decoded(text: str) -> Iterator[str]:
    for match in _ENCODED.finditer(text):
        word = match[0].replace("-", "+").replace("_", "/")
        # Where it begins is not known: other letters may precede it.
        for start in range(4):
            piece = word[start:]
            piece = piece[: len(piece) // 4 * 4]
            try:
                content = base64.b64decode(piece)
            except binascii.Error:
                continue
            yield _as_text(content)
            yield from _inflated(content)


def _inflated(content: bytes) -> Iterator[str]:
    for match in _PRESSED.finditer(content):
        try:
            # A truncated value is read as far as possible.
            inflated = zlib.decompressobj(zdict=DICTIONARY).decompress(content[match.start() :])
        except zlib.error:
            continue
        yield _as_text(inflated)


def _as_text(text: str | bytes) -> str:
    return text.decode("latin-1") if isinstance(text, bytes) else text


# ---- what is personal


def user_id(name: str) -> str:
    """A user's id, as a backend may have it; logs must not have it."""
    return f"user-{mark(f'user id of {name}')}"


def customer_fields(whose: str) -> Json:
    """Every field of POST /customers that holds personal data, by its name."""

    def value(field: str) -> str:
        return f"{mark(f'{field} of {whose}')} é@/"

    return {
        "billing_email": f"{mark(f'e-mail of {whose}')}@example.com",
        "name": value("name"),
        "description": value("description"),
        "phone": f"+32 {mark(f'phone of {whose}')}",
        "address": address(whose),
        "shipping": {
            "name": value("shipping name"),
            "phone": f"+32 {mark(f'shipping phone of {whose}')}",
            "address": address(f"shipping of {whose}"),
        },
        "invoice_prefix": mark(f"invoice prefix of {whose}").upper(),
        "invoice_settings": {
            "custom_fields": [{"name": value("custom field"), "value": value("custom value")}],
            "footer": value("footer"),
        },
        "metadata": {mark(f"metadata key of {whose}"): value("metadata")},
    }


def address(whose: str) -> Json:
    """An address with every line marked."""
    lines = ("line1", "line2", "city", "state", "postal_code")
    return {**{line: f"{mark(f'{line} of {whose}')} é" for line in lines}, "country": "BE"}


def card_fields(whose: str) -> Json:
    """The personal data of a card in the older shape, for `StripeDouble.add_token`."""
    return {
        "name": mark(f"card name of {whose}"),
        **{
            f"address_{line}": mark(f"card {line} of {whose}")
            for line in ("line1", "line2", "city", "state", "zip")
        },
        "dynamic_last4": mark(f"card dynamic last4 of {whose}"),
        "fingerprint": mark(f"card fingerprint of {whose}"),
        "last4": mark(f"card last4 of {whose}"),
    }


def method_fields(whose: str) -> Json:
    """The personal data of a PaymentMethod, for POST /v1/payment_methods."""
    return {
        "billing_details": {
            "address": address(f"billing of {whose}"),
            "email": f"{mark(f'billing e-mail of {whose}')}@example.com",
            "name": mark(f"billing name of {whose}"),
            "phone": mark(f"billing phone of {whose}"),
        },
        "metadata": {
            mark(f"card metadata key of {whose}"): mark(f"card metadata of {whose}"),
        },
    }
