"""Times as operators give them: an age, or a point in time."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from stripe_integrations_cli.errors import UsageError

_AGE = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_EARLIEST = 1_000_000_000
"""A smaller number, such as 20261125, is not meant as Unix seconds: Stripe is younger."""
_LATEST = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())


def unix_seconds(option: str, text: str | None) -> int | None:
    """Parse a time: an age (``90m``, ``2d``), ISO 8601, or Unix seconds.

    Parameters
    ----------
    option : str
        The option that it was given with, for the message.
    text : str or None
        The time; one without an offset is in UTC.

    Returns
    -------
    int or None
        Unix seconds; None if no time was given.

    Raises
    ------
    UsageError
        It has none of these formats.
    """
    if text is None:
        return None
    moment = _moment(text)
    if moment is None or not _EARLIEST <= moment <= _LATEST:
        raise UsageError(
            f"{option} takes an age like 90m, 12h or 2d, or a time like 2026-11-25T08:00:00Z"
        )
    return moment


def unix_range(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Parse ``--since`` and ``--until``; returns Unix seconds, and None for what was not given.

    Raises
    ------
    UsageError
        One of them has no known format, or the range is empty.
    """
    earliest, latest = unix_seconds("--since", since), unix_seconds("--until", until)
    if earliest is not None and latest is not None and earliest > latest:
        raise UsageError("--since is after --until")
    return earliest, latest


def _moment(text: str) -> int | None:
    if age := _AGE.fullmatch(text):
        return int(time.time()) - int(age[1]) * _SECONDS[age[2]]
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
