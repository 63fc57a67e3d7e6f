from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.faults import FaultProfile, Faults
from simulation.mutants import MUTANTS, Mutant
from simulation.mutation import ROOT, StaleMutantError, main, mutated
from simulation.runtime import HASH_SEED


def play_in_process(seed: int) -> str:
    """A history in a process of its own: playing one changes the libraries of its process."""
    return subprocess.run(
        [sys.executable, "-m", "simulation", "--seed", str(seed), "--verbose"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.exhaustive
def test_same_seed_same_trace() -> None:
    first, second = play_in_process(42), play_in_process(42)
    assert "trace" in first
    assert first == second
    assert first != play_in_process(43)


def test_excluded_fault_leaves_the_others() -> None:
    profile = FaultProfile(stripe=(("503", 1.0),))
    assert Faults(1, profile).of_call("stripe", "a/1", 0, 0.5) == "503"
    only = Faults(1, profile, only={"a/2/503"})
    assert only.of_call("stripe", "a/1", 0, 0.5) is None
    assert only.of_call("stripe", "a/2", 0, 0.5) == "503"


def test_later_events_overtake_first() -> None:
    faults = Faults(1, FaultProfile(overtaken=1.0))
    attached, detached = (
        faults.delivery("evt_1/1", f"payment_method.{what}").delay
        for what in ("attached", "detached")
    )
    assert attached is not None and detached is not None
    assert attached > 5 * detached


def test_mutants_are_up_to_date() -> None:
    for mutant in MUTANTS:
        assert ast.parse(mutated(mutant, ROOT))


def test_stale_mutant_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\na = 1\n")
    for text in ("a = 1", "b = 2"):
        with pytest.raises(StaleMutantError):
            mutated(Mutant("stale", "file.py", text, "c"), tmp_path)
    assert mutated(Mutant("fresh", "file.py", "a = 1\na", "c"), tmp_path) == "c = 1\n"


class TestParts:
    @pytest.fixture
    def tried(self, monkeypatch: pytest.MonkeyPatch) -> list[Mutant]:
        """The mutants that are tried: none is played."""
        tried: list[Mutant] = []

        def try_all(mutants: list[Mutant], _: object) -> int:
            tried.extend(mutants)
            return len(mutants)

        monkeypatch.setattr("simulation.mutation._try_all", try_all)
        monkeypatch.setenv("PYTHONHASHSEED", HASH_SEED)  # which main sets
        return tried

    def test_have_every_mutant_once(
        self, tried: list[Mutant], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for part in ("1/3", "2/3", "3/3"):
            before = len(tried)
            monkeypatch.setattr(sys, "argv", ["mutation", "--part", part])
            assert main() == 0
            assert len(tried) - before <= len(MUTANTS) // 3 + 1
        assert sorted(each.name for each in tried) == sorted(each.name for each in MUTANTS)

    @pytest.mark.parametrize("part", ["0/4", "5/4", "4"])
    def test_invalid_one_is_refused(
        self, tried: list[Mutant], monkeypatch: pytest.MonkeyPatch, part: str
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["mutation", "--part", part])
        with pytest.raises(SystemExit):
            main()
        assert tried == []
