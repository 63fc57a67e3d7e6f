"""Lets Hypothesis choose the invocations, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.invariants import violations
from tests.fuzz.invocations import invocations
from tests.fuzz.stage import Stage, staged

BATCH = 20
"""Invocations of one of Hypothesis's examples: each example begins in a world as it was at first,
and what an invocation leaves there is met by those after it."""
BLOCK = 50
"""Batches of one run of Hypothesis, which holds in memory what it has tried."""
_LONGEST_NOTE = 2000
_process = ExitStack()


@dataclass
class Report:
    """How some batches went.

    Parameters
    ----------
    counts : Counter
        How often each function had which result, in the batches that held.
    failure : str or None
        Which invariants do not hold, with the invocations that show it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failure: str | None = None


def explore(
    stage: Stage, name: str, batches: int, phases: Sequence[Phase] = (Phase.generate, Phase.shrink)
) -> Report:
    """Play batches of invocations until one of them fails.

    Parameters
    ----------
    stage : Stage
        Where they are played.
    name : str
        The invocations follow from it: another name leads to others.
    batches : int
        How many.
    phases : sequence of hypothesis.Phase
        Whether Hypothesis looks for the shortest and simplest batch that fails, too.
    """
    report = Report()
    stage.at_first.restore()
    drawn = invocations(stage.world)

    @seed(name)
    @settings(
        max_examples=batches,
        phases=phases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def play_batch(data: st.DataObject) -> None:
        stage.at_first.restore()
        played = []
        for _ in range(BATCH):
            invocation = data.draw(drawn)
            outcome = stage.play(invocation)
            found = list(violations(invocation, outcome, stage.world))
            assert not found, "; ".join(found)
            played.append(f"{invocation.function:22} {outcome.summary}")
        report.counts.update(played)

    try:
        play_batch()
    except AssertionError as error:
        drawn_before = (note[:_LONGEST_NOTE] for note in getattr(error, "__notes__", ()))
        report.failure = "\n".join((str(error), *drawn_before))
    return report


def explore_block(seed: int, block: tuple[int, int]) -> Report:
    """Play the batches of a block, given by its number and their number, in this process."""
    number, batches = block
    return explore(_stage_of_process(), f"{seed} {number}", batches)


@cache
def _stage_of_process() -> Stage:
    return _process.enter_context(staged())
