"""The simulation of a large account, with a small one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from simulation.mutation import ROOT


@pytest.mark.exhaustive
def test_a_walked_account_has_no_differences_while_it_changes() -> None:
    arguments = ["--customers", "150", "--workers", "3", "--kills", "1", "--changed", "0.8"]
    # In a process of its own: the simulation changes the libraries of its process.
    ended = subprocess.run(
        [sys.executable, "-m", "simulation.large_account", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(ended.stdout)
    assert result["stored"]["Customer"] == 150
    assert result["kills"] == 1
    assert 50 < result["worker_kilobytes"] < 5000
    assert result["list_calls_ratio"] > 1
    verification = result["verification"]
    assert verification["differences"] == {}
    assert verification["changes"] == 120
    assert verification["events"]["applied"] > 60
    assert verification["seconds"] > 900  # what had changed since its page was checked again
