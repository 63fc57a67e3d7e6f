"""The commands of docs/command-line.md, on a deployed local cloud and in a real terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

import pytest
from typer.testing import CliRunner

from local.cloud import (
    DOUBLE_API_KEY,
    REGION,
    ROOT,
    STACK,
    WORK,
    Cloud,
    aws_environment,
    local_cloud,
)
from local.stripe_double import StripeDoubleServer
from stripe_integrations_cli.app import app
from tests.local_cloud.faults import API_KEY, FAULTS, SIGNING, Site, missing_table, secret
from tests.local_cloud.test_events import make_due_for_the_last_time
from tests.terminal import run_in_terminal

DOCUMENT = ROOT / "docs" / "command-line.md"
SHOWN = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 300.0
JENNY = {"billing_email": "jenny@example.com", "name": "Jenny"}


@pytest.fixture(scope="module")
def cloud(functions: Path) -> Iterator[Cloud]:
    parameters = {"UnassignedCustomers": "store", "ReconcileEveryMinutes": "60"}
    with local_cloud(parameters=parameters, functions=functions) as cloud:
        yield cloud


class Operator:
    """Runs the command line as an operator does: in a pipe, or in a terminal."""

    def __init__(self, cloud: Cloud) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "STRIPE_"))}
        self.environment = {
            **inherited,
            **aws_environment(cloud.endpoint),
            "STACK": STACK,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "TERM": "xterm-256color",
            "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("shared", "cli")),
        }

    def start(self, *arguments: str, **given: Any) -> subprocess.Popen[str]:
        """Start a command."""
        command = [sys.executable, "-m", "stripe_integrations_cli", *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
        options = {"env": self.environment, "cwd": ROOT, "stderr": subprocess.PIPE, **pipes}
        return subprocess.Popen(command, **{**options, **given})

    def fails(self, code: int, *arguments: str) -> str:
        """Run a command in a pipe, which has to end with this status; return its error."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, f"{arguments}\n{out}\n{err}"
        return err

    def pipe(self, *arguments: str) -> list[list[str]]:
        """Run a command in a pipe, and return the columns of its lines."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, f"{arguments}\n{out}\n{err}"
        return [line.split("\t") for line in out.splitlines()]

    def json(self, *arguments: str) -> list[Any]:
        """Run a command, and return what it prints as JSON."""
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, f"{arguments}\n{out}\n{err}"
        return [json.loads(line) for line in out.splitlines()]

    def terminal(
        self, *arguments: str, answers: Mapping[str, str] | None = None, interrupt_at: str = ""
    ) -> tuple[int, str]:
        """Run a command in a terminal, and return its status and what is on the screen.

        What is typed, and Ctrl-C, come once the screen has a text.
        """
        command = [sys.executable, "-m", "stripe_integrations_cli", *arguments]
        return run_in_terminal(command, answers, interrupt_at, env=self.environment, cwd=ROOT)


@pytest.fixture(scope="module")
def operator(cloud: Cloud) -> Operator:
    return Operator(cloud)


@pytest.fixture(scope="module")
def customer(cloud: Cloud) -> str:
    """The customer of user-1, whose first events are applied."""
    created = cloud.request("POST", "/customers", {**JENNY, "user_id": "user-1"})
    cloud.invoke(cloud.reconcile_events, {})
    stripe_id: str = created.body["stripe_id"]
    change(cloud, stripe_id, "a first change")
    return stripe_id


def change(cloud: Cloud, stripe_id: str, description: str) -> str:
    """Change the customer on Stripe, wait until the event is applied, and return its id."""
    known = {event["pk"] for event in events_of(cloud, stripe_id)}
    cloud.stripe.client().v1.customers.update(stripe_id, {"description": description})

    def applied() -> list[str]:
        found = events_of(cloud, stripe_id)
        states = {event["state"] for event in found}
        new = [event["stripe_id"] for event in found if event["pk"] not in known]
        return new if states == {"applied"} else []

    cloud.wait_until(applied, f"the change is applied: {description}")
    return applied()[0]


def events_of(cloud: Cloud, stripe_id: str) -> list[dict[str, Any]]:
    items = [item for item in cloud.items() if item["record_type"] == "Event"]
    return [item for item in items if item.get("customer_id") == stripe_id]


def let_fail(cloud: Cloud, event: str) -> None:
    """Let an event fail, so that only a replay applies it."""
    database = cloud.client("dynamodb")
    make_due_for_the_last_time(database, cloud.table_name, f"EVENT#{event}")
    cloud.invoke(cloud.reconcile_events, {})


class TestStack:
    def test_unknown_stack_is_one_line(self, operator: Operator) -> None:
        error = operator.fails(1, "events", "failed", "--stack", "none")
        assert error == f"error: there is no stack none in {REGION}: check --stack and --region\n"

    def test_wrong_use_has_its_own_status(self, operator: Operator) -> None:
        assert operator.fails(2, "events", "list").startswith("error: give --user")
        operator.fails(2, "events", "list", "--limit", "none")

    def test_refused_call_is_one_line(self, operator: Operator) -> None:
        error = operator.fails(1, "events", "failed", "--region", "eu-north-1")
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1

    def test_shell_completes_commands(self, operator: Operator) -> None:
        variables = {"_STRIPE_CUSTOMERS_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
        words = {"COMP_WORDS": "stripe-customers events re"}
        process = operator.start(env={**operator.environment, **variables, **words})
        assert process.communicate(timeout=PATIENCE)[0].split() == ["replay"]


class TestEvents:
    def test_lists_and_shows(self, operator: Operator, cloud: Cloud, customer: str) -> None:
        event = change(cloud, customer, "to be listed")
        listed = operator.json("events", "list", "--user", "user-1")
        assert {"event": event, "state": "applied", "user": "user-1"}.items() <= next(
            each.items() for each in listed if each["event"] == event
        )
        shown = dict(operator.pipe("events", "show", event))
        assert shown["changed_on_stripe"] == "description"
        assert "to be listed" not in str(shown)

    def test_terminal_gets_a_table(self, operator: Operator, customer: str) -> None:
        status, screen = operator.terminal("events", "list", "--user", "user-1")
        assert status == 0
        assert re.search(r"\x1b\[1mevent\s+\x1b\[0m", screen)
        assert "\x1b[32mapplied" in screen
        assert customer in screen
        assert "\t" not in screen

    def test_failed_event_is_replayed_and_its_dead_letter_purged(
        self, operator: Operator, cloud: Cloud, customer: str
    ) -> None:
        event = change(cloud, customer, "to fail")
        let_fail(cloud, event)
        assert [row[0] for row in operator.pipe("events", "failed")] == [event]
        letters = operator.json("events", "dead-letters")
        assert event in [letter["event"] for letter in letters]
        error = operator.fails(1, "events", "dead-letters", "--purge", "--yes")
        assert error == f"error: not emptied: {event} is failed. Replay it first\n"
        assert operator.pipe("events", "replay", "--failed") == [["replayed", "1"]]
        assert operator.pipe("events", "failed") == []
        status, screen = operator.terminal(
            "events", "dead-letters", "--purge", answers={"[y/N]": "n"}
        )
        assert status == 1
        assert "error: nothing was changed" in plain(screen)
        status, _ = operator.terminal("events", "dead-letters", "--purge", answers={"[y/N]": "y"})
        assert status == 0
        assert event not in [row[0] for row in operator.pipe("events", "dead-letters")]

    def test_tail_prints_changes_until_ctrl_c(
        self, operator: Operator, cloud: Cloud, customer: str
    ) -> None:
        printed = cloud.folder / "tail"
        with printed.open("w") as out:
            process = operator.start("events", "tail", "--json", "--user", "user-1", stdout=out)
        try:
            event = first_applied(printed, cloud, customer)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE) == 130
        finally:
            process.kill()
        assert event["user"] == "user-1"
        assert event["type"] == "customer.updated"


def first_applied(printed: Path, cloud: Cloud, customer: str) -> dict[str, Any]:
    """Change the customer until the tail, which starts slowly, prints an applied event."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        change(cloud, customer, f"while the tail runs {time.monotonic()}")
        complete = [line for line in printed.read_text().splitlines(keepends=True) if "\n" in line]
        for event in map(json.loads, complete):
            if event["state"] == "applied":
                found: dict[str, Any] = event
                return found
    raise AssertionError("the tail has printed no applied event")


