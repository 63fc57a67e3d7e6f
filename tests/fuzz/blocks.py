"""Cases are played in blocks: each begins in a world of its own, as everything was at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

from simulation.deployment import TABLE_NAME
from stripe_integrations.context import use
from tests.fuzz.cases import ADMIN_SCOPE, PEOPLE, Case, make
from tests.fuzz.judge import Outcome, broken
from tests.marked_world import MarkedWorld, Output, inhabited

BLOCK = 200
"""How many cases are played in one world."""
_SHOWN = 1500
_KEPT = ExitStack()


@dataclass
class Failure:
    """A case that broke a promise."""

    number: int
    what: list[str]
    told: str


@dataclass
class Report:
    """What came of a block."""

    counts: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


class Stage:
    """The world in which blocks are played, one after the other."""

    def __init__(self, world: MarkedWorld) -> None:
        self.world = world
        self.output = Output()
        with self.output.captured():
            for name in PEOPLE:
                world.furnish(name)
            world.settle()
        self.output.taken()
        self.at_first = world.saved()

    def play(self, case: Case) -> Outcome:
        """Call the function of a case."""
        world = self.world
        changes = world.database.stream(TABLE_NAME).records
        before, there = len(changes), _extent(world)
        world.context.settings = replace(world.settings, webhook_secret=case.webhook_secret)
        answer: Any = None
        error: BaseException | None = None
        with self.output.captured(), use(world.context):
            try:
                module = import_module(f"functions.{case.function}.app")
                answer = world.invoke(module, case.event, case.remaining_milliseconds)
            except Exception as raised:
                error = raised
                self.output.add_failure(raised)
        for message in (*world.dead_letters, *world.published):
            self.output.add(str({**message, "user_id": None}))
        world.dead_letters.clear()
        world.published.clear()
        return Outcome(
            answer, error, self.output.taken(), _changed(changes[before:]), _extent(world) - there
        )


@contextmanager
def staged() -> Iterator[Stage]:
    """A stage, which everything in this process plays on inside the block."""
    world = MarkedWorld(jwt_admin_scope=ADMIN_SCOPE)
    with inhabited(world):
        yield Stage(world)


@cache
def stage_of_process() -> Stage:
    """The stage of a process that does nothing else, for as long as it lives."""
    return _KEPT.enter_context(staged())


def play_block_here(seed: int, numbers: range) -> Report:
    """`play_block`, on the stage of this process."""
    return play_block(stage_of_process(), seed, numbers)


def play_block(stage: Stage, seed: int, numbers: range) -> Report:
    """Play the cases of these numbers, in a world as it was at first."""
    report = Report()
    for number, case, outcome in played(stage, seed, numbers):
        report.counts[f"{case.function:22} {case.kind}"] += 1
        report.verdicts[_verdict(case, outcome)] += 1
        what = list(broken(case, outcome, stage.world))
        if what:
            report.failures.append(Failure(number, what, told(case, outcome)))
    return report


def played(stage: Stage, seed: int, numbers: range) -> Iterator[tuple[int, Case, Outcome]]:
    """Each case with what came of it."""
    stage.at_first.restore()
    for number in numbers:
        stage.world.time += number % 7 / 3
        case = make(stage.world, seed, number)
        yield number, case, stage.play(case)


def told(case: Case, outcome: Outcome) -> str:
    """A case in words, cut where it is long."""
    told_event = ascii(case.event)
    if len(told_event) > _SHOWN:
        told_event = f"{told_event[:_SHOWN]}… ({len(told_event)})"
    answer = ascii(outcome.answer)[:_SHOWN]
    return f"{case.function}, {case.kind}: {told_event}\n  => {outcome.error or answer}"


def _verdict(case: Case, outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"{case.function:22} {type(outcome.error).__name__}"
    return f"{case.function:22} {outcome.status or 'done'} {outcome.problem or ''}".rstrip()


def _extent(world: MarkedWorld) -> int:
    return len(world.stripe.account.customers) + len(world.stripe.account.events)


def _changed(changes: Any) -> dict[tuple[str, str], tuple[Any, Any]]:
    """What is not as it was, of what was written meanwhile."""
    net: dict[tuple[str, str], tuple[Any, Any]] = {}
    for record in changes:
        change = record["dynamodb"]
        key = change["Keys"]["pk"]["S"], change["Keys"]["sk"]["S"]
        first = net[key][0] if key in net else change.get("OldImage")
        net[key] = first, change.get("NewImage")
    return {key: (old, new) for key, (old, new) in net.items() if old != new}
