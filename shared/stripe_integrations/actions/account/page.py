"""One page of one of Stripe's lists, and what became of its objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from stripe_integrations import errors
from stripe_integrations.context import current
from stripe_integrations.models.difference import DifferenceKind
from stripe_integrations.models.observation import Observation

Json = Mapping[str, Any]

_SECONDS = 45
"""A page whose objects take several calls ends after the object that exceeds this."""


class Result(StrEnum):
    """What became of an object."""

    STAGED = "staged"
    """A row of the mapping, or a customer whose metadata names a user: the user has it now."""
    REFUSED = "refused"
    """A row of the mapping that is invalid."""
    STORED = "stored"
    """It was not stored before."""
    UPDATED = "updated"
    """The stored state was older."""
    UNCHANGED = "unchanged"
    """The stored state was the same, or a later one."""
    FETCHED = "fetched"
    """Which state was newer was ambiguous, or not all was on the page: its customer was fetched."""
    FROZEN = "frozen"
    """Its customer's record is soft-deleted."""
    ERASED = "erased"
    """Its customer was erased: nothing of it is stored."""
    UNASSIGNED = "unassigned"
    """No user has its customer, and such customers are not stored."""
    FOREIGN = "foreign"
    """Its metadata has the token of another deployment."""
    ENDED = "ended"
    """A subscription that has ended, of a customer that is not stored."""
    UNREADABLE = "unreadable"
    """It could not be stored; the report says why."""
    RELEASED = "released"
    """A run that is undone had given it to a user."""
    CONFLICT = "conflict"
    """Another user has the customer, or the user of the row has another one."""
    WRITTEN = "written"
    """Our metadata is on Stripe."""
    NOT_WRITTEN = "not-written"
    """Our metadata is not on Stripe; the report says why."""
    SUSPECTED = "suspected"
    """A verification has seen a difference, which it has not checked yet."""


@dataclass(frozen=True)
class Finding:
    """A line of a run's report.

    Parameters
    ----------
    stripe_id : str
        The Stripe object.
    result : Result or DifferenceKind
        What became of it, or how it differs.
    reason : str
        Why: the type of an error, or the names of fields, and no value.
    """

    stripe_id: str
    result: Result | DifferenceKind
    reason: str


UNREADABLE = (
    errors.DatabaseRefusedError,
    errors.NewerSchemaError,
    errors.StripeRefusedError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)
"""What concerns one object alone, and would fail again."""


def unless_unreadable(stripe_id: str, process: Callable[[], Result | Finding]) -> Result | Finding:
    """Process an object; one that can't be read or written is a finding, and stops no run."""
    try:
        return process()
    except UNREADABLE as error:
        return Finding(stripe_id, Result.UNREADABLE, type(error).__name__)


@dataclass
class Page:
    """Some objects of a list, newest first, and when Stripe had these states.

    Parameters
    ----------
    objects : sequence of mapping
        Stripe's objects.
    observation : Observation
        The interval of the request.
    cursor : tuple, int or None
        Where the list continues, as `Window.advance` takes it.
    cursor_second_ids : sequence of str
        Only of a verification: the ids that were read so far of the second in which it continues.
    """

    objects: Sequence[Json]
    observation: Observation
    cursor: tuple[int, str | None] | int | None = None
    cursor_second_ids: Sequence[str] = ()
    results: Counter[Result | DifferenceKind] = field(default_factory=Counter, init=False)
    findings: list[Finding] = field(default_factory=list, init=False)

    def process(self, process: Callable[[Json], Result | Finding]) -> None:
        """Process objects that take several calls each, and leave the rest to the next page.

        A page takes 45 seconds at most, and one object more.

        Parameters
        ----------
        process : callable
            Takes an object, and returns its result.
        """
        ends_at = current().clock() + _SECONDS
        for number, obj in enumerate(self.objects, 1):
            self.note(unless_unreadable(obj["id"], partial(process, obj)))
            if current().clock() > ends_at and number < len(self.objects):
                self._end_after(number)
                return

    def _end_after(self, number: int) -> None:
        self.objects = self.objects[:number]
        last = self.objects[-1]
        self.cursor = (int(last["created"]), str(last["id"]))

    def note(self, outcome: Result | Finding) -> None:
        """Count an object, and report it if it is a finding."""
        if isinstance(outcome, Finding):
            self.findings.append(outcome)
            self.results[outcome.result] += 1
        else:
            self.results[outcome] += 1
