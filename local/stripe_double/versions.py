"""Rendering in an older API version, for endpoints and callers that aren't on ours."""

from __future__ import annotations

import re
from typing import Any

from .errors import Json, invalid

VERSION = "2026-10-28.endive"
"""The API version whose shapes the double has."""

_PERIOD_ON_ITEMS = "2025-03-31"
_FORM = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z]+)?")


def check(version: str) -> str:
    """Return a version's name, or raise 400 where it isn't one."""
    if not _FORM.fullmatch(version):
        raise invalid(f"Invalid Stripe API version: {version}")
    return version


def in_version(value: Json, version: str) -> Json:
    """Return a copy of an answer or an event as a version shows it.

    What differs before 2025-03-31 is here: the subscription's own period, quantity and discount,
    where today its items have them.
    """
    older = version < _PERIOD_ON_ITEMS
    result: Json = _convert(value) if older else _copy(value)
    if result.get("object") == "event":
        result["api_version"] = version
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copy(entry) for entry in value]
    return value


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
