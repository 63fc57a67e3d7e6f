"""`backfill`, `verify`, `repair` and `rebuild`: started, watched, stopped, resumed, reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from flask.testing import FlaskClient

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.errors import StripeIntegrationsError
from stripe_integrations.models.run import PaymentMethodPolicy
from stripe_integrations_cli import runs, watch
from stripe_integrations_cli.console.server import application
from stripe_integrations_cli.stack import Stack
from tests import roles
from tests.cli.conftest import Run, lines, objects
from tests.stripe_integrations.actions.account.helpers import lose_events
from tests.world import EMAIL, USER, World

Json = dict[str, Any]

BUCKET = "the-ReportsBucket"


UNREACHABLE = EndpointConnectionError(endpoint_url="https://lambda")


def refused(code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Invoke")


class Machine:
    """The state machine: each description of an execution lets a worker do its next part."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.executions: dict[str, Json] = {}
        self.inputs: list[Json] = []
        self.before_work: Callable[[str], None] = lambda _: None

    def start_execution(self, *, input: str, name: str = "again", **_: str) -> Json:  # noqa: A002
        given = json.loads(input)
        self.inputs.append(given)
        execution: Json = {"status": "RUNNING", "run_id": given.get("run_id", name)}
        self.executions[name] = execution
        try:
            if "run_id" in given:
                self.world.walk({"action": "resume", "run_id": given["run_id"]})
            else:
                self.world.walk({"action": "start", "run_id": name, "options": given})
        except StripeIntegrationsError as error:
            cause = json.dumps({"errorMessage": str(error)})
            execution |= {"status": "FAILED", "error": type(error).__name__, "cause": cause}
        return {"executionArn": name}

    def list_executions(self, *, statusFilter: str, **_: object) -> Json:  # noqa: N803
        found = (each for each in self.executions.values() if each["status"] == statusFilter)
        return {"executions": list(found)}

    def describe_execution(self, *, executionArn: str) -> Json:  # noqa: N803
        execution = self.executions[executionArn]
        if execution["status"] == "RUNNING":
            self.before_work(execution["run_id"])
            worked = self.world.walk(
                {"action": "work", "run_id": execution["run_id"], "worker": "1"}
            )
            if worked["wait_seconds"]:
                self.world.time += worked["wait_seconds"]
                self.world.reconcile()
            if worked["is_done"]:
                execution["status"] = "SUCCEEDED"
        return execution


@pytest.fixture
def machine(world: World, stack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(world)
    client = Stack.client

    def with_machine(self: Stack, service: str) -> Any:
        return machine if service == "stepfunctions" else client(self, service)

    def store_report(key: str, text: str) -> None:
        with roles.acting_freely():
            store.put_object(Bucket=BUCKET, Key=key, Body=text.encode())

    def read_file(key: str, offset: int) -> Iterator[tuple[bytes, int]]:
        with roles.acting_freely():
            world.files[key] = store.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return world.read_file(key, offset)

    monkeypatch.setattr(Stack, "client", with_machine)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0)
    store = boto3.client("s3")
    store.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    world.context.store_report = store_report
    world.context.read_file = read_file
    world.configure(unassigned_customers=UnassignedCustomers.STORE)
    world.reconcile()
    yield machine
    for found in store.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        store.delete_object(Bucket=BUCKET, Key=found["Key"])
    store.delete_bucket(Bucket=BUCKET)


def on_stripe(world: World, count: int = 1) -> list[str]:
    """Create customers that the table lacks, and return their ids."""
    made = [
        str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"]) for _ in range(count)
    ]
    world.time += 1  # a run lists what was created before the second in which it starts
    return made


def mapping_file(folder: Path, *rows: str, name: str = "users.csv") -> str:
    path = folder / name
    path.write_text("\n".join(["user_id,stripe_id", *rows, ""]))
    return str(path)


