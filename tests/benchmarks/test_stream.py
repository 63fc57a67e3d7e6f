"""The throughput of the stream, with few events.

The program fails if an event is lost, or if a customer differs from Stripe's at the end.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import parts

BURST = "few customers"
CUSTOMERS = 2


def measure(*mappings: str, burst: str = BURST) -> list[dict[str, Any]]:
    """The results of a burst, in a process of its own: the program patches libraries."""
    arguments = ("--bursts", burst, "--customers", str(CUSTOMERS), "--mappings", *mappings)
    rows: list[dict[str, Any]] = parts.run("stream", *arguments)[burst]
    return rows


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    mappings = ("1/1", "50/1", "50/10", "50/1/2")
    return dict(zip(mappings, measure(*mappings), strict=True))


class TestStream:
    def test_every_mapping_applies_all_events(self, rows: dict[str, dict[str, Any]]) -> None:
        for row in rows.values():
            assert row["events"] == 10 * CUSTOMERS
            assert 0 < row["delay_p50"] <= row["delay_p99"] < row["seconds"]
            assert row["stripe_calls"] >= 3 * CUSTOMERS

    def test_small_batches_are_invocations_of_their_own(
        self, rows: dict[str, dict[str, Any]]
    ) -> None:
        assert rows["1/1"]["invocations"] >= 10 * CUSTOMERS > rows["50/1"]["invocations"]

    def test_one_batch_at_a_time_fetches_a_customer(self) -> None:
        (row,) = measure("50/10", burst="one customer at a time")
        assert row["events"] == 10 * CUSTOMERS
        assert row["most_fetches"] <= 5  # 33 if each batch fetched it on its own

    def test_sign_up_needs_few_fetches(self) -> None:
        (row,) = measure("50/1", burst="sign-ups")
        assert row["events"] == 5 * CUSTOMERS
        assert row["most_fetches"] <= 2

    def test_window_makes_batches_larger(self, rows: dict[str, dict[str, Any]]) -> None:
        assert rows["50/1/2"]["invocations"] < rows["50/1"]["invocations"]

    def test_same_run_has_the_same_results(self, rows: dict[str, dict[str, Any]]) -> None:
        assert measure("50/10") == [rows["50/10"]]
