"""Replay: events that have ended, well or badly, are applied again by what Stripe says now.

It is safe to run twice, and while new events come in: what an event is replayed for is fetched, and
written under the same rule as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.actions.events.reconcile import grouped
from stripe_integrations.context import current
from stripe_integrations.errors import EventNotFoundError, InvalidFieldError
from stripe_integrations.models import Event
from stripe_integrations.models.event import QueueEntry
from stripe_integrations.models.fields import is_text, value_at

_NEEDS_SECONDS = 45


@dataclass
class Replay:
    """What a replay has done.

    Parameters
    ----------
    replayed : int
        Events that were put back into the queue. Those that could not be applied at once are
        unfinished, and the schedule tries them again.
    resume_from : mapping or None
        Where to go on, with the same call, since the time did not suffice; None at the end.
    """

    replayed: int = 0
    resume_from: dict[str, Any] | None = None


def replay_one(stripe_id: str) -> Replay:
    """`StripeEvent.replay`."""
    if not Event.requeue(stripe_id):
        raise EventNotFoundError(f"there is no event {stripe_id}")
    apply_events([stripe_id])
    return Replay(replayed=1)


def replay_failed() -> Replay:
    """`StripeEvent.replay_failed`."""
    return Replay(replayed=_replay(list(Event.failed())))


def replay_created_between(
    earliest: int, latest: int, resume_from: dict[str, Any] | None
) -> Replay:
    """`StripeEvent.replay_created_between`."""
    done = Replay(resume_from=_place(resume_from))
    while True:
        entries, done.resume_from = Event.created_between(earliest, latest, done.resume_from)
        done.replayed += _replay(entries)
        if done.resume_from is None or current().remaining_seconds() < _NEEDS_SECONDS:
            return done


def _place(resume_from: Any) -> dict[str, Any] | None:
    """The key in the table that a scan is to go on from, as the call before this one gave it."""
    if resume_from is None:
        return None
    key = {name: {"S": value_at(resume_from, name, "S")} for name in ("pk", "sk")}
    if not all(is_text(part["S"]) for part in key.values()):
        raise InvalidFieldError("resume_from", "is not what a call before this one has returned")
    return key


def _replay(entries: Iterable[QueueEntry]) -> int:
    back = [entry for entry in entries if Event.requeue(entry.stripe_id)]
    for stripe_ids in grouped(back):
        if current().remaining_seconds() < _NEEDS_SECONDS:
            break
        apply_events(stripe_ids)
    return len(back)