class TestBackfill:
    def test_stores_what_the_table_lacks(self, run: Run, world: World, machine: Machine) -> None:
        on_stripe(world, 3)
        result = run("backfill", "start")
        ended = dict(lines(result))
        assert (ended["state"], ended["stored"], ended["objects"]) == ("finished", "3", "3")
        assert "state finished" in result.stderr
        assert len(world.items(record_type="Customer")) == 3

    def test_assigns_the_customers_of_a_mapping(
        self, run: Run, world: World, machine: Machine, tmp_path: Path
    ) -> None:
        (stripe_id,) = on_stripe(world)
        path = mapping_file(tmp_path, f"u-1,{stripe_id}")
        run("backfill", "start", "--mapping", path, "--payment-methods", "none")
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        (given,) = machine.inputs
        assert given["payment_methods"] == "none"
        assert given["mapping"].startswith("mappings/backfill-")

    def test_conflict_is_reported_and_the_status_is_1(
        self, run: Run, world: World, machine: Machine, tmp_path: Path
    ) -> None:
        first, second = on_stripe(world, 2)
        path = mapping_file(tmp_path, f"u-1,{first}", f"u-1,{second}")
        result = run("backfill", "start", "--mapping", path)
        assert result.exit_code == 1
        run_id = str(machine.executions.popitem()[0])
        assert f"the report has 1: stripe-customers backfill report {run_id}" in result.stderr
        assert lines(run("backfill", "report")) == [
            [second, "conflict", "this user has another customer"]
        ]

    def test_invalid_mapping_starts_no_run(
        self, run: Run, machine: Machine, tmp_path: Path
    ) -> None:
        path = mapping_file(tmp_path, "u-1,not-a-customer")
        result = run("backfill", "start", "--mapping", path)
        assert result.exit_code == 1
        assert "1 rows are invalid, the first at byte 18: " in result.stderr
        assert machine.inputs == []

    def test_leaves_out_invalid_rows_on_request(
        self, run: Run, world: World, machine: Machine, tmp_path: Path
    ) -> None:
        (stripe_id,) = on_stripe(world)
        path = mapping_file(tmp_path, "u-2,not-a-customer", f"u-1,{stripe_id}")
        result = run("backfill", "start", "--mapping", path, "--allow-refused")
        assert result.exit_code == 1
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        assert StripeCustomer.get(User("u-2")) is None

    def test_dry_run_prints_the_plan(
        self, run: Run, world: World, machine: Machine, tmp_path: Path
    ) -> None:
        first, second = on_stripe(world, 2)
        path = mapping_file(tmp_path, f"u-1,{first}", f"u-1,{second}", f"u-2,{second}", "x")
        result = run("backfill", "start", "--dry-run", "--mapping", path, "--json")
        assert result.exit_code == 1
        plan = json.loads(result.stdout)
        assert (
            plan.items()
            >= {
                "rows": 3,
                "refused_rows": 1,
                "users_with_several_customers": 1,
                "customers_with_several_users": 1,
                "workers": 4,
            }.items()
        )
        assert machine.inputs == []

    def test_dry_run_of_a_clean_mapping_succeeds(
        self, run: Run, world: World, machine: Machine, tmp_path: Path
    ) -> None:
        (stripe_id,) = on_stripe(world)
        path = mapping_file(tmp_path, f"u-1,{stripe_id}")
        (plan,) = objects(run("backfill", "start", "--dry-run", "--mapping", path, "--json"))
        assert (plan["rows"], plan["refused_rows"]) == (1, 0)

    @pytest.mark.parametrize("name", ["users.txt", "absent.csv"])
    def test_refuses_file_that_is_not_a_mapping(
        self, run: Run, machine: Machine, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "users.txt").touch()
        result = run("backfill", "start", "--mapping", str(tmp_path / name))
        assert result.exit_code == 2

    def test_refuses_options_before_anything_is_started(
        self, run: Run, machine: Machine, tmp_path: Path
    ) -> None:
        path = mapping_file(tmp_path)
        assert run("backfill", "start", "--payment-methods", "some").exit_code == 2
        assert run("backfill", "start", "--mapping", path, "--by-metadata").exit_code == 2
        assert machine.inputs == []
        assert set(runs.PAYMENT_METHODS) == set(PaymentMethodPolicy)

    def test_failure_to_start_is_one_line(self, run: Run, world: World, machine: Machine) -> None:
        world.walk({"action": "start", "run_id": "other"})
        result = run("backfill", "start")
        assert result.exit_code == 1
        assert result.stderr == "error: RunInProgressError: run other is in progress\n"


