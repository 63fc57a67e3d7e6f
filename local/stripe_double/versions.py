"""Objects in older API versions, for endpoints and callers of another version."""

from __future__ import annotations

import re
from typing import Any

from .errors import Json, invalid

VERSION = "2026-10-28.endive"
"""The API version of the double's objects."""

_PERIOD_ON_ITEMS = "2025-03-31"
_FORM = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z]+)?")


def check(version: str) -> str:
    """Return the name of a version, or raise 400 if it is invalid."""
    if not _FORM.fullmatch(version):
        raise invalid(f"Invalid Stripe API version: {version}")
    return version


def in_version(value: Json, version: str) -> Json:
    """Return a response or an event in an API version: a copy, but not of what is nested in it.

    One difference is implemented: before 2025-03-31 period, quantity and discount were fields of a
    subscription and not of its items.
    """
    older = version < _PERIOD_ON_ITEMS
    result: Json = _convert(value) if older else dict(value)
    if result.get("object") == "event":
        result["api_version"] = version
    return result


def _convert(value: Any) -> Any:
    if isinstance(value, list):
        return [_convert(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    result = {key: _convert(entry) for key, entry in value.items()}
    if value.get("object") == "subscription":
        items = value["items"]["data"]
        starts = [item["current_period_start"] for item in items]
        ends = [item["current_period_end"] for item in items]
        result["current_period_start"] = min(starts, default=None)
        result["current_period_end"] = max(ends, default=None)
        result["quantity"] = items[0].get("quantity") if len(items) == 1 else None
        result["discount"] = None
        for item in result["items"]["data"]:
            del item["current_period_start"], item["current_period_end"]
    return result
