"""Decoding of Stripe's form encoding: ``items[0][price]=price_1&expand[]=customer``."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from .errors import Json, invalid

_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_PART = re.compile(r"\[([^\[\]]*)\]")


def decode(encoded: str) -> Json:
    """Return the nested parameters of a query string or a form body.

    Arrays are mappings by index, because only the declaration of a parameter decides whether
    ``metadata[0]`` is a key or an index.

    Raises
    ------
    ApiError
        400, for a key with both a value and nested keys.

    Example
    -------
    >>> decode("metadata[0]=a&expand[]=customer")
    {'metadata': {'0': 'a'}, 'expand': {'0': 'customer'}}
    """
    result: Json = {}
    for key, value in parse_qsl(encoded, keep_blank_values=True):
        _put(result, _split(key), value, key)
    return result


def _split(key: str) -> list[str]:
    match = _KEY.fullmatch(key)
    if match is None:
        return [key]
    return [match[1], *_PART.findall(match[2])]


def _put(target: Json, parts: list[str], value: str, key: str) -> None:
    for part in parts[:-1]:
        child: Any = target.setdefault(part or str(len(target)), {})
        if not isinstance(child, dict):
            raise invalid(f"Invalid parameter encoding: {key}", key)
        target = child
    last = parts[-1] or str(len(target))
    if isinstance(target.get(last), dict):
        raise invalid(f"Invalid parameter encoding: {key}", key)
    target[last] = value
