"""Run histories and check the invariants.

python -m simulation --histories 1000 --seed 1
python -m simulation --seed 34 --verbose   # one history, every step in words
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from simulation.history import generate
from simulation.runtime import HASH_SEED
from simulation.shrink import Shrinker, describe
from simulation.world import Report, run_history, run_seed

_MAX_SHRUNK = 3
_CHUNK = 5


def main() -> int:
    """Run the histories that the command line selects; returns the exit code."""
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        arguments = [sys.executable, "-m", "simulation", *sys.argv[1:]]
        os.execv(sys.executable, arguments)  # noqa: S606 - this program itself
    if options.verbose:
        return _print_history(options.seed)
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    seconds, number, broken = 0.0, 0, 0
    for report in _reports(options):
        number += 1
        seconds += report.seconds
        counts += report.counts
        if report.violations:
            broken += 1
            _print_violations(report, options, shrinks=broken <= _MAX_SHRUNK)
            if options.first:
                break
        elif sys.stderr.isatty():
            print(f"\r{number} histories", end="", file=sys.stderr)
    _summarise(counts, number, seconds, time.monotonic() - begun)
    print(f"{number} histories, {broken} violations")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=1000, help="number of histories")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first history")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument(
        "--verbose", action="store_true", help="print every step of the first history"
    )
    parser.add_argument("--shrink", type=float, default=60.0, help="seconds for each violation")
    return parser.parse_args()


def _reports(options: argparse.Namespace) -> Iterator[Report]:
    seeds = range(options.seed, options.seed + options.histories)
    if options.jobs <= 1 or options.histories == 1:
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        yield from pool.imap(run_seed, seeds, chunksize=_CHUNK)


def _print_history(seed: int) -> int:
    report = run_history(generate(seed), verbose=True)
    print("\n".join(report.log))
    for violation in report.violations:
        print(f"violation: {violation}")
    print(f"trace {report.trace}")
    return 1 if report.violations else 0


def _print_violations(report: Report, options: argparse.Namespace, *, shrinks: bool) -> None:
    print(f"\nviolation in the history of seed {report.seed}:")
    for violation in report.violations:
        print(f"  {violation}")
    print(f"run it again: make simulate SEED={report.seed} HISTORIES=1", flush=True)
    if not shrinks or not options.shrink:
        return
    shrinker = Shrinker(generate(report.seed), report, options.shrink)
    short = shrinker.shrink()
    print(f"shrunk, in {shrinker.attempts} attempts, to:")
    print(describe(short))
    for violation in run_history(short).violations:
        print(f"  => {violation}", flush=True)


def _summarise(counts: Counter[str], number: int, seconds: float, elapsed: float) -> None:
    print(f"\n{'what':44} {'times':>9}")
    for what, times in sorted(counts.items()):
        if times:
            print(f"{what:44} {times:9}")
    if seconds:
        print(
            f"{number / seconds:.1f} histories a second and core, "
            f"{number / elapsed:.1f} a second in all"
        )


if __name__ == "__main__":
    raise SystemExit(main())
