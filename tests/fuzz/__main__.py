"""Invokes all functions with what no caller should send, and checks what holds of every invocation.

python -m tests.fuzz --cases 20000 --seed 1
python -m tests.fuzz --seed 1 --block 7   # one block of them again
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

from tests.fuzz.explore import BATCH, BLOCK, Report, explore_block


def main() -> int:
    """Run the invocations that the command line selects; returns the exit code."""
    options = _options()
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    failure = None
    for number, report in _reports(options):
        counts += report.counts
        failure = report.failure
        if failure:
            _print(f"{failure}\nagain: make fuzz SEED={options.seed} BLOCK={number}")
            break
    for what, times in sorted(counts.items()):
        _print(f"{what:50} {times:9}")
    _print(f"\n{counts.total() / (time.monotonic() - begun):.0f} cases a second")
    _print(f"{counts.total()} cases, {1 if failure else 0} failures")
    return 1 if failure or not counts else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many, or a few more")
    parser.add_argument("--seed", type=int, default=1, help="other cases for each")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--block", type=int, help="only this one")
    return parser.parse_args()


def _reports(options: argparse.Namespace) -> Iterator[tuple[int, Report]]:
    explore = partial(explore_block, options.seed)
    if options.block is not None:
        yield options.block, explore((options.block, BLOCK))
        return
    batches = -(-options.cases // BATCH)
    sizes = [min(BLOCK, batches - first) for first in range(0, batches, BLOCK)]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        yield from enumerate(pool.imap(explore, enumerate(sizes)))


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is what the command is for


if __name__ == "__main__":
    raise SystemExit(main())