class TestConsole:
    def test_is_served_until_ctrl_c(self, operator: Operator, customer: str) -> None:
        process = operator.start("console")
        try:
            assert process.stdout
            name, address = process.stdout.readline().rstrip("\n").split("\t")
            assert name == "console"
            opener = build_opener(ProxyHandler({}), HTTPCookieProcessor())
            with opener.open(address, timeout=60) as response:
                assert "token" not in response.url
                assert customer in response.read().decode()
            with pytest.raises(HTTPError, match="403"):
                build_opener(ProxyHandler({})).open(response.url, timeout=60)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130

    def test_prints_its_address_in_a_terminal(self, operator: Operator, customer: str) -> None:
        status, screen = operator.terminal("console", interrupt_at="token=")
        assert status == 130
        assert re.search(r"http://127\.0\.0\.1:\d+/\S+/\?token=", plain(screen))


class TestRuns:
    def test_terminal_shows_progress_and_ctrl_c_leaves_the_run(
        self, operator: Operator, cloud: Cloud, customer: str
    ) -> None:
        with double(cloud).use() as stripe:
            stripe.faults.delay(1.0, None, match="GET /v1/customers")
        status, screen = operator.terminal("backfill", "start", interrupt_at="running")
        assert status == 130
        (run,) = set(re.findall(r"backfill watch (backfill-\d+)", plain(screen)))
        with double(cloud).use() as stripe:
            stripe.faults.clear()
        status, screen = operator.terminal("backfill", "watch", run)
        assert status == 0
        assert "finished" in plain(screen)

    def test_run_that_is_stopped_is_resumed(
        self, operator: Operator, cloud: Cloud, customer: str
    ) -> None:
        with double(cloud).use() as stripe:
            stripe.faults.delay(1.0, None, match="GET /v1/customers")
        ((_, run),) = operator.pipe("backfill", "start", "--no-watch")
        cloud.wait_until(lambda: run_is_known(operator, run), "the run has been started")
        assert dict(operator.pipe("backfill", "stop", run))["state"] == "stopped"
        with double(cloud).use() as stripe:
            stripe.faults.clear()
        assert dict(operator.pipe("backfill", "resume", run))["state"] == "finished"

    def test_failure_of_the_execution_is_one_line(self, operator: Operator, customer: str) -> None:
        error = operator.fails(1, "repair", "none")
        # The local AWS has an error type of its own.
        assert error.endswith(": there is no such run\n")
        assert len(error.splitlines()) == 1


