"""Billing periods: calendar arithmetic on Unix times, in UTC."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime

_DAY = 24 * 3600
_SECONDS = {"day": _DAY, "week": 7 * _DAY}
_MONTHS = {"month": 1, "year": 12}


def after(moment: int, interval: str, count: int) -> int:
    """Return the time some intervals later; the day is at most the last of the month.

    Example
    -------
    >>> after(1769817600, "month", 1)  # 31 January 2026
    1772236800
    """
    if interval in _SECONDS:
        return moment + count * _SECONDS[interval]
    start = datetime.fromtimestamp(moment, UTC)
    months = start.month - 1 + count * _MONTHS[interval]
    year, month = start.year + months // 12, months % 12 + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())
