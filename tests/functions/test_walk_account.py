"""walk_account: the state machine's worker, and what an operator asks it for."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, ClassVar

import pytest

from stripe_integrations.actions import StripeAccount
from stripe_integrations.actions.customers.snapshot import USER_KEY
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.errors import (
    InvalidFieldError,
    RunInProgressError,
    RunNotFoundError,
    StaleRecordError,
    StripeUnavailableError,
)
from stripe_integrations.models.run import PaymentMethodPolicy, Run
from stripe_integrations.models.window import Window
from stripe_integrations.observability import Metric
from tests.stripe_integrations.actions.account.helpers import lose_events, set_schema_version
from tests.world import EMAIL, World, database_client

RUN = {"run_id": "first"}
START = {"action": "start", **RUN}
WORK = {"action": "work", **RUN, "worker": "first-1"}


@pytest.fixture(autouse=True)
def customers(world: World) -> list[str]:
    """The ids of 230 customers on Stripe that no user has."""
    world.configure(unassigned_customers=UnassignedCustomers.STORE)
    world.reconcile()
    made = [world.request("POST", "/v1/customers", {"email": EMAIL})["id"] for _ in range(230)]
    for delivery in world.stripe.webhooks.due():
        world.stripe.webhooks.mark(delivery, 200)
    world.time += 3600
    return made


def stored(world: World) -> set[str]:
    return {str(item["stripe_id"]) for item in world.items(record_type="Customer")}


class TestStart:
    def test_returns_the_run(self, world: World) -> None:
        assert world.walk(START) == {"run_id": "first", "state": "running"}
        assert Run.read("first").payment_methods == "with-default-or-subscription"

    def test_repeated_returns_the_same_run(self, world: World) -> None:
        world.walk(START)
        world.walk(WORK)
        assert world.walk(START) == {"run_id": "first", "state": "finished"}
        assert world.walk({"action": "status"})["objects"] == 230

    def test_takes_a_mapping(self, world: World) -> None:
        world.files["mappings/a.csv"] = b"user_id,stripe_id\n"
        world.walk({**START, "options": {"mapping": "mappings/a.csv", "allow_refused": True}})
        run = Run.read("first")
        assert (run.mapping, run.allows_refused) == ("mappings/a.csv", True)

    def test_takes_the_policy_for_payment_methods(self, world: World) -> None:
        world.walk({**START, "options": {"payment_methods": "none"}})
        assert Run.read("first").payment_methods is PaymentMethodPolicy.NONE

    def test_refuses_a_second_run(self, world: World) -> None:
        world.walk(START)
        with pytest.raises(RunInProgressError):
            world.walk({"action": "start", "run_id": "second"})


class TestWork:
    def test_stores_every_customer(self, world: World, customers: list[str]) -> None:
        world.walk(START)
        done = {"is_done": True, "wait_seconds": 0}
        assert world.walk(WORK) == {**RUN, "worker": "first-1", **done}
        assert stored(world) == set(customers)

    def test_ends_before_the_invocation_does(self, world: World, customers: list[str]) -> None:
        world.configure(walk_stripe_percent=1)  # four seconds for each page
        world.walk(START)
        world.time += 60
        invocations = 0
        is_done = False
        while not is_done:
            is_done = world.walk(WORK, remaining_seconds=242)["is_done"]
            invocations += 1
        assert invocations > 2
        assert stored(world) == set(customers)

    def test_leaves_its_window_to_any_worker(self, world: World, customers: list[str]) -> None:
        world.configure(walk_stripe_percent=1)
        world.walk(START)
        world.time += 60
        world.walk(WORK, remaining_seconds=242)
        began = world.time
        world.walk({**WORK, "worker": "second-1"}, remaining_seconds=250)
        assert world.time - began < 20
        assert stored(world) == set(customers)

    def test_idle_worker_ends_before_the_invocation_does(self, world: World) -> None:
        world.walk(START)

        def lease_all() -> None:
            for window in Window.all_of("first"):
                window.lease("first-2")

        lease_all()
        world.during_sleep = lease_all
        began = world.time
        assert world.walk({**WORK, "worker": "first-1"})["is_done"] is False
        assert 600 < world.time - began < 900

    def test_stopped_run_is_done(self, world: World) -> None:
        world.walk(START)
        assert world.walk({"action": "stop", **RUN}) == {**RUN, "state": "stopped"}
        assert world.walk(WORK)["is_done"] is True
        assert stored(world) == set()
        assert world.walk({"action": "resume", **RUN}) == {**RUN, "state": "running"}
        world.walk(WORK)
        finished = {**RUN, "state": "finished", "differences": 0}
        assert world.walk({"action": "finish", **RUN}) == finished

    def test_failure_is_raised_and_the_next_invocation_continues(
        self, world: World, customers: list[str]
    ) -> None:
        world.walk(START)
        world.stripe.faults.fail_next(None, match="GET /v1/customers", status=503)
        with pytest.raises(StripeUnavailableError):
            world.walk(WORK)
        world.stripe.faults.clear()
        world.walk(WORK)
        assert stored(world) == set(customers)

    def test_counts_objects(self, world: World) -> None:
        world.walk(START)
        world.measured.clear()
        world.walk(WORK)
        walked = [value for metric, value in world.measured if metric is Metric.OBJECTS_WALKED]
        assert walked == [100, 100, 30, 0]

    def test_logs_no_value(self, world: World, log: Any) -> None:
        world.walk(START)
        world.walk(WORK)
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        pages = [line for line in lines if line["message"] == "walked a page"]
        assert [page.get("stored") for page in pages] == [100, 100, 30, None]
        assert EMAIL not in log.getvalue()

    def test_uses_the_budgets_of_the_settings(self, world: World) -> None:
        world.configure(walk_stripe_percent=2)
        world.walk(START)
        world.time += 60
        began = world.time
        world.walk(WORK)
        # Half a call per second to each endpoint: three pages of customers.
        assert world.time - began >= 4

    @pytest.mark.parametrize(("percent", "least", "most"), [(1, 4, 8), (100, 0, 1)])
    def test_changed_budget_is_that_of_the_run(
        self, world: World, percent: int, least: float, most: float
    ) -> None:
        world.configure(walk_stripe_percent=10)
        world.walk(START)
        world.time += 60
        next(StripeAccount.work("first", "first-1"))
        world.time += 60
        world.configure(walk_stripe_percent=percent)
        began = world.time
        world.walk(WORK)
        # Two pages of customers are left, and one of subscriptions.
        assert least <= world.time - began <= most


class TestReport:
    def test_has_findings_by_window_and_page(self, world: World, customers: list[str]) -> None:
        world.walk(START)
        world.walk(WORK)
        unreadable = customers[0]
        set_schema_version(world, unreadable, 99)
        world.reports.clear()
        world.time += 3600
        world.walk({"action": "start", "run_id": "second"})
        world.walk({"action": "work", "run_id": "second", "worker": "second-1"})
        (key, text), *rest = [(key, text) for key, text in world.reports.items() if text]
        assert rest == []
        assert key.startswith("runs/second/customers-")
        finding = {"stripe_id": unreadable, "result": "unreadable", "reason": "NewerSchemaError"}
        assert [json.loads(line) for line in text.splitlines()] == [finding]

    def test_of_repeated_page_is_replaced(
        self, world: World, customers: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.walk(START)
        world.walk(WORK)
        newest = customers[-1]
        set_schema_version(world, newest, 99)
        world.time += 3600
        world.walk({"action": "start", "run_id": "second"})

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        work = {"action": "work", "run_id": "second", "worker": "second-1"}
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Window, "advance", die)
            world.walk(work)
        reported = {key for key, text in world.reports.items() if newest in text}
        assert len(reported) == 1
        set_schema_version(world, newest, 1)
        world.walk(work)
        assert not any(newest in text for text in world.reports.values())


class TestVerification:
    """Of a table that lacks two customers, since no event has reported them."""

    VERIFY: ClassVar = {**START, "options": {"kind": "verify"}}

    @pytest.fixture
    def missing(self, world: World, customers: list[str]) -> set[str]:
        world.walk({"action": "start", "run_id": "zeroth"})
        world.walk({"action": "work", "run_id": "zeroth", "worker": "1"})
        made = [world.request("POST", "/v1/customers", {"email": EMAIL})["id"] for _ in range(2)]
        world.stripe.account.events.clear()
        world.time += 3600
        world.reconcile()
        return set(made)

    def verify(self, world: World) -> None:
        world.walk(self.VERIFY)
        waiting = world.walk(WORK)
        world.time += waiting["wait_seconds"]
        world.reconcile()
        world.walk(WORK)

    def test_lets_the_state_machine_wait_for_the_checks(
        self, world: World, missing: set[str]
    ) -> None:
        world.walk(self.VERIFY)
        began = world.time
        waiting = world.walk(WORK)
        assert world.time - began < 60
        assert waiting["is_done"] is False
        assert 800 < waiting["wait_seconds"] <= 900
        status = world.walk({"action": "status"})
        assert datetime.fromisoformat(status["next_check_at"]).timestamp() > world.time
        assert (status["state"], status["differences"]) == ("running", {})

    def test_counts_and_reports_differences(self, world: World, missing: set[str]) -> None:
        self.verify(world)
        outcome = world.walk({"action": "finish", **RUN})
        assert outcome == {**RUN, "state": "finished", "differences": 2}
        assert world.walk({"action": "status"})["differences"] == {"missing": 2}
        assert world.measured.count((Metric.ACCOUNT_DIFFERENCES, 2)) == 1
        lines = world.reports["runs/first/differences/00001.jsonl"].splitlines()
        findings = [json.loads(line) for line in lines]
        assert {finding["stripe_id"] for finding in findings} == missing
        assert {finding["result"] for finding in findings} == {"missing"}

    def test_measures_that_there_is_none(self, world: World) -> None:
        world.walk({"action": "start", "run_id": "zeroth"})
        world.walk({"action": "work", "run_id": "zeroth", "worker": "1"})
        world.walk(self.VERIFY)
        world.walk(WORK)
        assert world.walk({"action": "finish", **RUN})["differences"] == 0
        assert (Metric.ACCOUNT_DIFFERENCES, 0) in world.measured
        assert world.reports["runs/first/differences/00001.jsonl"] == ""

    def test_counts_differences_when_the_last_response_is_lost(
        self, world: World, missing: set[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The retry finds that its first attempt took effect."""
        finish = Run.finish

        def lose_response(run: Run) -> None:
            finish(run)
            raise StaleRecordError("the run was changed since it was read")

        monkeypatch.setattr(Run, "finish", lose_response)
        self.verify(world)
        assert (Metric.ACCOUNT_DIFFERENCES, 2) in world.measured

    def test_reports_what_cannot_be_read_when_it_is_checked(
        self, world: World, customers: list[str]
    ) -> None:
        world.walk({"action": "start", "run_id": "zeroth"})
        world.walk({"action": "work", "run_id": "zeroth", "worker": "1"})
        world.rename(customers[0], "Jo")
        lose_events(world)
        world.stripe.account.events.clear()
        world.time += 3600
        world.reconcile()
        world.walk(self.VERIFY)
        waiting = world.walk(WORK)
        set_schema_version(world, customers[0], 99)
        world.time += waiting["wait_seconds"]
        world.reconcile()
        world.walk(WORK)
        assert world.walk({"action": "status"})["results"]["unreadable"] == 1
        assert any(customers[0] in text for text in world.reports.values())

    def test_that_has_expired_is_gone(self, world: World) -> None:
        """Before its items are deleted, one after the other."""
        world.walk(self.VERIFY)
        world.walk({"action": "stop", **RUN})
        world.time += 31 * 86_400
        with pytest.raises(RunNotFoundError):
            world.walk({"action": "resume", **RUN})

    def test_is_repaired(self, world: World, missing: set[str]) -> None:
        self.verify(world)
        options = {"kind": "repair", "of_run": "first"}
        world.walk({"action": "start", "run_id": "second", "options": options})
        world.walk({"action": "work", "run_id": "second", "worker": "1"})
        assert world.walk({"action": "status"})["state"] == "finished"
        assert missing <= stored(world)

    def test_expires(self, world: World) -> None:
        world.walk(self.VERIFY)
        world.walk(WORK)
        kept = [item for item in world.items() if item["pk"] == "RUN#first"]
        assert {"Run", "Window", "RateBudget"} <= {item["record_type"] for item in kept}
        assert all(item["expires_at"] > world.time for item in kept)
        for item in kept:
            database_client().delete_item(
                TableName=world.settings.table_name,
                Key={"pk": {"S": item["pk"]}, "sk": {"S": item["sk"]}},
            )
        with pytest.raises(RunNotFoundError):
            world.walk({"action": "status"})
        assert world.walk({"action": "start", "run_id": "second"})["state"] == "running"


