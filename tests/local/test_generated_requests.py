"""What `make test-schemathesis` counts as a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.generated_requests import count_failures


@pytest.mark.parametrize(
    ("failures", "errors", "returned", "counted"),
    [(0, 0, 0, 0), (2, 0, 1, 2), (0, 1, 1, 1), (1, 1, 1, 2), (0, 0, 2, 1)],
)
def test_every_failure_and_every_error_counts_and_so_does_a_bad_end(
    tmp_path: Path, failures: int, errors: int, returned: int, counted: int
) -> None:
    report = tmp_path / "report.json"
    told = {"test_cases": {"unique_failures": failures}, "errors": [{}] * errors}
    report.write_text(json.dumps(told))
    assert count_failures(report, returned) == counted


def test_a_run_that_told_nothing_has_failed(tmp_path: Path) -> None:
    assert count_failures(tmp_path / "none.json", 0) == 1
