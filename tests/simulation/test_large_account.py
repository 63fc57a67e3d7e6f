"""The simulation of a large account, with a small one."""

from __future__ import annotations

import json

import pytest

from simulation.large_account import main


@pytest.mark.exhaustive
def test_a_walked_account_has_no_differences_while_it_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--customers", "150", "--workers", "3", "--kills", "1", "--changed", "0.4"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["stored"]["Customer"] == 150
    verification = result["verification"]
    assert verification["differences"] == {}
    assert verification["changes"] == 60
    assert verification["events"]["applied"] > 30
    assert verification["seconds"] > 900  # what had changed since its page was checked again
