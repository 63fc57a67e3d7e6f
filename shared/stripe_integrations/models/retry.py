"""Retries after conflicts with concurrent writers, and claims on work that expire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from stripe_integrations.context import current
from stripe_integrations.errors import ConflictError, StaleRecordError
from stripe_integrations.limits import CLOCK_SKEW_SECONDS

R = TypeVar("R")

_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 0.05
_CLAIM_SECONDS = 120
"""How long an attempt may take, unless the invocation ends before."""


def attempts(limit: int = _ATTEMPTS) -> Iterator[int]:
    """Count attempts from 0, with growing, jittered pauses between them.

    Parameters
    ----------
    limit : int
        How many attempts there are at most.
    """
    for attempt in range(limit):
        if attempt:
            current().pause(_FIRST_PAUSE_SECONDS * 2**attempt)
        yield attempt


def retry_on_conflict(attempt: Callable[[int], R]) -> R:
    """Repeat a read and a conditional write for as long as concurrent writers intervene.

    Parameters
    ----------
    attempt : callable
        Reads, decides and writes; takes the number of the attempt, from 0. It is repeated after a
        `StaleRecordError`.

    Raises
    ------
    ConflictError
        A concurrent writer was faster every time.
    """
    for number in attempts():
        try:
            return attempt(number)
        except StaleRecordError:
            continue
    raise ConflictError("concurrent writers changed the same record every time")


def claim_expires_at() -> int:
    """Return when a claim made now expires: by then the attempt has ended, or its process died."""
    seconds = min(_CLAIM_SECONDS, current().remaining_seconds())
    return int(current().clock() + seconds + 2 * CLOCK_SKEW_SECONDS)
