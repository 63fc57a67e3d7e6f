"""Shrink a history that breaks a promise: fewer actions, fewer faults, a calmer fault profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from simulation.history import History
from simulation.world import Report, run_history

T = TypeVar("T")

MAX_SECONDS = 60.0

_CALM_PROFILE: dict[str, Any] = {"index_lag": 0.0, "list_lag": 0.0, "stream_off": (0.0, 0.0)}
_PLAIN_HISTORY: dict[str, Any] = {
    "has_bus": False,
    "endpoint_version": None,
    "emits_lost_defaults": True,
    "stores_optional_kinds": False,
    "checks_existing": False,
    "handled": (),
    "publish_types": (),
}


def minimise(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """A short part of a sequence that still fails, of which no single item can be left out.

    Follows delta debugging (Zeller and Hildebrandt, 2002): large chunks are left out first, then
    smaller ones. The order of the items stays.

    Parameters
    ----------
    items : sequence
        A sequence that fails.
    fails : callable
        Returns whether a part of it fails too.

    Examples
    --------
    >>> minimise(range(100), lambda part: 7 in part and 42 in part)
    [7, 42]
    """
    smallest = list(items)
    if not smallest or fails([]):
        return []
    size = max(len(smallest) // 2, 1)
    while True:
        start, found = 0, False
        while start < len(smallest):
            shorter = smallest[:start] + smallest[start + size :]
            if shorter and fails(shorter):
                smallest, found = shorter, True
            else:
                start += size
        if size == 1 and not found:
            return smallest
        size = max(size // 2, 1)


class Shrinker:
    """Shrinks one history.

    Parameters
    ----------
    history : History
        A history that breaks a promise.
    report : Report
        The report of its run.
    seconds : float
        How long to try.
    run : callable
        Runs a history.
    """

    def __init__(
        self,
        history: History,
        report: Report,
        seconds: float = MAX_SECONDS,
        run: Callable[[History], Report] = run_history,
    ) -> None:
        self._promise = report.violations[0].promise
        self._deadline = time.monotonic() + seconds
        self._run = run
        self.attempts = 0
        # Only faults that happened can be left out.
        self._best = replace(history, only=frozenset(report.happened))

    def shrink(self) -> History:
        """The shortest history found that breaks the same promise."""
        size = None
        while size != (size := self._size()) and not self._is_late():
            self._leave_out_faults()
            self._leave_out_actions()
            self._reset_settings()
        return self._best

    def _leave_out_faults(self) -> None:
        best = self._best
        faults = minimise(
            sorted(best.only or ()), lambda part: self._fails(replace(best, only=frozenset(part)))
        )
        self._best = replace(best, only=frozenset(faults))

    def _leave_out_actions(self) -> None:
        best = self._best
        actions = minimise(
            best.actions, lambda part: self._fails(replace(best, actions=tuple(part)))
        )
        if actions:
            self._best = replace(best, actions=tuple(actions))

    def _reset_settings(self) -> None:
        for field, default in _CALM_PROFILE.items():
            profile = replace(self._best.fault_profile, **{field: default})
            self._try(replace(self._best, fault_profile=profile))
        for field, default in _PLAIN_HISTORY.items():
            self._try(replace(self._best, **{field: default}))
        for field in ("handled", "publish_types"):
            for kind in getattr(self._best, field):
                rest: dict[str, Any] = {
                    field: tuple(other for other in getattr(self._best, field) if other != kind)
                }
                self._try(replace(self._best, **rest))
        for name in list(self._best.sizes):
            sizes = {other: size for other, size in self._best.sizes.items() if other != name}
            self._try(replace(self._best, sizes=sizes))

    def _try(self, candidate: History) -> None:
        if candidate != self._best and self._fails(candidate):
            self._best = candidate

    def _fails(self, history: History) -> bool:
        if self._is_late():
            return False
        self.attempts += 1
        violations = self._run(history).violations
        return any(violation.promise == self._promise for violation in violations)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _size(self) -> tuple[int, int]:
        return len(self._best.actions), len(self._best.only or ())


def describe(history: History) -> str:
    """A history in words: its actions, its faults, and the settings that are not the defaults."""
    lines = [f"  {action.at:12.3f} s  {action.name}  {action}" for action in history.actions]
    lines += [f"  fault: {fault}" for fault in sorted(history.only or ())]
    for owner, defaults in ((history.fault_profile, _CALM_PROFILE), (history, _PLAIN_HISTORY)):
        values = ((name, getattr(owner, name), default) for name, default in defaults.items())
        lines += [f"  {name}: {value}" for name, value, default in values if value != default]
    lines += [f"  {name}: {size}" for name, size in history.sizes.items()]
    return "\n".join(lines)
