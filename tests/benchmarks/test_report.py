"""The tables and charts of the committed results."""

from __future__ import annotations

import json

from benchmarks import cold, parts, report
from benchmarks.bundles import functions
from benchmarks.dollars import PRICES, per_million
from benchmarks.spread import Spread, ratios
from simulation.deployment import mapping_rules

RESULTS = json.loads(parts.RESULTS.read_text())
USAGE = {
    "invocations": {"get_customer": 1},
    "database_calls": 1.0,
    "stripe_calls": 0.0,
    "write_units": 2.0,
    "read_units": 1.0,
    "log_bytes": 2**30 / 1_000_000 - PRICES["assumed"]["lambda_log_bytes"],
    "stored_bytes": 0.0,
}


class TestCommittedResults:
    def test_are_in_the_document(self) -> None:
        assert report.tables(RESULTS) in report.DOCUMENT.read_text()

    def test_have_every_function(self) -> None:
        names = {function.name for function in functions()}
        assert names == RESULTS["size"]["functions"].keys()
        assert names == RESULTS["imports"]["functions"].keys()
        assert {v.name for v in cold.variants()} == RESULTS["cold"]["starts"].keys()

    def test_have_the_templates_mapping_in_every_burst(self) -> None:
        rules = mapping_rules()
        for rows in RESULTS["stream"]["bursts"].values():
            mappings = [(row["batch_size"], row["parallelization_factor"]) for row in rows]
            assert (rules.batch_size, rules.parallelization_factor) in mappings


class TestDollars:
    def test_multiplies_with_the_list_prices(self) -> None:
        price = PRICES["dollars"]
        cost = per_million(USAGE, {})
        assert cost["database"] == 2 * price["million_write_units"] + price["million_read_units"]
        assert cost["requests"] == price["million_invocations"] + price["million_http_api_requests"]
        assert cost["logs"] == price["gigabyte_of_logs"]
        assert cost["duration"] == 0

    def test_bills_waits_and_processor_time(self) -> None:
        wait = PRICES["assumed"]["database_call_ms"] / 1000 * 512 / 1024
        busy = 0.010 * 1769 / 1024
        expected = (wait + busy) * 1_000_000 * PRICES["dollars"]["gigabyte_second"]
        assert abs(per_million(USAGE, {"get_customer": 10.0})["duration"] - expected) < 1e-9


class TestSpread:
    def test_has_quartiles(self) -> None:
        assert Spread.of([5, 1, 2, 3, 4]) == Spread(3, 2, 4)

    def test_ratios_are_of_values_of_one_round(self) -> None:
        assert ratios([1, 20, 300], [1, 10, 100]) == Spread(2, 1.5, 2.5)


class TestModel:
    def test_init_has_a_full_vcpu(self) -> None:
        start = cold.Start(0, 100.0, 0, 50.0, 0)
        assert start.latency(1769) == 150
        assert start.latency(1769 // 2) > 199
        assert start.latency(10_240) == 150