@pytest.mark.parametrize("kind", ["verify", "undo"])
def test_undoes_only_a_backfill(world: World, kind: str) -> None:
    world.walk(START)
    world.walk(WORK)
    earlier = {"kind": "undo", "of_run": "first"} if kind == "undo" else {"kind": "verify"}
    world.walk({"action": "start", "run_id": "second", "options": earlier})
    world.walk({"action": "work", "run_id": "second", "worker": "1"})
    with pytest.raises(InvalidFieldError):
        world.walk({**START, "run_id": "third", "options": {"kind": "undo", "of_run": "second"}})


def test_undoes_a_run(world: World, customers: list[str]) -> None:
    world.files["mappings/a.csv"] = f"user_id,stripe_id\nu-1,{customers[0]}\n".encode()
    world.walk({**START, "options": {"mapping": "mappings/a.csv"}})
    world.walk(WORK)
    assert world.items(record_type="Customer", user_id="u-1")
    world.time += 60
    undo = {"action": "start", "options": {"kind": "undo", "of_run": "first"}}
    world.walk({**undo, "run_id": "second"})
    world.walk({"action": "stop", "run_id": "second"})
    assert world.walk({**undo, "run_id": "third"}) == {"run_id": "second", "state": "running"}
    world.walk({"action": "work", "run_id": "second", "worker": "1"})
    assert world.items(record_type="Customer", user_id="u-1") == []


