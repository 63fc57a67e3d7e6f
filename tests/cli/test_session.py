"""How a command ends: one plain line, and an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import stripe
import typer
from botocore.exceptions import ClientError, EndpointConnectionError
from typer.testing import CliRunner

from stripe_integrations.models import Customer
from stripe_integrations_cli.app import app
from stripe_integrations_cli.session import Session, command
from stripe_integrations_cli.stack import Stack
from tests.cli.conftest import Run, lines
from tests.world import World


def refused(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


ERRORS: dict[str, tuple[BaseException, str]] = {
    "expired token": (
        refused("ExpiredToken", "The security token is expired", "DescribeStacks"),
        "AWS refused DescribeStacks: ExpiredToken: The security token is expired",
    ),
    "access denied": (
        refused("AccessDenied", "User: arn:x is not\nauthorized", "Invoke"),
        "AWS refused Invoke: AccessDenied: User: arn:x is not authorized",
    ),
    "throttled": (
        refused("TooManyRequestsException", "Rate Exceeded.", "Invoke"),
        "AWS refused Invoke: TooManyRequestsException: Rate Exceeded.",
    ),
    "no network": (
        EndpointConnectionError(endpoint_url="https://x"),
        'EndpointConnectionError: Could not connect to the endpoint URL: "https://x"',
    ),
    "stripe": (stripe.PermissionError("This key\nmay not"), "Stripe: This key may not"),
    "file": (PermissionError(13, "Permission denied", "x"), "[Errno 13] Permission denied: 'x'"),
}


class TestErrors:
    @pytest.mark.parametrize("error", ERRORS)
    def test_are_one_line(self, run: Run, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
        raised, message = ERRORS[error]
        monkeypatch.setattr(Stack, "invoke", raising(raised))
        result = run("customers", "get", "u-1")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"error: {message}\n")

    def test_bug_has_its_traceback(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Stack, "invoke", raising(ZeroDivisionError()))
        assert isinstance(run("customers", "get", "u-1").exception, ZeroDivisionError)

    def test_ctrl_c_has_its_own_status(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Stack, "invoke", raising(KeyboardInterrupt()))
        assert run("customers", "get", "u-1").exit_code == 130

    def test_permission_that_is_missing_on_the_table_is_named(
        self, run: Run, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.configure(table_name="another-table")
        result = run("customers", "list")
        assert result.exit_code == 1
        assert result.stderr.startswith(
            "error: DatabaseMisconfiguredError: DynamoDB: ResourceNotFoundException: "
        )
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize("user", ["", "u" * 501])
    def test_invalid_user_id_is_wrong_use(self, run: Run, user: str) -> None:
        result = run("events", "list", "--user", user)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: InvalidFieldError: ")

    @pytest.mark.parametrize(
        "arguments",
        [("customers", "get", "\udcff"), ("customers", "create", "u-1", "name=\udcff")],
    )
    def test_argument_that_is_not_utf_8_is_wrong_use(
        self, run: Run, arguments: tuple[str, ...]
    ) -> None:
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (2, "error: an argument is not UTF-8\n")


class TestQuestion:
    def test_ctrl_c_at_it_changes_nothing(
        self, run: Run, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stripe_integrations_cli.session.typer.confirm", raising(typer.Abort()))
        monkeypatch.setattr("typer.testing._NamedTextIOWrapper.isatty", lambda _: True)
        assert run("customers", "delete", "u-1").exit_code == 130
        assert lines(run("customers", "get", "u-1"))


class TestStack:
    def test_that_does_not_exist_is_named_with_its_region(self, run: Run) -> None:
        result = run("env", "--stack", "lost")
        assert (result.exit_code, result.stderr) == (
            1,
            "error: there is no stack lost in eu-west-1: check --stack and --region\n",
        )

    def test_is_needed(self, stack: str) -> None:
        result = CliRunner().invoke(app, ["env"], env={"STACK": None})
        assert result.exit_code == 2
        assert result.stderr == "error: which stack? give --stack NAME, or set STACK\n"

    def test_of_another_release_is_no_traceback(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created = Stack.__init__

        def older(self: Stack, *given: Any) -> None:
            created(self, *given)
            del self.outputs["WalkMachineArn"], self.parameters["WalkWorkers"]

        monkeypatch.setattr(Stack, "__init__", older)
        assert run("verify").stderr == (
            "error: the stack has no output WalkMachineArn: deploy this release\n"
        )
        assert "no parameter WalkWorkers" in run("backfill", "start", "--dry-run").stderr


class TestCredentials:
    @pytest.fixture(autouse=True)
    def variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
            monkeypatch.setenv(name, "")  # what a command sets is forgotten after the test
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")

    def test_profile_option_takes_precedence_over_keys_in_the_environment(self) -> None:
        Session("dev", None, "prod", as_json=False)
        assert os.environ["AWS_PROFILE"] == "prod"
        assert "AWS_ACCESS_KEY_ID" not in os.environ
        assert "AWS_SECRET_ACCESS_KEY" not in os.environ

    def test_keys_in_the_environment_remain_without_one(self) -> None:
        Session("dev", "eu-central-1", None, as_json=False)
        assert os.environ["AWS_ACCESS_KEY_ID"] == "AKIA"
        assert os.environ["AWS_DEFAULT_REGION"] == "eu-central-1"

    def test_region_is_read_as_the_aws_cli_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_REGION", "eu-west-3")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        Session("dev", None, None, as_json=False)
        assert os.environ["AWS_DEFAULT_REGION"] == "eu-west-3"

    def test_no_region_and_no_profile_are_one_line(self) -> None:
        for options, error in (([], "NoRegionError: "), (["--profile", "lost"], "ProfileNotFound")):
            result = CliRunner().invoke(app, ["env", "--stack", "dev", *options])
            assert result.exit_code == 1
            assert result.stderr.startswith(f"error: {error}")
            assert len(result.stderr.splitlines()) == 1


class TestPipe:
    def test_that_is_closed_ends_a_command_quietly(self) -> None:
        command = [sys.executable, "-c", "from tests.cli.test_session import print_lines as p; p()"]
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (1, b"")


def print_lines() -> None:
    """A command that prints more than a pipe takes."""
    printing = typer.Typer()

    @command(printing, "print")
    def _(session: Session) -> None:
        session.output.rows(("n",), ({"n": n} for n in range(100_000)))

    printing()


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail
