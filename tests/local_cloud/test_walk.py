"""A walk of the account by the deployed state machine: workers are killed, the run is stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import Cloud, local_cloud, stack_outputs
from local.stripe_double import StripeDoubleServer, fill

CUSTOMERS = int(os.environ.get("WALKED_CUSTOMERS") or 600)
"""How many customers the account has; many of them take long, and so have to be asked for."""
LIST = "GET /v1/customers"
PATIENCE = 120 + CUSTOMERS / 5
LIVE = ("active", "trialing", "past_due", "unpaid", "paused", "incomplete")


@pytest.fixture(scope="module")
def cloud(functions: Path) -> Iterator[Cloud]:
    parameters = {"UnassignedCustomers": "store", "WalkStripePercent": "400"}
    with local_cloud(parameters=parameters, functions=functions) as cloud:
        yield cloud


class Walk:
    """The state machine, and the function that an operator invokes."""

    def __init__(self, cloud: Cloud) -> None:
        outputs = stack_outputs(cloud.endpoint)
        self.cloud = cloud
        self.bucket = outputs["ReportsBucket"]
        self._machine = outputs["WalkMachineArn"]
        self._function = outputs["WalkAccountName"]
        self._states = cloud.client("stepfunctions")

    def execute(self, name: str, **given: str) -> str:
        started = self._states.start_execution(
            stateMachineArn=self._machine, name=name, input=json.dumps(given)
        )
        return str(started["executionArn"])

    def ask(self, action: str, run_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.cloud.invoke(
            self._function, {"action": action, "run_id": run_id}
        )
        return answer

    def outcome(self, execution: str) -> dict[str, Any]:
        """Wait until an execution ends, and describe it."""

        def describe() -> dict[str, Any]:
            found: dict[str, Any] = self._states.describe_execution(executionArn=execution)
            return found

        wait_until(lambda: describe()["status"] != "RUNNING", "the execution has ended")
        return describe()

    def texts(self) -> str:
        """Inputs and outputs of all executions, the workers' too."""
        found = self._states.list_executions(stateMachineArn=self._machine)["executions"]
        runs = [
            run["mapRunArn"]
            for each in found
            for run in self._states.list_map_runs(executionArn=each["executionArn"])["mapRuns"]
        ]
        for run in runs:
            found += self._states.list_executions(mapRunArn=run)["executions"]
        described = [
            self._states.describe_execution(executionArn=each["executionArn"]) for each in found
        ]
        return " ".join(f"{each['input']} {each.get('output')}" for each in described)


@pytest.fixture
def walk(cloud: Cloud) -> Walk:
    cloud.invoke(cloud.reconcile_events, {})
    return Walk(cloud)


def wait_until(is_true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


def double(cloud: Cloud) -> StripeDoubleServer:
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    return cloud.stripe.double


def test_stores_every_customer_despite_kills_and_a_stop(cloud: Cloud, walk: Walk) -> None:
    with double(cloud).use() as stripe:
        fill(stripe, CUSTOMERS)
        stripe.faults.delay(0.5, None, match=LIST)
    first = walk.execute("first")
    wait_until(lambda: stored(cloud, "Run"), "the run has been started")
    for responds in (True, False):
        with double(cloud).use() as stripe:
            stripe.faults.kill_client_after(1, match=LIST, responds=responds)
        wait_until(lambda: not pending_kills(cloud), "a worker was killed")
        seen = walk.ask("status", "first")["objects"]
        wait_until(lambda: walk.ask("status", "first")["objects"] > seen, "others continue")  # noqa: B023

    assert walk.ask("stop", "first") == {"run_id": "first", "state": "stopped"}
    outcome = walk.outcome(first)
    assert outcome["status"] == "SUCCEEDED"
    stopped = {"run_id": "first", "state": "stopped", "differences": 0}
    assert json.loads(outcome["output"]) == stopped
    assert walk.ask("status", "first")["windows_done"] < walk.ask("status", "first")["windows"]

    outcome = walk.outcome(walk.execute("second", run_id="first"))
    assert outcome["status"] == "SUCCEEDED"
    status = walk.ask("status", "first")
    assert status["state"] == "finished"
    with double(cloud).use() as stripe:
        customers = set(stripe.account.customers)
        subscriptions = {
            stripe_id
            for stripe_id, subscription in stripe.account.subscriptions.items()
            if subscription["status"] in LIVE
        }
    assert stored(cloud, "Customer") == customers
    assert subscriptions <= stored(cloud, "Subscription")
    assert "@" not in walk.texts()


def stored(cloud: Cloud, record_type: str) -> set[str]:
    """The ids of the records of a type."""
    items = [item for item in cloud.items() if item["record_type"] == record_type]
    return {str(item.get("stripe_id") or item["pk"]) for item in items}


def pending_kills(cloud: Cloud) -> bool:
    with double(cloud).use() as stripe:
        return any(fault.kind == "kill_client" for fault in stripe.faults.pending())


def test_execution_of_another_run_fails_while_one_is_in_progress(cloud: Cloud, walk: Walk) -> None:
    walk.ask("start", "third")
    assert walk.outcome(walk.execute("fourth"))["status"] == "FAILED"
    walk.ask("stop", "third")


def test_second_walk_changes_nothing(cloud: Cloud, walk: Walk) -> None:
    assert walk.outcome(walk.execute("fifth"))["status"] == "SUCCEEDED"
    results = walk.ask("status", "fifth")["results"]
    assert results.keys() <= {"unchanged", "updated", "fetched"}
    assert walk.ask("status", "fifth")["state"] == "finished"


def test_verification_finds_no_difference(cloud: Cloud, walk: Walk) -> None:
    outcome = walk.outcome(walk.execute("sixth", kind="verify"))
    assert outcome["status"] == "SUCCEEDED"
    expected = {"run_id": "sixth", "state": "finished", "differences": 0}
    assert json.loads(outcome["output"]) == expected
    assert walk.ask("status", "sixth")["objects"] >= CUSTOMERS
