"""Attribute values in DynamoDB's JSON: read into one canonical form, measured and ordered.

The canonical form writes every number in the one way in which DynamoDB gives it back, and every
set in order. So two values are equal where their dicts are, and a value that is stored is never
changed in place.
"""

from __future__ import annotations

import base64
import binascii
import decimal
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from simulation.database.errors import RefusedError, invalid

Value = dict[str, Any]
Item = dict[str, Value]
Token = str | bytes | Decimal
"""A key's value in a form that sorts as DynamoDB sorts it."""

_DEEPEST = 31
"""Documents in one another; what the innermost holds is the 32nd level."""
_MOST_DIGITS = 38
_LARGEST_EXPONENT = 125
_SMALLEST_EXPONENT = -130

# DynamoDB's limits in bytes.
_NUMBER_BYTES = 21
_CONTAINER_BYTES = 3

_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,36}[1-9]|-?[1-9]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
# Wide enough for the sum of the largest and the smallest number.
EXACT = decimal.Context(prec=600, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def read_item(item: object) -> Item:
    """A whole item in canonical form, sharing nothing with what was given.

    Raises
    ------
    RefusedError
        It is no map of attribute values, or one of them is not valid.
    """
    if not isinstance(item, Mapping):
        raise _unreadable("an item is a map of attribute values")
    return {name: read_value(value) for name, value in item.items()}


def read_value(value: object, depth: int = 0) -> Value:
    """One attribute value in canonical form, sharing nothing with what was given.

    Parameters
    ----------
    value : object
        What stands where an attribute value should.
    depth : int
        How many documents it stands in.

    Raises
    ------
    RefusedError
        It is not valid.
    """
    if not isinstance(value, Mapping):
        raise _unreadable("an attribute value is a map of one data type to its content")
    if len(value) != 1:
        raise invalid("Supplied AttributeValue must contain exactly one of the supported datatypes")
    ((kind, content),) = value.items()
    if kind == "S":
        return {"S": _text(content)}
    if kind == "N":
        return {"N": canonical_number(_text(content))}
    if kind in ("M", "L"):
        return _read_document(kind, content, depth + 1)
    reader = _READERS.get(kind)
    if reader is None:
        raise invalid("Supplied AttributeValue is empty, must contain exactly one of the datatypes")
    return {kind: reader(content)}


def _read_document(kind: str, content: object, depth: int) -> Value:
    if depth > _DEEPEST:
        raise invalid("Nesting Levels have exceeded supported limits")
    if kind == "M":
        if not isinstance(content, Mapping):
            raise _unreadable("M takes a map")
        return {"M": {name: read_value(value, depth) for name, value in content.items()}}
    if not isinstance(content, list):
        raise _unreadable("L takes a list")
    return {"L": [read_value(value, depth) for value in content]}


def _text(content: object) -> str:
    if not isinstance(content, str):
        raise _unreadable("a string was expected")
    return content


def _binary(content: object) -> str:
    try:
        base64.b64decode(_text(content), validate=True)
    except binascii.Error as error:
        raise _unreadable("B takes base64") from error
    return _text(content)


def _boolean(content: object) -> bool:
    if not isinstance(content, bool):
        raise _unreadable("BOOL takes true or false")
    return content


def _null(content: object) -> bool:
    if not _boolean(content):
        raise invalid("Null attribute value types must have the value of true")
    return True


def _set_reader(
    kind: str, read: Callable[[object], str], order: Callable[[str], Any]
) -> Callable[[object], list[str]]:
    def reader(content: object) -> list[str]:
        if not isinstance(content, list):
            raise _unreadable(f"{kind} takes a list")
        members = [read(member) for member in content]
        if not members:
            raise invalid("One or more parameter values were invalid: a set may not be empty")
        if len(set(members)) != len(members):
            raise invalid("Input collection contains duplicates")
        return sorted(members, key=order)

    return reader


@lru_cache(maxsize=1 << 16)
def canonical_number(text: str) -> str:
    """A number as DynamoDB gives it back: in plain digits, without zeros that say nothing.

    Parameters
    ----------
    text : str
        The number as it was sent.

    Raises
    ------
    RefusedError
        It is no number, or one that DynamoDB can't hold.
    """
    if _PLAIN_INTEGER.fullmatch(text):
        return text
    if not _NUMBER.fullmatch(text):
        raise invalid("The parameter cannot be converted to a numeric value")
    return write_number(EXACT.create_decimal(text))


def write_number(number: Decimal) -> str:
    """The canonical text of a number.

    Parameters
    ----------
    number : Decimal
        A finite number.

    Raises
    ------
    RefusedError
        DynamoDB can't hold it.
    """
    if not number:
        return "0"
    number = number.normalize(EXACT)
    if number.adjusted() > _LARGEST_EXPONENT:
        raise invalid("Number overflow. Attempting to store a number with a too large magnitude")
    if number.adjusted() < _SMALLEST_EXPONENT:
        raise invalid("Number underflow. Attempting to store a number with a too small magnitude")
    if len(number.as_tuple().digits) > _MOST_DIGITS:
        raise invalid("Attempting to store more than 38 significant digits in a Number")
    return format(number, "f")


@lru_cache(maxsize=1 << 16)
def number(text: str) -> Decimal:
    """The value of a canonical number."""
    return Decimal(text)


_READERS: dict[str, Callable[[object], Any]] = {
    "B": _binary,
    "BOOL": _boolean,
    "NULL": _null,
    "SS": _set_reader("SS", _text, str),
    "NS": _set_reader("NS", lambda member: canonical_number(_text(member)), number),
    "BS": _set_reader("BS", _binary, base64.b64decode),
}

SCALARS = {"S", "N", "B"}
SETS = {"SS", "NS", "BS"}
KINDS = {"S", "N", "M", "L", *_READERS}
_ORDERS: dict[str, Callable[[str], Any]] = {"SS": str, "NS": number, "BS": base64.b64decode}


def write_set(kind: str, members: Iterable[str]) -> Value:
    """A set in canonical form.

    Parameters
    ----------
    kind : str
        SS, NS or BS.
    members : iterable
        Canonical members, each once.
    """
    return {kind: sorted(members, key=_ORDERS[kind])}


def kind_of(value: Value) -> str:
    """The data type of a value: S, N, B, …"""
    (kind,) = value
    return kind


def token(value: Value) -> Token:
    """A scalar's value in a form that sorts as DynamoDB sorts it.

    Code points are in the order of their UTF-8 bytes, so a string is its own token.
    """
    ((kind, content),) = value.items()
    if kind == "N":
        return number(content)
    return base64.b64decode(content) if kind == "B" else str(content)


def copied(item: Item) -> Item:
    """An item that shares nothing with another one."""
    return {name: copied_value(value) for name, value in item.items()}


def copied_value(value: Value) -> Value:
    """A value that shares nothing with another one."""
    ((kind, content),) = value.items()
    if kind == "M":
        return {"M": copied(content)}
    if kind == "L":
        return {"L": [copied_value(element) for element in content]}
    return {kind: content.copy() if isinstance(content, list) else content}


def item_size(item: Item) -> int:
    """Bytes of an item, as DynamoDB counts them.

    Follows https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(_text_size(name) + value_size(value) for name, value in item.items())


def value_size(value: Value) -> int:
    """Bytes of one value, as DynamoDB counts them."""
    ((kind, content),) = value.items()
    if kind == "M":
        return _CONTAINER_BYTES + len(content) + item_size(content)
    if kind == "L":
        return _CONTAINER_BYTES + len(content) + sum(map(value_size, content))
    if kind in SETS:
        return sum(map(_SIZES[kind[0]], content))
    measure = _SIZES.get(kind)
    return 1 if measure is None else measure(content)


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _number_size(text: str) -> int:
    digits = text.lstrip("-0.").replace(".", "").rstrip("0")
    return min(_NUMBER_BYTES, (len(digits) + 1) // 2 + 1 + text.startswith("-"))


def _binary_size(text: str) -> int:
    return len(text) * 3 // 4 - text.count("=", -2)


_SIZES = {"S": _text_size, "N": _number_size, "B": _binary_size}


def size_of(value: Value) -> int | None:
    """What the function `size` gives: bytes, members, elements; None where it gives nothing."""
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return _text_size(content)
        case "B":
            return _binary_size(content)
        case "SS" | "NS" | "BS" | "M" | "L":
            return len(content)
        case _:
            return None


def _unreadable(why: str) -> RefusedError:
    return RefusedError("SerializationException", why)