class TestStopAndResume:
    def test_stopped_run_is_resumed(self, run: Run, world: World, machine: Machine) -> None:
        on_stripe(world, 3)
        machine.before_work = lambda _: run("backfill", "stop")  # type: ignore[assignment]
        stopped = run("backfill", "start")
        assert stopped.exit_code == 1
        assert "resume it: stripe-customers backfill resume backfill-" in stopped.stderr
        machine.before_work = lambda _: None
        assert dict(lines(run("backfill", "resume")))["state"] == "finished"
        assert len(world.items(record_type="Customer")) == 3

    def test_finished_run_is_not_resumed(self, run: Run, world: World, machine: Machine) -> None:
        run("backfill", "start")
        assert run("backfill", "resume").stderr.endswith("is finished\n")

    def test_ctrl_c_shows_how_to_return_and_how_to_stop(
        self, run: Run, world: World, machine: Machine
    ) -> None:
        def interrupt(_: str) -> None:
            raise KeyboardInterrupt

        machine.before_work = interrupt
        result = run("backfill", "start")
        assert result.exit_code == 130
        run_id = next(iter(machine.executions))
        assert f"stripe-customers backfill watch {run_id}." in result.stderr
        assert f"stripe-customers backfill stop {run_id}" in result.stderr
        machine.before_work = lambda _: None
        machine.describe_execution(executionArn=run_id)
        assert dict(lines(run("backfill", "watch", run_id)))["state"] == "finished"

    def test_no_watch_returns_at_once(self, run: Run, world: World, machine: Machine) -> None:
        ((name, run_id),) = lines(run("backfill", "start", "--no-watch"))
        assert name == "run_id"
        status = dict(lines(run("backfill", "status", run_id)))
        assert (status["state"], status["kind"]) == ("running", "backfill")
        (status,) = objects(run("backfill", "status", "--json"))
        assert status["run_id"] == run_id


class TestVerifyAndRepair:
    def test_finds_nothing_where_the_table_equals_stripe(
        self, run: Run, world: World, machine: Machine
    ) -> None:
        assert dict(lines(run("verify")))["differences"] == "none"

    def test_differences_are_named_and_repaired(
        self, run: Run, world: World, machine: Machine
    ) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
        (stripe_id,) = on_stripe(world)
        lose_events(world)
        world.time += 40 * 86400  # Stripe lists events for 30 days
        world.reconcile()
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        result = run("verify")
        assert result.exit_code == 1
        run_id = next(iter(machine.executions))
        assert f"stripe-customers repair {run_id}" in result.stderr
        found = lines(run("backfill", "report", run_id))
        assert [row[:2] for row in found] == [[stripe_id, "missing"]]
        assert lines(run("repair", run_id, "--dry-run")) == found
        assert not world.items(record_type="Customer")
        assert dict(lines(run("repair", run_id)))["state"] == "finished"
        assert [each["stripe_id"] for each in world.items(record_type="Customer")] == [stripe_id]

    def test_report_refuses_an_id_with_a_slash(self, run: Run, machine: Machine) -> None:
        assert run("backfill", "report", "a/b").exit_code == 2
        assert run("repair", "", "--dry-run").exit_code == 2
        result = run("backfill", "report", "verify-1")
        assert result.exit_code == 1
        assert result.stderr.endswith("there is no such run\n")


class TestWriteMetadata:
    @pytest.fixture
    def stripe_ids(
        self, run: Run, world: World, machine: Machine, tmp_path: Path
    ) -> Iterator[list[str]]:
        """Customers on Stripe that a backfill gave to users."""
        stripe_ids = on_stripe(world, 2)
        rows = (f"u-{number}," + stripe_id for number, stripe_id in enumerate(stripe_ids))
        run("backfill", "start", "--mapping", mapping_file(tmp_path, *rows))
        world.time += 200
        machine.inputs.clear()
        yield stripe_ids

    def test_names_the_users_on_stripe(
        self, run: Run, world: World, machine: Machine, stripe_ids: list[str]
    ) -> None:
        refused = run("backfill", "write-metadata")
        assert (refused.exit_code, machine.inputs) == (2, [])
        ended = dict(lines(run("backfill", "write-metadata", "--yes")))
        assert (ended["kind"], ended["state"], ended["written"]) == ("metadata", "finished", "2")
        assert machine.inputs == [{"kind": "metadata"}]
        named = {c["id"]: c["metadata"] for c in world.stripe_customers()}
        assert named[stripe_ids[1]]["stripe_integrations_user_id"] == "u-1"

    def test_customer_that_stripe_refuses_is_reported_and_the_status_is_1(
        self, run: Run, world: World, machine: Machine, stripe_ids: list[str]
    ) -> None:
        full = {f"key_{number}": "x" for number in range(49)}
        world.request("POST", f"/v1/customers/{stripe_ids[0]}", {"metadata": full})
        result = run("backfill", "write-metadata", "--yes")
        assert result.exit_code == 1
        assert "the report has 1: stripe-customers backfill report metadata-" in result.stderr
        assert lines(run("backfill", "report")) == [
            [stripe_ids[0], "not-written", "Stripe refused it: metadata"]
        ]