def double(cloud: Cloud) -> StripeDoubleServer:
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    return cloud.stripe.double


def run_is_known(operator: Operator, run: str) -> bool:
    process = operator.start("backfill", "status", run)
    process.communicate(timeout=PATIENCE)
    return process.returncode == 0


class TestSetup:
    def test_leads_to_an_applied_webhook(self, operator: Operator, cloud: Cloud) -> None:
        forget_webhook(cloud)
        keys = {"Secret key: ": DOUBLE_API_KEY, "Restricted key: ": DOUBLE_API_KEY}
        with secret(Site(cloud), name=API_KEY, value=None):
            status, screen = operator.terminal("setup", answers={**keys, "[y/N]": "n"})
            assert status == 1
            assert plain(screen).endswith("error: nothing was changed\n")
        with secret(Site(cloud), name=API_KEY, value="sk_live_x"):
            status, screen = operator.terminal("setup", answers={**keys, "[y/N]": "y"})
        assert status == 0, screen
        assert DOUBLE_API_KEY not in screen
        assert re.findall(r"^(.+?)  (\w+)  ", plain(screen), re.MULTILINE) == [
            ("api key", "stored"),
            ("stack", "unchanged"),
            ("webhook", "registered"),
        ]
        created = cloud.request("POST", "/customers", {**JENNY, "user_id": "user-of-setup"})
        cloud.wait_until(
            lambda: is_applied(cloud, created.body["stripe_id"]), "its event is applied"
        )


def forget_webhook(cloud: Cloud) -> None:
    """Let there be no endpoint at Stripe, and no signing secret, as before a setup."""
    with double(cloud).use() as stripe:
        stripe.webhooks.endpoints.clear()
    store = cloud.client("secretsmanager")
    store.delete_secret(SecretId=SIGNING, ForceDeleteWithoutRecovery=True)
    Site(cloud).end_workers("LinkCustomer")


def is_applied(cloud: Cloud, stripe_id: str) -> bool:
    return "applied" in {event["state"] for event in events_of(cloud, stripe_id)}


class Doctor:
    """Runs `doctor` in this process, which takes half a second instead of two."""

    def __init__(self, operator: Operator, site: Site) -> None:
        self.operator = operator
        self.site = site

    def problems(self) -> list[dict[str, str]]:
        """What `doctor` prints."""
        environment = {
            **self.operator.environment,
            "STRIPE_API_KEY": DOUBLE_API_KEY,
            **self.site.environment,
        }
        now = time.time
        with pytest.MonkeyPatch.context() as patch:
            fast = SimpleNamespace(time=lambda: now() + self.site.clock_differs)
            patch.setattr("stripe_integrations_cli.doctor.time", fast)
            result = CliRunner().invoke(app, ["doctor", "--json"], env=environment)
        found = [json.loads(line) for line in result.stdout.splitlines()]
        assert result.exit_code == bool(found), result.output
        assert not re.search(r"whsec_\w", result.output)
        assert DOUBLE_API_KEY not in result.output
        return found


@pytest.fixture(scope="module")
def doctor(operator: Operator, cloud: Cloud) -> Doctor:
    """The operator of a stack on which TestSetup has run `setup`."""
    return Doctor(operator, Site(cloud))


