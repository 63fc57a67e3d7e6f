"""Virtual time: a queue of callbacks by time, and tasks that yield at every wait.

There are no threads and no sleeps. A task is a greenlet; while it waits, what is due earlier runs,
so the drawn latencies alone decide which task runs next.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

START = 1_800_000_000.0
"""Unix time of the start of a history."""


class KilledError(BaseException):
    """A killed process; no ``except Exception`` of the product catches it."""


class Schedule:
    """Callbacks in the order of their times; those of one time in the order of their addition.

    Parameters
    ----------
    start : float
        Unix time of the start.

    Attributes
    ----------
    now : float
        The current Unix time in seconds.
    """

    def __init__(self, start: float = START) -> None:
        self.now = start
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Run an action at a time, or now if that time has passed."""
        heapq.heappush(self._queue, (max(moment, self.now), next(self._numbers), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Run an action after so many seconds."""
        self.at(self.now + seconds, action)

    def run(self, should_continue: Callable[[], bool] = lambda: True) -> None:
        """Run all actions in order until none is left or ``should_continue`` returns False."""
        while self._queue and should_continue():
            self.now, _, action = heapq.heappop(self._queue)
            action()


class Task(greenlet):  # type: ignore[misc]
    """A thread of control in virtual time.

    Parameters
    ----------
    schedule : Schedule
        The schedule of its waits.
    body : callable
        The function that it runs.
    """

    def __init__(self, schedule: Schedule, body: Callable[[], None]) -> None:
        super().__init__(body)
        self._schedule = schedule
        self._is_killed = False

    def wait(self, seconds: float) -> None:
        """Wait for so many seconds; called by the task itself.

        Raises
        ------
        KilledError
            The task was killed.
        """
        if self._is_killed:
            raise KilledError
        self._schedule.after(seconds, self._resume)
        self.parent.switch()

    def kill(self) -> None:
        """Raise `KilledError` where the task waits; called from outside the task."""
        if not self.dead:
            self._is_killed = True
            self.throw(KilledError)

    def _resume(self) -> None:
        if not self.dead:
            self.switch()


def current_task() -> Task | None:
    """The running task, or None."""
    running = getcurrent()
    return running if isinstance(running, Task) else None
