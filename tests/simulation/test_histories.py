from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulation.faults import FaultProfile, Faults
from simulation.history import generate
from simulation.mutants import MUTANTS, Mutant
from simulation.mutation import ROOT, StaleMutantError, mutated


def told(seed: int) -> str:
    """A history in a process of its own: playing one changes the libraries of its process."""
    return subprocess.run(
        [sys.executable, "-m", "simulation", "--seed", str(seed), "--verbose"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    ).stdout


def test_the_same_seed_plays_the_same_history_step_by_step() -> None:
    first, second = told(42), told(42)
    assert "trace" in first
    assert first == second
    assert first != told(43)


def test_a_seed_decides_its_history() -> None:
    assert generate(5) == generate(5)
    assert generate(5) != generate(6)


def test_histories_are_small_and_in_order() -> None:
    for seed in range(200):
        history = generate(seed)
        times = [action.at for action in history.actions]
        assert 3 <= len(times) <= 35
        assert times == sorted(times)


def test_a_fault_that_may_not_happen_does_not_and_leaves_the_others() -> None:
    profile = FaultProfile(stripe=(("503", 1.0),))
    assert Faults(1, profile).of_call("stripe", "a/1", 0, 0.5) == "503"
    only = Faults(1, profile, only={"a/2/503"})
    assert only.of_call("stripe", "a/1", 0, 0.5) is None
    assert only.of_call("stripe", "a/2", 0, 0.5) == "503"


def test_a_new_things_event_is_overtaken_by_those_that_follow() -> None:
    faults = Faults(1, FaultProfile(overtaken=1.0))
    attached, detached = (
        faults.delivery("evt_1/1", f"payment_method.{what}").delay
        for what in ("attached", "detached")
    )
    assert attached is not None and detached is not None
    assert attached > 5 * detached


def test_every_mutants_text_stands_in_its_file_once() -> None:
    for mutant in MUTANTS:
        assert mutated(mutant, ROOT)


def test_a_stale_mutant_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\na = 1\n")
    for text in ("a = 1", "b = 2"):
        with pytest.raises(StaleMutantError):
            mutated(Mutant("stale", "file.py", text, "c"), tmp_path)
    assert mutated(Mutant("fresh", "file.py", "a = 1\na", "c"), tmp_path) == "c = 1\n"


def test_a_mutant_may_replace_more_than_one_text(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\nb = 2\n")
    both = Mutant("both", "file.py", "a = 1", "", also=(("b = 2", "c"),))
    assert mutated(both, tmp_path) == "\nc\n"
    stale = Mutant("stale", "file.py", "a = 1", "", also=(("d = 2", "c"),))
    with pytest.raises(StaleMutantError):
        mutated(stale, tmp_path)