class TestDoctor:
    def test_finds_nothing_on_a_healthy_stack(self, doctor: Doctor) -> None:
        assert doctor.problems() == []

    @pytest.mark.parametrize("name", FAULTS)
    def test_names_a_planted_fault_and_no_other(self, doctor: Doctor, name: str) -> None:
        fault = FAULTS[name]
        with fault.plant(doctor.site):
            problems = doctor.problems()
        assert {each["check"] for each in problems} == fault.checks, problems
        assert {each["result"] for each in problems} == {"problem"}
        assert any(fault.found in each["found"] for each in problems), problems
        assert all(each["to_do"] for each in problems)

    def test_names_a_table_that_was_deleted(self, doctor: Doctor) -> None:
        with missing_table(doctor.site):
            problems = doctor.problems()
        assert "there is no table deleted" in [each["found"] for each in problems]

    def test_finds_nothing_once_all_is_reverted(self, doctor: Doctor) -> None:
        assert doctor.problems() == []

    def test_terminal_gets_a_table(self, operator: Operator, doctor: Doctor) -> None:
        with FAULTS["disabled schedule"].plant(doctor.site):
            status, screen = operator.terminal("doctor")
        assert status == 1
        assert "\x1b[1;31mproblem" in screen
        assert "aws events enable-rule" in " ".join(plain(screen).split())


class TestDocument:
    """Runs last: what its commands print depends on what the tests before it have stored."""

    def test_shows_what_commands_print(self, operator: Operator, cloud: Cloud) -> None:
        document = DOCUMENT.read_text()
        fences = SHOWN.split(document)
        printed = list(fences)
        for number in range(1, len(fences), 2):
            commands = re.findall(r"^\$ (.*)$", fences[number], re.MULTILINE)
            printed[number] = "".join(self.shown(operator, cloud, each) for each in commands)
        actual = "".join(
            f"```console\n{text}```" if number % 2 else text for number, text in enumerate(printed)
        )
        WORK.mkdir(exist_ok=True)
        (WORK / DOCUMENT.name).write_text(actual)  # to be compared, and copied
        assert ids_replaced(document) == ids_replaced(actual)

    def shown(self, operator: Operator, cloud: Cloud, command: str) -> str:
        """Run a command of the document in a terminal; return it with what is on the screen."""
        prepare = PREPARATIONS.get(command.removeprefix("stripe-customers "))
        if prepare:
            operator.environment |= prepare(operator, cloud)
        arguments = shlex.split(command.removeprefix("stripe-customers "))
        filled = [operator.environment.get(a.strip("$"), a) for a in arguments]
        _, screen = operator.terminal(*filled)
        # Of a bar that moves, the document has what is left when it has ended.
        *_, left = screen.split("\x1b[?25h")
        lines = [line.rstrip() for line in plain(left).splitlines()]
        return "".join(f"{line}\n" for line in [f"$ {command}", *lines])


def no_webhook(operator: Operator, cloud: Cloud) -> dict[str, str]:
    forget_webhook(cloud)
    return {"STRIPE_API_KEY": DOUBLE_API_KEY}


def one_event(operator: Operator, cloud: Cloud) -> dict[str, str]:
    """Let the customer of the document have one event, of its change."""
    (listed,) = [c for c in operator.json("customers", "list") if c["user"] == "user-7"]
    cloud.wait_until(
        lambda: (
            len(events_of(cloud, listed["customer"])) == 2
            and {event["state"] for event in events_of(cloud, listed["customer"])} == {"applied"}
        ),
        "the events of the document's customer are applied",
    )
    updated = [e for e in events_of(cloud, listed["customer"]) if e["kind"] == "customer.updated"]
    return {"EVENT": updated[0]["stripe_id"]}


def one_failed_event(operator: Operator, cloud: Cloud) -> dict[str, str]:
    let_fail(cloud, operator.environment["EVENT"])
    return {}


PREPARATIONS = {
    "setup --dry-run": no_webhook,
    "events list --user user-7": one_event,
    "events failed": one_failed_event,
}


def ids_replaced(text: str) -> str:
    """Return a document without what differs between runs: ids, times, column widths."""
    text = re.sub(r"\b(evt|cus|req|we)_\w+", r"\1", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+Z?(\d\d:\d\d)?", "TIME", text)
    text = re.sub(r"\b\d{10}-[0-9a-f-]{36}\b", "TOKEN", text)
    text = re.sub(r"(?m)^(invoice_prefix +)\w+", r"\1PREFIX", text)
    text = re.sub(r"-\d{10}\b", "-SECONDS", text)
    text = re.sub(r"(?m)^(took|per_second|windows) .*$", r"\1", text)
    text = re.sub(r"\b\d+ checks,", "CHECKS,", text)  # those of alarms are skipped on a new stack
    return re.sub(r" +", " ", text)


def plain(screen: str) -> str:
    """What is on a screen, without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
