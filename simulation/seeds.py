"""From a seed to a report; what the worker processes run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from simulation.history import generate
from simulation.runtime import hooks
from simulation.world import Report, play


@dataclass
class Played:
    """One history that was played.

    Parameters
    ----------
    seed : int
        The history's.
    report : Report
        What came of it.
    seconds : float
        Of the processor's time.
    """

    seed: int
    report: Report
    seconds: float


def play_seed(seed: int) -> Played:
    """Play the history of a seed."""
    hooks()
    begun = time.process_time()
    report = play(generate(seed))
    return Played(seed, report, time.process_time() - begun)
