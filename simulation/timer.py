"""The schedule of `reconcile_events`: every few minutes while anything changes."""

from __future__ import annotations

from collections.abc import Callable

from simulation.chance import chance
from simulation.processes import Fleet, Outcome
from simulation.schedule import Schedule

FUNCTION = "reconcile_events"
EVERY_SECONDS = 300.0

_RUNS_AFTER_LAST_CHANGE = 2
_LATEST_LISTED_SECONDS = 310.0
_TWICE = 0.05


class Timer:
    """Invokes the function on a schedule, at times twice at once.

    Parameters
    ----------
    schedule : Schedule
        Virtual time.
    seed : int
        The seed of the history.
    fleet : Fleet
        The processes of the function.
    longest_pause : callable
        Returns the maximum pause between two runs now, in seconds.
    on_ended : callable
        Called with the outcome of each run.
    """

    def __init__(
        self,
        schedule: Schedule,
        seed: int,
        fleet: Fleet,
        longest_pause: Callable[[], float],
        on_ended: Callable[[Outcome], None],
    ) -> None:
        self._schedule = schedule
        self._seed = seed
        self._fleet = fleet
        self._longest_pause = longest_pause
        self._on_ended = on_ended
        self._pause = EVERY_SECONDS
        self._number = 0
        self._next = 0
        self._ended: list[float] = []

    def reset_pause(self) -> None:
        """Return to the regular interval after a change."""
        if self._pause > EVERY_SECONDS:
            self._pause = EVERY_SECONDS
            self._plan(EVERY_SECONDS * chance(self._seed, "reset pause", self._number).random())

    def has_run_since(self, moment: float) -> bool:
        """Return whether enough runs began after Stripe listed all events of that moment."""
        since = moment + _LATEST_LISTED_SECONDS
        # Of two concurrent runs only one sweeps, so they count as one.
        return len({begun for begun in self._ended if begun > since}) >= _RUNS_AFTER_LAST_CHANGE

    def _plan(self, seconds: float) -> None:
        self._next += 1
        number = self._next
        self._schedule.after(seconds, lambda: self.run() if number == self._next else None)

    def run(self) -> None:
        """Call the function now, as after a deployment, and at intervals from then on."""
        self._number += 1
        name = f"schedule {self._number}"
        begun = self._schedule.now
        twice = chance(self._seed, name).random() < _TWICE

        def then(outcome: Outcome) -> None:
            if not outcome.died and not outcome.error:
                self._ended.append(begun)
            self._on_ended(outcome)

        for _ in range(1 + twice):
            self._fleet.invoke(FUNCTION, {}, name, then)
        self._pause = min(self._pause * 2, self._longest_pause())
        self._plan(self._pause)
