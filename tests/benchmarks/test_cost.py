"""What operations use, as the benchmark counts it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import check, cost, parts
from benchmarks.stage import Stage, timeout_milliseconds
from simulation.deployment import TABLE_NAME

COMMITTED: dict[str, Any] = {
    "database_calls": 5.0,
    "stripe_calls": 0.0,
    "write_units": 11.0,
    "read_units": 2.0,
    "log_lines": 4.0,
    "log_bytes": 1000.0,
    "stored_bytes": 900,
}


@pytest.fixture
def stage(aws: None) -> Iterator[Stage]:
    with Stage().running() as running:
        yield running


class TestStage:
    def test_counts_units_as_the_database_reports_them(self, stage: Stage) -> None:
        item = {"pk": {"S": "a"}, "sk": {"S": "b"}, "text": {"S": "x" * 1500}}
        with stage.measured() as used:
            stage.respond("PutItem", {"TableName": TABLE_NAME, "Item": item})
            stage.respond(
                "GetItem",
                {"TableName": TABLE_NAME, "Key": {"pk": item["pk"], "sk": item["sk"]}},
            )
        assert (used.database_calls, used.write_units, used.read_units) == (2, 2, 0.5)
        assert used.stored_bytes == len("pkaskbtext") + 1500

    def test_counts_the_stripe_calls_of_the_product_alone(self, stage: Stage) -> None:
        with stage.measured() as used:
            stage.change("/v1/customers", name="Jane")
            stage.create()
        assert used.stripe_calls == 1

    def test_counts_log_lines(self, stage: Stage) -> None:
        stage.create()
        with stage.measured() as used:
            stage.get()
        assert used.log_lines == 1
        assert used.log_bytes > 100

    def test_failed_response_ends_the_benchmark(self, stage: Stage) -> None:
        with pytest.raises(RuntimeError, match="customer-not-found"):
            stage.get("nobody")


class TestPadded:
    def test_has_the_size(self) -> None:
        event = cost.padded({"data": {"object": {"id": "cus_1"}}}, 2048)
        assert 2048 <= len(json.dumps(event)) < 2048 + 64
        assert event["data"]["object"]["id"] == "cus_1"


class TestOperations:
    @pytest.mark.parametrize("name", ["get", "customer.updated", "ambiguous event"])
    def test_use_what_the_committed_results_say(self, aws: None, name: str) -> None:
        committed = json.loads(parts.RESULTS.read_text())["cost"]["operations"][name]
        measured = cost.measure(name)
        assert {n: measured[n] for n in check.EXACT if n != "log_lines"} == {
            n: committed[n] for n in check.EXACT if n != "log_lines"
        }

    def test_are_those_of_the_committed_results(self) -> None:
        committed = json.loads(parts.RESULTS.read_text())["cost"]["operations"]
        assert list(committed) == list(cost.OPERATIONS)


class TestCheck:
    def differences(self, **changes: float) -> list[str]:
        committed = {"update": COMMITTED}
        return list(check.cost_differences(committed, {"update": {**COMMITTED, **changes}}))

    def test_equal_results_pass(self) -> None:
        assert self.differences() == []

    @pytest.mark.parametrize("name", check.EXACT)
    def test_finds_any_difference_in_a_count(self, name: str) -> None:
        assert self.differences(**{name: COMMITTED[name] + 0.05}) != []

    def test_bytes_may_differ_a_little(self) -> None:
        assert self.differences(log_bytes=1029) == []
        assert self.differences(log_bytes=1031) == ["update: log bytes 1031, committed 1000.0"]

    def test_finds_operation_without_committed_results(self) -> None:
        assert list(check.cost_differences({}, {"update": COMMITTED})) == [
            "update: this operation is measured only"
        ]

    def test_finds_import_in_first_invocation(self) -> None:
        before = {"get": {"init": 500, "first": 3, "log_lines": 1}}
        now = {"get": {"init": 510, "first": 7, "log_lines": 1}}
        assert list(check.import_differences(before, now)) == [
            "get: modules (first) 7, committed 3"
        ]

    def test_finds_larger_zip(self) -> None:
        before, now = {"get": {"zipped": 1000}}, {"get": {"zipped": 1031}}
        assert list(check.size_differences(before, now)) == [
            "get: zipped bytes 1031, committed 1000"
        ]


def test_functions_have_the_time_of_their_timeouts() -> None:
    """A receipt is a claim for two minutes: with more time left, an attempt claims the event."""
    assert timeout_milliseconds("apply_event") == 60_000
    assert timeout_milliseconds("walk_account") == 900_000
    assert timeout_milliseconds("reconcile_events") == 290_000
