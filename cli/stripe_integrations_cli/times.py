"""Times as operators give them: an age, or a moment."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from stripe_integrations_cli.errors import UsageError

_AGE = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def unix_seconds(option: str, text: str | None) -> int | None:
    """Return the moment that a text names: ``90m``, ``2d``, ISO 8601, or Unix seconds.

    Raises
    ------
    UsageError
        It names none.
    """
    if text is None:
        return None
    if age := _AGE.fullmatch(text):
        return int(time.time()) - int(age[1]) * _SECONDS[age[2]]
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} takes an age like 90m, 12h or 2d, or a time like 2026-11-25T08:00:00Z"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
