"""Virtual time: a queue of what happens when, and tasks that give way at every wait.

There are no threads and nobody sleeps. A task is a greenlet; while it waits, whatever is due
earlier goes on, so the drawn latencies alone decide who goes next.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

START = 1_800_000_000.0
"""Unix time of the first thing that happens in a history."""


class KilledError(BaseException):
    """The death of a process: no ``except Exception`` of the product stops it."""


class Schedule:
    """What is to happen, in the order of its time; of one time, in the order it was put in.

    Parameters
    ----------
    start : float
        Unix time at which it begins.

    Attributes
    ----------
    now : float
        Unix time in seconds.
    """

    def __init__(self, start: float = START) -> None:
        self.now = start
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Let something happen at a time; one that has passed is now."""
        heapq.heappush(self._queue, (max(moment, self.now), next(self._numbers), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen so many seconds from now."""
        self.at(self.now + seconds, action)

    def run(self, should_continue: Callable[[], bool] = lambda: True) -> None:
        """Let happen what is due, until nothing is left or it is not to go on."""
        while self._queue and should_continue():
            self.now, _, action = heapq.heappop(self._queue)
            action()


class Task(greenlet):  # type: ignore[misc]
    """A thread of control in virtual time.

    Parameters
    ----------
    schedule : Schedule
        Where its waits are queued.
    body : callable
        What it does.
    """

    def __init__(self, schedule: Schedule, body: Callable[[], None]) -> None:
        super().__init__(body)
        self._schedule = schedule
        self._is_killed = False

    def wait(self, seconds: float) -> None:
        """Give way for so long; called from within the task.

        Raises
        ------
        KilledError
            The task was killed; it can wait no more.
        """
        if self._is_killed:
            raise KilledError
        self._schedule.after(seconds, self._resume)
        self.parent.switch()

    def kill(self) -> None:
        """End the task where it waits; called from outside of it."""
        if not self.dead:
            self._is_killed = True
            self.throw(KilledError)

    def _resume(self) -> None:
        if not self.dead:
            self.switch()


def current_task() -> Task | None:
    """The task that is running, None outside of all."""
    running = getcurrent()
    return running if isinstance(running, Task) else None
