from __future__ import annotations

from simulation.schedule import START, KilledError, Schedule, Task


def test_due_order() -> None:
    schedule = Schedule()
    seen: list[str] = []
    schedule.after(2, lambda: seen.append("late"))
    schedule.after(1, lambda: seen.append("first"))
    schedule.after(1, lambda: seen.append("second"))
    schedule.run()
    assert seen == ["first", "second", "late"]
    assert schedule.now == START + 2


def test_tasks_take_turns() -> None:
    schedule = Schedule()
    seen: list[str] = []

    def body(name: str, pause: float) -> None:
        for step in range(3):
            tasks[name].wait(pause)
            seen.append(f"{name}{step}")

    tasks = {
        "a": Task(schedule, lambda: body("a", 1.0)),
        "b": Task(schedule, lambda: body("b", 1.5)),
    }
    for task in tasks.values():
        schedule.after(0, task.switch)
    schedule.run()
    assert seen == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_killed_task_ends_where_it_waits() -> None:
    schedule = Schedule()
    seen: list[str] = []

    def body() -> None:
        try:
            task.wait(10)
            seen.append("went on")
        finally:
            try:
                task.wait(1)
            except KilledError:
                seen.append("no more waiting")

    def start() -> None:
        task.switch()

    def kill() -> None:
        try:
            task.kill()
        except KilledError:
            seen.append("killed")

    task = Task(schedule, body)
    schedule.after(0, start)
    schedule.after(5, kill)
    schedule.run()
    assert seen == ["no more waiting", "killed"]
    assert task.dead
