"""Assigning unassigned customers by their metadata, at the end of a backfill.

The pages of customers leave a candidate for each unassigned one whose metadata names a user, under
the key that AdoptFrom has. When all are read, a user with exactly one candidate gets it, as by a
row of a mapping; the candidates of a user with several are reported, and remain unassigned.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import islice

from stripe_integrations import errors
from stripe_integrations.actions.account.mapping import Row, stage
from stripe_integrations.actions.account.page import (
    Finding,
    Json,
    Page,
    Result,
    unless_unreadable,
)
from stripe_integrations.actions.customers.adopt import named_user
from stripe_integrations.context import current
from stripe_integrations.models import Pointer, read_customer
from stripe_integrations.models.candidate import CANDIDATE_RETENTION, Candidate, digest_of
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import Run
from stripe_integrations.models.window import Window

_PAGE = 100
_LATEST = CANDIDATE_RETENTION - timedelta(days=1)
"""After this, some of a user's candidates may have expired, so that none is assigned."""


def note_candidates(page: Page, run: Run) -> None:
    """Store a candidate for each customer of a page whose metadata names a user.

    Raises
    ------
    DatabaseUnavailableError
        The page is to be read again.
    """
    named = {obj["id"]: user_id for obj in page.objects if (user_id := _named_by(obj))}
    pointers = Pointer.read_all(named)
    for stripe_id, user_id in named.items():
        pointer = pointers.get(stripe_id)
        if pointer and pointer.user_id is None and not pointer.is_erased:
            Candidate.store(run.run_id, user_id, stripe_id)


def assign_candidates(window: Window, run: Run) -> Page:
    """Give the next candidates to the users whom their metadata names.

    Raises
    ------
    StripeError, DatabaseUnavailableError, ConflictError
        The candidates are to be read again.
    """
    now = int(current().clock())
    page = Page([], Observation.of_event(now))
    previous = window.cursor_id.partition("#")[0] if window.cursor_id else None
    left = Candidate.of_run(run.run_id, str(window.digest_digit), after=window.cursor_id)
    candidates = list(islice(left, _PAGE + 1))
    is_late = current().now() - run.started_at > _LATEST
    next_digests = [candidate.digest for candidate in candidates[1:]]
    for candidate, next_digest in zip(candidates[:_PAGE], [*next_digests, None], strict=False):
        obstacle = None
        if is_late:
            obstacle = "the run started more than 29 days ago"
        elif candidate.digest in (previous, next_digest):
            obstacle = "several customers name this user in their metadata"
        assign = partial(_assign, candidate, run, obstacle)
        page.note(unless_unreadable(candidate.stripe_id, assign))
        previous = candidate.digest
    if len(candidates) > _PAGE:
        page.cursor = (0, candidates[_PAGE - 1].place)
    return page


def _assign(candidate: Candidate, run: Run, obstacle: str | None) -> Result | Finding:
    def attempt(_: int) -> Result | Finding:
        pointer = Pointer.read(candidate.stripe_id)
        if pointer is None or pointer.user_id is not None:
            return Result.UNCHANGED
        if pointer.is_erased:
            return Result.ERASED
        if obstacle:
            return _conflict(candidate, obstacle)
        record = read_customer(pointer.owner)
        if record is None:
            raise errors.StaleRecordError("the customer was assigned in the meantime")
        if not record.is_active:
            return Result.FROZEN
        user_id = named_user(record, record.metadata)
        if user_id is None or digest_of(user_id) != candidate.digest:
            return _conflict(candidate, "its metadata names no user who may have it")
        return stage(run, Row(user_id, candidate.stripe_id)) or Result.STAGED

    return retry_on_conflict(attempt)


def _named_by(obj: Json) -> str | None:
    key = current().settings.adopt_from
    user_id = value_at(obj, "metadata", key) if key else None
    return user_id if isinstance(user_id, str) and user_id else None


def _conflict(candidate: Candidate, reason: str) -> Finding:
    return Finding(candidate.stripe_id, Result.CONFLICT, reason)
