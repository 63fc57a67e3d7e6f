"""Declarations of request parameters, which check and convert them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import Json, invalid

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_INTEGER = re.compile(r"-?\d{1,15}")
_DECIMAL = re.compile(r"-?\d{1,15}(\.\d{1,15})?")
_METADATA_KEYS, _METADATA_KEY_LENGTH, _METADATA_VALUE_LENGTH = 50, 40, 500


@dataclass(frozen=True)
class Param:
    """One parameter: how its value is read, and whether it is required or can be unset.

    On Stripe an empty string unsets a value; it is read as None.
    """

    read: Callable[[Any, str], Any]
    required: bool = False
    unsets: bool = False

    def needed(self) -> Param:
        """Return the same parameter, required."""
        return replace(self, required=True)

    def fixed(self) -> Param:
        """Return the same parameter without the empty string."""
        return replace(self, unsets=False)


Params = Mapping[str, Param]


def read(declared: Params, given: Mapping[str, Any], prefix: str = "") -> Json:
    """Return the checked and converted parameters, without those that are absent.

    Raises
    ------
    ApiError
        400 for the first parameter that is unknown, missing or of the wrong type.
    """
    unknown = [_name(prefix, key) for key in given if key not in declared]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        message = f"Received unknown parameter{plural}: {', '.join(unknown)}"
        raise invalid(message, unknown[0], "parameter_unknown")
    result: Json = {}
    for key, param in declared.items():
        name = _name(prefix, key)
        if key not in given or given[key] is None:
            if param.required:
                raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
        elif given[key] != "":
            result[key] = param.read(given[key], name)
        elif param.unsets:
            result[key] = None
        else:
            message = f"An empty string was passed for '{name}', which cannot be unset."
            raise invalid(message, name, "parameter_invalid_empty")
    return result


def string(max_length: int = 5000) -> Param:
    """Text with a maximum length; the empty string unsets it."""

    def read_string(value: Any, name: str) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, str | int | float):
            raise invalid(f"Invalid string: {name}", name)
        text = str(value)
        if len(text) > max_length:
            raise invalid(f"Invalid string: {name} must be at most {max_length} characters", name)
        return text

    return Param(read_string, unsets=True)


def email() -> Param:
    """An e-mail address: text with an ``@``."""

    def read_email(value: Any, name: str) -> str:
        text: str = string(512).read(value, name)
        if not _EMAIL.fullmatch(text):
            raise invalid(f"Invalid email address: {text}", name, "email_invalid")
        return text

    return Param(read_email, unsets=True)


def integer(minimum: int | None = None, maximum: int | None = None) -> Param:
    """An integer within bounds."""

    def read_integer(value: Any, name: str) -> int:
        if isinstance(value, bool) or not _INTEGER.fullmatch(str(value)):
            raise invalid(f"Invalid integer: {value}", name, "parameter_invalid_integer")
        number = int(value)
        if minimum is not None and number < minimum:
            raise invalid(f"{name} must be greater than or equal to {minimum}", name)
        if maximum is not None and number > maximum:
            raise invalid(f"{name} must be less than or equal to {maximum}", name)
        return number

    return Param(read_integer)


def number() -> Param:
    """A decimal number; the empty string unsets it."""

    def read_number(value: Any, name: str) -> float:
        if isinstance(value, bool) or not _DECIMAL.fullmatch(str(value)):
            raise invalid(f"Invalid decimal: {value}", name)
        return float(value)

    return Param(read_number, unsets=True)


def boolean() -> Param:
    """``true`` or ``false``."""

    def read_boolean(value: Any, name: str) -> bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
        raise invalid(f"Invalid boolean: {value}", name)

    return Param(read_boolean)


def choice(*values: str) -> Param:
    """One of several values."""

    def read_choice(value: Any, name: str) -> str:
        if value not in values:
            raise invalid(f"Invalid {name}: must be one of {', '.join(values)}", name)
        return str(value)

    return Param(read_choice)


def one_of(word: str, other: Param) -> Param:
    """A fixed value or another parameter: ``trial_end`` is ``now`` or a time."""

    def read_one_of(value: Any, name: str) -> Any:
        return value if value == word else other.read(value, name)

    return Param(read_one_of)


def hash_of(fields: Params) -> Param:
    """A nested hash with declared keys; the empty string unsets it."""

    def read_hash(value: Any, name: str) -> Json:
        if not isinstance(value, Mapping):
            raise invalid("Invalid object", name)
        return read(fields, value, name)

    return Param(read_hash, unsets=True)


def list_of(item: Param) -> Param:
    """An array; the empty string unsets it."""

    def read_list(value: Any, name: str) -> list[Any]:
        if isinstance(value, Mapping) and all(str(key).isdigit() for key in value):
            value = [value[key] for key in sorted(value, key=int)]
        if not isinstance(value, list | tuple):
            raise invalid("Invalid array", name)
        return [item.read(entry, f"{name}[{i}]") for i, entry in enumerate(value)]

    return Param(read_list, unsets=True)


def free() -> Param:
    """A hash with any keys."""

    def read_free(value: Any, name: str) -> Json:
        if not isinstance(value, Mapping):
            raise invalid("Invalid object", name)
        return dict(value)

    return Param(read_free, unsets=True)


def metadata() -> Param:
    """Stripe's metadata: text values by key; an empty value removes the key."""

    def read_metadata(value: Any, name: str) -> Json:
        if not isinstance(value, Mapping):
            raise invalid("Invalid object", name)
        result: Json = {}
        for key, text in value.items():
            param = f"{name}[{key}]"
            if len(key) > _METADATA_KEY_LENGTH:
                raise invalid(
                    f"Metadata keys can have up to {_METADATA_KEY_LENGTH} characters", param
                )
            result[key] = string(_METADATA_VALUE_LENGTH).read(text, param) or None
        return result

    return Param(read_metadata, unsets=True)


