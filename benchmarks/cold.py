"""A new process of each function: its INIT, and its first invocation.

The program prints the results as JSON; with ``--imports``, how many modules are imported, and with
``--profile``, how long the imports of each package take::

    python -m benchmarks.cold --rounds 7
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.bundles import functions
from benchmarks.rig import Rig, Variant
from benchmarks.spread import Spread, ratios

Json = dict[str, Any]

BARE = Variant("get_customer", "bare")
_PROFILED = (
    *(Variant("get_customer"), BARE),
    *(Variant("create_customer"), Variant("create_customer", "usual")),
)
_STANDARD_LIBRARY, _REST = "the standard library", "everything but imports"
_USUAL = ("get_customer", "create_customer", "update_customer", "link_customer")
_FULL_VCPU = 1769
"""The memory in MB that has one vCPU."""
MODELED = (512, _FULL_VCPU)


@dataclass(frozen=True)
class Start:
    """One cold start.

    Parameters
    ----------
    init_wall, init_cpu, first_wall, first_cpu : float
        Milliseconds of the INIT and of the first invocation.
    memory : float
        The peak in MB.
    """

    init_wall: float
    init_cpu: float
    first_wall: float
    first_cpu: float
    memory: float

    @property
    def cpu(self) -> float:
        """Processor time of both."""
        return self.init_cpu + self.first_cpu

    def latency(self, memory: int) -> float:
        """Return the modeled latency without waits for other services, in milliseconds.

        An INIT has a full vCPU whatever the memory is.
        """
        return self.init_cpu + self.first_cpu / vcpus(memory)


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.imports:
        print(json.dumps(count_imports()))
    else:
        print(json.dumps((profile if options.profile else measure)(options.rounds)))


def vcpus(memory: int) -> float:
    """Return the share of a vCPU that an invocation has with a memory in MB, at most one.

    Follows https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
    """
    return min(1.0, memory / _FULL_VCPU)


def variants() -> list[Variant]:
    """Return what is measured; a bare handler comes after the function whose calls it repeats."""
    found = [Variant(function.name) for function in functions()]
    for name in ("get_customer", "link_customer"):
        found.insert(found.index(Variant(name)) + 1, Variant(name, "bare"))
    for kind in ("usual", "usual, sam build"):
        found += [Variant(name, kind) for name in _USUAL]
    return found


def measure(rounds: int) -> Json:
    """Start each variant once in each round; returns medians, spreads and ratios within a round."""
    starts: defaultdict[str, list[Start]] = defaultdict(list)
    rig = Rig(customers=rounds * len(variants()))
    with rig.running():
        for _ in range(rounds):
            for variant in variants():
                starts[variant.name].append(_start(rig, variant))
    return {name: _summary(each, starts[BARE.name]) for name, each in starts.items()}


def _start(rig: Rig, variant: Variant) -> Start:
    event = rig.event(variant)
    with rig.process(variant) as process:
        _, before, after = process.invoke(event)
        return Start(
            init_wall=(process.ready.wall - process.started.wall) * 1000,
            init_cpu=process.ready.cpu * 1000,
            first_wall=(after.wall - before.wall) * 1000,
            first_cpu=(after.cpu - before.cpu) * 1000,
            memory=after.memory / 2**20,
        )


def _summary(starts: list[Start], bare: list[Start]) -> Json:
    return {
        "init_wall_ms": Spread.of(start.init_wall for start in starts).as_json(),
        "init_cpu_ms": Spread.of(start.init_cpu for start in starts).as_json(),
        "first_wall_ms": Spread.of(start.first_wall for start in starts).as_json(),
        "first_cpu_ms": Spread.of(start.first_cpu for start in starts).as_json(),
        "memory_mb": Spread.of(start.memory for start in starts).as_json(),
        "latency_ms": {
            str(memory): Spread.of(start.latency(memory) for start in starts).as_json()
            for memory in MODELED
        },
        "cpu_by_bare": ratios([s.cpu for s in starts], [s.cpu for s in bare]).as_json(),
        "first_cpu_by_bare": ratios(
            [s.first_cpu for s in starts], [s.first_cpu for s in bare]
        ).as_json(),
    }


def count_imports() -> dict[str, Json]:
    """Count the imports of each INIT and of each first call, and the lines of a second call."""
    counted = {}
    rig = Rig(customers=2 * len(functions()))
    with rig.running():
        for function in functions():
            variant = Variant(function.name)
            with rig.process(variant, traces_imports=True) as process:
                _, before, after = process.invoke(rig.event(variant))
                _, warm_before, warm_after = process.invoke(rig.event(variant))
                counted[function.name] = {
                    "init": process.ready.imports,
                    "first": after.imports - before.imports,
                    "log_lines": warm_after.log_lines - warm_before.log_lines,
                }
    return counted


def profile(rounds: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of an INIT by the package whose imports take them: medians."""
    times: defaultdict[str, list[defaultdict[str, float]]] = defaultdict(list)
    rig = Rig(customers=rounds * len(_PROFILED))
    with rig.running():
        for _ in range(rounds):
            for variant in _PROFILED:
                with rig.process(variant, traces_imports=True) as process:
                    used: defaultdict[str, float] = defaultdict(float)
                    for module, seconds in process.import_seconds().items():
                        used[_package(module)] += seconds * 1000
                    whole = process.ready.wall - process.started.wall
                    used[_REST] = whole * 1000 - sum(used.values())
                    times[variant.name].append(used)
    return {
        name: {
            package: round(median(used[package] for used in each), 1)
            for package in sorted(set().union(*each))
        }
        for name, each in times.items()
    }


def _package(module: str) -> str:
    name = module.partition(".")[0]
    if name in sys.stdlib_module_names or name.startswith("_"):
        return _STANDARD_LIBRARY
    return name


if __name__ == "__main__":
    main()
