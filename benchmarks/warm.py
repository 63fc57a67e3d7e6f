"""Processor time of invocations of a warm process, compared with others that do the same work.

The program prints the results as JSON::

    python -m benchmarks.warm --rounds 5
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from contextlib import ExitStack
from typing import Any

from benchmarks.rig import Rig, Variant
from benchmarks.spread import Spread, ratios

Json = dict[str, Any]

COMPARED_WITH = {
    "get_customer": "bare",
    "link_customer": "bare",
    "apply_event": "bare",
    "create_customer": "usual",
    "update_customer": "usual",
}
"""The functions that are measured, and what each is compared with."""

INVOCATIONS = 12
"""Invocations of each process in each round."""
_WARM_UP = 3


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", action="store_true", help="measure the older commit too")
    options = parser.parse_args()
    print(json.dumps(measure(options.rounds, has_base=options.base)))


def measure(rounds: int, *, has_base: bool) -> Json:
    """Invoke processes in turns; returns the medians of the means of rounds, and their ratios.

    Parameters
    ----------
    rounds : int
        How many rounds of invocations there are, each with a mean per process.
    has_base : bool
        Whether the functions of an older commit were built, to be measured too.
    """
    results = {}
    for function, other in COMPARED_WITH.items():
        kinds = ["product", other, *(["base"] if has_base else [])]
        measured = _measure(function, kinds, rounds)
        results[function] = {
            "cpu_ms": Spread.of(measured["product"]).as_json(),
            f"by_{other}": ratios(measured["product"], measured[other]).as_json(),
        }
        if has_base:
            by_base = ratios(measured["product"], measured["base"])
            results[function]["by_base"] = by_base.as_json()
    return results


def _measure(function: str, kinds: list[str], rounds: int) -> dict[str, list[float]]:
    """The mean milliseconds of each kind in each round."""
    variants = [Variant(function, kind) for kind in kinds]
    needed = (rounds * INVOCATIONS + _WARM_UP) * len(variants)
    rig = Rig(customers=needed)
    means: defaultdict[str, list[float]] = defaultdict(list)
    with rig.running(), ExitStack() as running:
        processes = {v: running.enter_context(rig.process(v)) for v in variants}

        def invoke_in_turns(invocations: int) -> defaultdict[str, float]:
            used: defaultdict[str, float] = defaultdict(float)
            for _ in range(invocations):
                for variant, process in processes.items():
                    _, before, after = process.invoke(rig.event(variant))
                    used[variant.kind] += after.cpu - before.cpu
            return used

        invoke_in_turns(_WARM_UP)
        for _ in range(rounds):
            for kind, seconds in invoke_in_turns(INVOCATIONS).items():
                means[kind].append(seconds * 1000 / INVOCATIONS)
    return means


if __name__ == "__main__":
    main()
