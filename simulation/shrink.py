"""Makes a history that breaks a promise short: fewer actions, fewer faults, finer profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from simulation.history import History
from simulation.world import Report, run_history

T = TypeVar("T")

LONGEST_SECONDS = 60.0

_CALM_PROFILE: dict[str, Any] = {"index_lag": 0.0, "list_lag": 0.0, "stream_off": (0.0, 0.0)}
_PLAIN_HISTORY: dict[str, Any] = {
    "has_bus": False,
    "endpoint_version": None,
    "emits_lost_defaults": True,
}


def minimise(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """A short part of a sequence that still fails, in its order: none of it can be left out alone.

    Follows delta debugging (Zeller and Hildebrandt, 2002): whole chunks are left out first, then
    smaller ones.

    Parameters
    ----------
    items : sequence
        What fails as a whole.
    fails : callable
        Whether a part of it fails too.

    Examples
    --------
    >>> minimise(range(100), lambda part: 7 in part and 42 in part)
    [7, 42]
    """
    kept = list(items)
    if not kept or fails([]):
        return []
    size = max(len(kept) // 2, 1)
    while True:
        start, found = 0, False
        while start < len(kept):
            rest = kept[:start] + kept[start + size :]
            if len(rest) < len(kept) and rest and fails(rest):
                kept, found = rest, True
            else:
                start += size
        if size == 1 and not found:
            return kept
        size = max(size // 2, 1)


class Shrinker:
    """Shrinks one history.

    Parameters
    ----------
    history : History
        It breaks a promise.
    report : Report
        What came of it.
    seconds : float
        For how long to try.
    run : callable
        Plays a history.
    """

    def __init__(
        self,
        history: History,
        report: Report,
        seconds: float = LONGEST_SECONDS,
        run: Callable[[History], Report] = run_history,
    ) -> None:
        self._promise = report.violations[0].promise
        self._deadline = time.monotonic() + seconds
        self._run = run
        self.tried = 0
        # What did happen is all that can be left out.
        self._best = replace(history, only=frozenset(report.happened))

    def shrink(self) -> History:
        """The shortest history found that breaks the same promise."""
        size = None
        while size != (size := self._size()) and not self._is_late():
            self._leave_out_faults()
            self._leave_out_actions()
            self._reduce_profile()
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

    def _reduce_profile(self) -> None:
        for field, usual in _CALM_PROFILE.items():
            profile = replace(self._best.fault_profile, **{field: usual})
            self._try(replace(self._best, fault_profile=profile))
        for field, usual in _PLAIN_HISTORY.items():
            self._try(replace(self._best, **{field: usual}))
        for kind in self._best.handled:
            rest = tuple(other for other in self._best.handled if other != kind)
            self._try(replace(self._best, handled=rest))
        for name in list(self._best.sizes):
            sizes = {other: size for other, size in self._best.sizes.items() if other != name}
            self._try(replace(self._best, sizes=sizes))

    def _try(self, candidate: History) -> None:
        if candidate != self._best and self._fails(candidate):
            self._best = candidate

    def _fails(self, history: History) -> bool:
        if self._is_late():
            return False
        self.tried += 1
        violations = self._run(history).violations
        return any(violation.promise == self._promise for violation in violations)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _size(self) -> tuple[int, int]:
        return len(self._best.actions), len(self._best.only or ())


def describe(history: History) -> str:
    """A history in words: what is done when, and what goes wrong."""
    profile = history.fault_profile
    lines = [f"  {action.at:12.3f} s  {action.name}  {action}" for action in history.actions]
    lines += [f"  goes wrong: {fault}" for fault in sorted(history.only or ())]
    if profile.index_lag:
        lines.append(f"  the index lags behind by up to {profile.index_lag} s")
    if profile.list_lag:
        lines.append(f"  Stripe lists events up to {profile.list_lag} s late")
    if profile.stream_off != (0.0, 0.0):
        lines.append("  the stream is off from {:.0f} s to {:.0f} s".format(*profile.stream_off))
    if history.endpoint_version:
        lines.append(f"  the endpoint's API version is {history.endpoint_version}")
    if history.has_bus:
        lines.append("  applied changes are published")
    if not history.emits_lost_defaults:
        lines.append("  no event tells of the defaults that go with a removed card")
    if history.handled:
        lines.append(f"  own handlers are there for {', '.join(history.handled)}")
    lines += [f"  {name}: {size}" for name, size in history.sizes.items()]
    return "\n".join(lines)