def test_writes_metadata(world: World, customers: list[str]) -> None:
    world.files["mappings/a.csv"] = f"user_id,stripe_id\nu-1,{customers[0]}\n".encode()
    world.walk({**START, "options": {"mapping": "mappings/a.csv"}})
    world.walk(WORK)
    world.time += 60
    world.walk({"action": "start", "run_id": "second", "options": {"kind": "metadata"}})
    world.walk({"action": "work", "run_id": "second", "worker": "1"})
    status = world.walk({"action": "status"})
    assert (status["kind"], status["state"]) == ("metadata", "finished")
    assert status["results"] == {"written": 1, "unchanged": len(customers) - 1}
    assert world.request("GET", f"/v1/customers/{customers[0]}")["metadata"][USER_KEY] == "u-1"


class TestStatus:
    def test_has_progress(self, world: World) -> None:
        world.walk(START)
        world.walk(WORK)
        status = world.walk({"action": "status"})
        assert json.loads(json.dumps(status)) == status
        assert (status["run_id"], status["kind"]) == ("first", "backfill")
        assert (status["state"], status["differences"]) == ("finished", {})
        assert (status["results"], status["objects"]) == ({"stored": 230}, 230)
        assert status["windows"] == status["windows_done"] == 2
        assert status["objects_per_second"] == round(230 / status["seconds"], 1)
        assert world.walk({"action": "status", **RUN}) == status

    def test_of_unknown_run(self, world: World) -> None:
        with pytest.raises(RunNotFoundError):
            world.walk({"action": "status"})


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"action": "walk"},
        {"action": "start"},
        {"action": "start", "run_id": "first/1"},
        {"action": "start", "run_id": 1},
        {**START, "options": []},
        {**START, "options": {"payment_methods": "some"}},
        {**START, "options": {"payment_methods": ["all"]}},
        {**START, "options": {"payment_method": "all"}},
        {**START, "options": {"mapping": "a.csv"}},
        {**START, "options": {"mapping": "mappings/a.txt"}},
        {**START, "options": {"mapping": 1}},
        {**START, "options": {"allow_refused": "yes"}},
        {**START, "options": {"by_metadata": 1}},
        {**START, "options": {"by_metadata": True}},
        {**START, "options": {"kind": "restore"}},
        {**START, "options": {"kind": ["verify"]}},
        {**START, "options": {"kind": "repair"}},
        {**START, "options": {"kind": "undo"}},
        {**START, "options": {"of_run": "zeroth"}},
        {**START, "options": {"kind": "repair", "of_run": "a/b"}},
        {**START, "options": {"kind": "verify", "mapping": "mappings/a.csv"}},
        {**START, "options": {"kind": "rebuild", "mapping": "mappings/a.csv"}},
        {**START, "options": {"kind": "rebuild", "by_metadata": True}},
        {**START, "options": {"kind": "rebuild", "of_run": "zeroth"}},
        {**START, "options": {"kind": "metadata", "mapping": "mappings/a.csv"}},
        {**START, "options": {"kind": "metadata", "of_run": "zeroth"}},
        {"action": "work", **RUN},
        {"action": "status", "run_id": None},
        {"action": "stop"},
    ],
)
def test_refuses_malformed_event(world: World, event: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError):
        world.walk(event)