class TestWatch:
    """A run takes hours, in which AWS does not always respond."""

    @pytest.fixture
    def failing(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
        """The errors of the next invocations."""
        errors: list[Exception] = []
        invoke = Stack.invoke

        def invoked(self: Stack, logical_id: str, event: Json) -> Any:
            if errors:
                raise errors.pop()
            return invoke(self, logical_id, event)

        monkeypatch.setattr(Stack, "invoke", invoked)
        return errors

    def test_goes_on_after_failures(
        self, run: Run, machine: Machine, failing: list[Exception]
    ) -> None:
        failing += [UNREACHABLE, refused("TooManyRequestsException", 429), refused("Service", 503)]
        assert dict(lines(run("backfill", "start")))["state"] == "finished"
        assert failing == []

    @pytest.mark.parametrize(
        ("count", "error"), [(60, UNREACHABLE), (1, refused("ExpiredTokenException", 403))]
    )
    def test_failure_that_lasts_says_how_to_return(
        self, run: Run, machine: Machine, failing: list[Exception], count: int, error: Exception
    ) -> None:
        failing += [error] * count
        result = run("backfill", "start")
        assert result.exit_code == 1
        returning, message = result.stderr.splitlines()
        assert f"backfill watch {next(iter(machine.executions))}." in returning
        assert message.startswith("error: ")
        assert failing == []


class TestUndo:
    def test_releases_what_a_run_assigned(
        self, run: Run, world: World, machine: Machine, tmp_path: Path
    ) -> None:
        (stripe_id,) = on_stripe(world)
        path = mapping_file(tmp_path, f"u-1,{stripe_id}")
        run("backfill", "start", "--mapping", path)
        run_id = next(iter(machine.executions))
        world.time += 200
        assert run("backfill", "undo", run_id).exit_code == 2
        assert dict(lines(run("backfill", "undo", run_id, "--yes")))["released"] == "1"
        assert StripeCustomer.get(USER) is None


class TestRebuild:
    def test_stores_customers_of_this_deployment(
        self, run: Run, world: World, machine: Machine
    ) -> None:
        assert dict(lines(run("rebuild")))["state"] == "finished"
        assert machine.inputs == [{"kind": "rebuild"}]


class TestTimeLeft:
    def test_is_estimated_from_the_windows_that_are_done(self) -> None:
        status = {"state": "running", "windows_done": 1, "windows": 4, "seconds": 60.0}
        assert watch.duration(watch.seconds_left(status)) == "3 min 0 s"
        assert watch.seconds_left({**status, "windows_done": 0}) is None
        assert watch.duration(7320) == "2 h 2 min"
        assert watch.duration(7.4) == "7 s"
        assert watch.duration(None) == ""

    def test_terminal_shows_a_bar(
        self, run: Run, world: World, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        on_stripe(world, 2)
        result = run("backfill", "start")
        assert "2 objects" in result.stderr


class TestConsole:
    @pytest.fixture
    def pages(self, stack: str, machine: Machine) -> FlaskClient:
        return application(Stack(stack, boto3.Session())).test_client()

    @pytest.fixture
    def started(self, pages: FlaskClient, machine: Machine) -> str:
        """A verification that is running."""
        assert pages.post("/runs/verify").status_code == 302
        (run_id,) = machine.executions
        return run_id

    def test_starts_no_second_run(self, pages: FlaskClient, machine: Machine, started: str) -> None:
        refused = pages.post("/runs/verify")
        assert refused.status_code == 409
        assert f"{started} is in progress" in refused.text
        assert list(machine.executions) == [started]

    def test_resumes_a_run_whose_execution_has_failed(
        self, pages: FlaskClient, machine: Machine, started: str
    ) -> None:
        assert "Resume" not in pages.get("/runs").text
        machine.executions[started]["status"] = "FAILED"
        for page in ("/runs", "/runs/progress"):
            assert "No execution is running" in pages.get(page).text
        pages.post(f"/runs/{started}/resume")
        assert machine.inputs[-1] == {"run_id": started}
        assert "No execution is running" not in pages.get("/runs").text

    def test_resumes_no_run_that_is_finished(
        self, pages: FlaskClient, machine: Machine, started: str
    ) -> None:
        while machine.describe_execution(executionArn=started)["status"] == "RUNNING":
            pass
        refused = pages.post(f"/runs/{started}/resume")
        assert f"{started} is finished" in refused.text
        assert list(machine.executions) == [started]
