"""Run histories against each mutant of the product until one breaks a promise.

python -m simulation.mutation
python -m simulation.mutation --only "claim without token"
python -m simulation.mutation --part 2/4
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from simulation.mutants import MUTANTS, Mutant
from simulation.runtime import HASH_SEED
from simulation.world import run_seed

ROOT = Path(__file__).resolve().parent.parent

_COPIED = ("functions", "shared")
_SEEN = ("local", "simulation", "tools")
_LAST_LINE = re.compile(r"(\d+) histories, (\d+) violations")


class StaleMutantError(Exception):
    """A text that a mutant replaces does not occur exactly once in its file."""


class BrokenRunError(Exception):
    """The histories could not be run."""


def main() -> int:
    """Try every mutant; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simulation.mutation", description=__doc__)
    parser.add_argument("--histories", type=int, default=60, help="maximum for each mutant")
    parser.add_argument("--seed", type=int, help="seed of the first history of every mutant")
    parser.add_argument("--jobs", type=int, default=2, help="number of mutants at a time")
    parser.add_argument("--only", default="", help="only mutants with this text in their name")
    parser.add_argument("--part", type=_part, default="1/1", help="2/4: the second of four parts")
    options = parser.parse_args()
    first, parts = options.part
    mutants = [each for each in islice(MUTANTS, first, None, parts) if options.only in each.name]
    for mutant in mutants:
        mutated(mutant, ROOT)  # a stale one fails before any is tried
    # All processes that are started here inherit it, so that none has to start itself again.
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    caught = _try_all(mutants, options)
    print(f"caught {caught} of {len(mutants)}")
    return 0 if caught == len(mutants) else 1


def _part(text: str) -> tuple[int, int]:
    """The first mutant of a part, and the number of parts."""
    number, parts = map(int, text.split("/"))
    if not 1 <= number <= parts:
        raise ValueError(text)
    return number - 1, parts


def mutated(mutant: Mutant, root: Path) -> str:
    """The source of a mutant's file with the mutation.

    Raises
    ------
    StaleMutantError
        A text that it replaces does not occur exactly once.
    """
    source = (root / mutant.file).read_text()
    for text, replacement in ((mutant.text, mutant.replacement), *mutant.also):
        times = source.count(text)
        if times != 1:
            raise StaleMutantError(
                f"{mutant.name}: its text occurs {times} times in {mutant.file}, not once"
            )
        source = source.replace(text, replacement)
    return source


def _try_all(mutants: Sequence[Mutant], options: argparse.Namespace) -> int:
    caught = 0
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(options.jobs, mp_context=spawn) as product,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        results = pool.map(
            lambda mutant: _try(mutant, options.histories, options.seed or mutant.seed, product),
            mutants,
        )
        for mutant, (number, promise) in zip(mutants, results, strict=True):
            if number is None:
                print(f"NOT CAUGHT: {mutant.name}", flush=True)
            else:
                caught += 1
                print(f"caught after {number} histories: {mutant.name} ({promise})", flush=True)
    return caught


def _try(mutant: Mutant, histories: int, seed: int, product: Executor) -> tuple[int | None, str]:
    """The number of histories that catch a mutant and the broken promise; None if none does."""
    with TemporaryDirectory(prefix="mutant-") as folder:
        _copy(mutant, Path(folder))
        played = 0
        while played < histories:
            number, promise = _run_histories(Path(folder), seed + played, histories - played)
            if number is None:
                break
            played += number
            # A history in which the product itself breaks a promise does not catch the mutant.
            if not product.submit(run_seed, seed + played - 1).result().violations:
                return played, promise
    return None, ""


def _run_histories(folder: Path, seed: int, histories: int) -> tuple[int | None, str]:
    """Run histories of the product in a folder: the number of the first violation, its promise."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}/shared{os.pathsep}{folder}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    arguments = ["--histories", str(histories), "--seed", str(seed), "--jobs", "1"]
    ended = subprocess.run(  # noqa: S603 - this project's module
        [sys.executable, "-m", "simulation", *arguments, "--first", "--shrink", "0"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ended.stdout.splitlines()
    last = _LAST_LINE.fullmatch(lines[-1]) if lines else None
    if last is None:
        raise BrokenRunError(f"seed {seed}: {ended.stderr[-2000:]}")
    if last[2] == "0":
        return None, ""
    found = next((line for line in lines if line.startswith("  ")), "").strip()
    return int(last[1]), found.partition(":")[0]


def _copy(mutant: Mutant, folder: Path) -> None:
    """Copy the project with the mutation into a folder; packages without mutants are linked."""
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name)
    for name in _SEEN:
        (folder / name).symlink_to(ROOT / name)
    (folder / mutant.file).write_text(mutated(mutant, ROOT))


if __name__ == "__main__":
    raise SystemExit(main())
