from __future__ import annotations

from collections.abc import Sequence

from simulation.history import Action, History
from simulation.shrink import Shrinker, describe, minimise
from simulation.watch import Violation
from simulation.world import Report


def test_minimise_keeps_what_it_takes_and_nothing_else() -> None:
    def fails(part: Sequence[int]) -> bool:
        return 7 in part and 42 in part

    assert minimise(range(100), fails) == [7, 42]


def test_minimise_leaves_nothing_where_nothing_is_needed() -> None:
    assert minimise(range(10), lambda _: True) == []


def test_a_history_shrinks_to_the_action_and_the_fault_that_break_the_promise() -> None:
    actions = tuple(Action(f"a{number:02}", number, "get", 0) for number in range(12))
    broken = Report([Violation("a promise", "detail")], happened=["f1", "f2", "f3"])

    def run(history: History) -> Report:
        names = {action.name for action in history.actions}
        guilty = "a07" in names and "f2" in (history.only or ())
        return broken if guilty else Report()

    short = Shrinker(History(1, actions), broken, seconds=5, run=run).shrink()
    assert [action.name for action in short.actions] == ["a07"]
    assert short.only == {"f2"}
    assert "f2" in describe(short)


def test_only_the_same_promise_counts() -> None:
    actions = (Action("a00", 0, "get", 0), Action("a01", 1, "get", 0))
    first = Report([Violation("a promise", "")])
    other = Report([Violation("another promise", "")])

    def run(history: History) -> Report:
        return first if len(history.actions) == 2 else other

    short = Shrinker(History(1, actions), first, seconds=5, run=run).shrink()
    assert short.actions == actions
