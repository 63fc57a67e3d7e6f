"""Calls all functions with what nobody should send, and judges what they do.

python -m tests.fuzz --cases 20000 --seed 1
python -m tests.fuzz --seed 1 --case 1234   # one of them again, and those before it in its world
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

from tests.fuzz.blocks import BLOCK, Report, play_block_here, played, stage_of_process, told
from tests.fuzz.judge import broken

_SHOWN_AT_MOST = 10


def main() -> int:
    """Play what the command line asks for; the exit code."""
    options = _options()
    if options.case is not None:
        return _play_one(options.seed, options.case)
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    failed = 0
    for report in _reports(options):
        counts += report.counts
        verdicts += report.verdicts
        for failure in report.failures:
            failed += 1
            if failed <= _SHOWN_AT_MOST:
                _say(f"\ncase {failure.number}: {'; '.join(failure.what)}\n  {failure.told}")
                _say(f"again: make fuzz SEED={options.seed} CASE={failure.number}")
    _summarise("what was sent", counts)
    _summarise("what came of it", verdicts)
    total = counts.total()
    _say(f"\n{total / (time.monotonic() - begun):.0f} cases a second")
    _say(f"{total} cases, {failed} failures")
    return 1 if failed or not total else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="other cases for each")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--case", type=int, help="only this one, told")
    return parser.parse_args()


def _reports(options: argparse.Namespace) -> Iterator[Report]:
    blocks = [
        range(first, min(first + BLOCK, options.cases)) for first in range(0, options.cases, BLOCK)
    ]
    play = partial(play_block_here, options.seed)
    if options.jobs <= 1:
        yield from map(play, blocks)
        return
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        yield from pool.imap(play, blocks)


def _play_one(seed: int, wanted: int) -> int:
    for number, case, outcome in played(
        stage_of_process(), seed, range(wanted // BLOCK * BLOCK, wanted + 1)
    ):
        if number == wanted:
            what = list(broken(case, outcome, stage_of_process().world))
            _say(told(case, outcome))
            _say(outcome.output)
            _say("\n".join(what) or "nothing is broken")
    return 1 if what else 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is what the command is for


def _summarise(title: str, counts: Counter[str]) -> None:
    _say(f"\n{title:50} {'times':>9}")
    for what, times in sorted(counts.items()):
        _say(f"{what:50} {times:9}")


if __name__ == "__main__":
    raise SystemExit(main())
