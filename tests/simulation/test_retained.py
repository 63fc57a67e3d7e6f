"""The memory that a task holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.retained import retained_bytes
from simulation.schedule import Schedule, Task, current_task

MEGABYTE = 1024 * 1024


def held_by(body: Callable[[Task], None]) -> int:
    """What a task holds when it waits."""
    task = Task(Schedule(), lambda: body(current_task()))  # type: ignore[arg-type]
    task.switch()
    return retained_bytes(task)


class TestRetainedBytes:
    def test_counts_what_local_variables_refer_to(self) -> None:
        def hold(task: Task) -> None:
            _page: Any = {"objects": [bytes(MEGABYTE), (bytearray(MEGABYTE),)]}
            task.wait(1)

        assert 2 * MEGABYTE < held_by(hold) < 2 * MEGABYTE + 10_000

    def test_counts_what_waiting_callers_and_generators_hold(self) -> None:
        def pages(task: Task) -> Any:
            _page = bytes(MEGABYTE)
            task.wait(1)
            yield

        def hold(task: Task) -> None:
            _window = bytes(MEGABYTE)
            next(pages(task))

        assert 2 * MEGABYTE < held_by(hold) < 2 * MEGABYTE + 10_000

    def test_does_not_count_what_is_released(self) -> None:
        def hold(task: Task) -> None:
            page: Any = bytes(MEGABYTE)
            del page
            task.wait(1)

        assert held_by(hold) < 10_000
