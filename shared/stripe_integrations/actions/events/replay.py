"""Replays: events that have ended are applied again, from Stripe's state at that time.

A replay can run repeatedly, and while new events arrive: the customer is fetched, and written by
the same conditional writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pynamodb.expressions.condition import Condition

from stripe_integrations import limits
from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.actions.events.reconcile import grouped
from stripe_integrations.context import current
from stripe_integrations.errors import (
    ApplyFailedError,
    EventNotFoundError,
    InvalidFieldError,
)
from stripe_integrations.models import Event, EventState, event_queue
from stripe_integrations.models.event_queue import QueueEntry
from stripe_integrations.models.fields import is_text, value_at, whole_number

_BATCH_EVENTS = 1000
"""How many failed events are put back into the queue before the first is attempted."""


@dataclass
class Replay:
    """The outcome of a replay.

    Parameters
    ----------
    replayed : int
        Events that were put back into the queue. Those that could not be applied at once are
        unfinished, and the schedule retries them.
    resume_from : mapping or None
        Where the next call resumes, since the time did not suffice; None at the end.
    """

    replayed: int = 0
    resume_from: dict[str, Any] | None = None


def replay_one(stripe_id: str) -> Replay:
    """Replay one event: see `StripeEvent.replay`."""
    if not Event.requeue(stripe_id):
        raise EventNotFoundError(f"there is no event {stripe_id}")
    _apply([stripe_id])
    return Replay(replayed=1)


def replay_failed(resume_from: dict[str, Any] | None) -> Replay:
    """Replay all failed events: see `StripeEvent.replay_failed`.

    Events that fail again meanwhile are left out: otherwise a resumed replay would never end.
    """
    failed_until = _failed_until(resume_from)
    failed = event_queue.failed(failed_until)
    result = Replay()
    while batch := list(islice(failed, _BATCH_EVENTS)):
        if result.replayed and not current().has_time_for(limits.EVENTS_PAGE_SECONDS):
            result.resume_from = {"failed_until": failed_until}
            return result
        # Another replay may have applied one of them since it was read.
        result.replayed += _replay(batch, Event.state == EventState.FAILED)
    return result


def _failed_until(resume_from: Any) -> int:
    """The time, in Unix seconds, until which an event has to have failed: by default, now."""
    if resume_from is None:
        return int(current().clock())
    failed_until = whole_number(value_at(resume_from, "failed_until"))
    if failed_until is None:
        raise InvalidFieldError("resume_from", "must be the resume_from of a previous response")
    return failed_until


def replay_created_between(
    earliest: int, latest: int, resume_from: dict[str, Any] | None
) -> Replay:
    """Replay a range of time: see `StripeEvent.replay_created_between`."""
    result = Replay(resume_from=_start_key(resume_from))
    while True:
        entries, result.resume_from = event_queue.created_between(
            earliest, latest, result.resume_from
        )
        result.replayed += _replay(entries)
        if result.resume_from is None or not current().has_time_for(limits.EVENTS_PAGE_SECONDS):
            return result


def _start_key(resume_from: Any) -> dict[str, Any] | None:
    """The key of the table that a scan resumes from, as the previous call has returned it."""
    if resume_from is None:
        return None
    key = {name: {"S": value_at(resume_from, name, "S")} for name in ("pk", "sk")}
    if not all(is_text(part["S"]) for part in key.values()):
        raise InvalidFieldError("resume_from", "must be the resume_from of a previous response")
    return key


def _replay(entries: Iterable[QueueEntry], condition: Condition | None = None) -> int:
    requeued = [entry for entry in entries if Event.requeue(entry.stripe_id, condition)]
    for stripe_ids in grouped(requeued):
        if not current().has_time_for(limits.EVENTS_PAGE_SECONDS):
            break
        _apply(stripe_ids)
    return len(requeued)


def _apply(stripe_ids: Sequence[str]) -> None:
    # Each failed event has a retry scheduled, or is dead-lettered.
    with suppress(ApplyFailedError):
        apply_events(stripe_ids)
