"""The throughput of the stream, with few events.

The program fails if an event is lost, or if a customer differs from Stripe's at the end.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import parts

BURST = "few customers"
CUSTOMERS = 2


def measure(*mappings: str) -> list[dict[str, Any]]:
    """The results of a burst, in a process of its own: the program patches libraries."""
    arguments = ("--bursts", BURST, "--customers", str(CUSTOMERS), "--mappings", *mappings)
    rows: list[dict[str, Any]] = parts.run("stream", *arguments)[BURST]
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

    def test_concurrent_batches_fetch_a_customer_more_often(
        self, rows: dict[str, dict[str, Any]]
    ) -> None:
        assert rows["50/10"]["stripe_calls"] > rows["50/1"]["stripe_calls"]

    def test_window_makes_batches_larger(self, rows: dict[str, dict[str, Any]]) -> None:
        assert rows["50/1/2"]["invocations"] < rows["50/1"]["invocations"]

    def test_same_run_has_the_same_results(self, rows: dict[str, dict[str, Any]]) -> None:
        assert measure("50/10") == [rows["50/10"]]