def merge_metadata(old: Mapping[str, str], given: Mapping[str, str | None] | None) -> Json:
    """Return ``old`` with the given keys set or removed; None removes all of them."""
    if given is None:
        return {}
    merged = {key: text for key, text in {**old, **given}.items() if text is not None}
    if len(merged) > _METADATA_KEYS:
        raise invalid(f"Metadata can have up to {_METADATA_KEYS} keys", "metadata")
    return merged


def interval() -> Param:
    """A time or bounds: ``created=1`` or ``created[gte]=1&created[lt]=9``."""
    bounds = {bound: integer() for bound in ("gt", "gte", "lt", "lte")}

    def read_interval(value: Any, name: str) -> Json:
        if isinstance(value, Mapping):
            return read(bounds, value, name)
        moment = integer().read(value, name)
        return {"gte": moment, "lte": moment}

    return Param(read_interval)


def within(moment: int, bounds: Mapping[str, int] | None) -> bool:
    """Return whether a time is within bounds that `interval` has read."""
    if not bounds:
        return True
    return (
        moment > bounds.get("gt", moment - 1)
        and moment >= bounds.get("gte", moment)
        and moment < bounds.get("lt", moment + 1)
        and moment <= bounds.get("lte", moment)
    )


def _name(prefix: str, key: str) -> str:
    return f"{prefix}[{key}]" if prefix else key


ADDRESS: Params = {
    key: string() for key in ("city", "country", "line1", "line2", "postal_code", "state")
}
"""The parts of every address on Stripe."""

PAGE: Params = {
    "limit": integer(1, 100),
    "starting_after": string().fixed(),
    "ending_before": string().fixed(),
}
"""The parameters of every list."""


def full_address(given: Mapping[str, str | None] | None) -> Json | None:
    """Return an address with all its keys."""
    return None if given is None else {key: given.get(key) for key in ADDRESS}
