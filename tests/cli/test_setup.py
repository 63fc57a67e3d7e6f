"""`setup`: each step on moto and the Stripe double, with a SAM that creates moto's stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import boto3
import pytest
import stripe

from local.stripe_double.client import StripeDoubleClient
from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.config import API_VERSION
from stripe_integrations_cli.doctor import REFUSED_SIGNATURE, Finding
from stripe_integrations_cli.errors import CommandError, UsageError
from stripe_integrations_cli.project import DEFAULTS, Project
from stripe_integrations_cli.secret_store import SecretStore
from stripe_integrations_cli.session import Session
from stripe_integrations_cli.stack import Deployment
from tests.cli.conftest import STACK, Json, Run, lines, objects, stack_template
from tests.world import World
from tools.template import ROOT, template

SECRET, RESTRICTED = "sk_test_operator", "rk_test_functions"
KEY_NAME, SIGNING = "/".join(("stripe", "api-key")), "/".join(("stripe", "webhook-secret"))
REGION = "eu-west-1"
DEPLOY = ["deploy", "--config-env", "dev", "--stack-name", STACK, "--region", REGION]
DEPLOY += ["--no-confirm-changeset"]


class Sam:
    """SAM: its deployment creates the stack, with the parameters that it is given."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: list[list[str]] = []
        self.before: Callable[[str], object] = lambda _: None
        self.code = 0
        self.answer = "yes"

    def run(self, command: list[str], *, env: dict[str, str], **_: Any) -> CompletedProcess[str]:
        arguments = command[1:]
        assert "STRIPE_API_KEY" not in env
        assert self.answer == "yes" or arguments not in self.calls, "run again after a no"
        self.calls.append(arguments)
        self.before(arguments[0])
        if arguments[0] == "deploy" and self.answer == "yes" and not self.code:
            pairs = [each.split("=", 1) for each in arguments if "=" in each]
            parameters = {name: value.strip('"') for name, value in pairs}
            client = boto3.client("cloudformation")
            if client.describe_stacks()["Stacks"]:
                client.delete_stack(StackName=STACK)
            body = stack_template(self.world, parameters)
            client.create_stack(StackName=STACK, TemplateBody=body)
        return CompletedProcess(command, self.code)


@pytest.fixture
def sam(stack: str, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sam]:
    """No stack, no secret and no endpoint yet; the keys are those of the account."""
    boto3.client("cloudformation").delete_stack(StackName=stack)
    sam = Sam(world)
    monkeypatch.setattr("stripe_integrations_cli.project.subprocess.run", sam.run)
    monkeypatch.setattr("stripe_integrations_cli.project.shutil.which", lambda _: "sam")
    monkeypatch.setattr("stripe_integrations_cli.setup.check_stack", lambda *_: iter(()))
    client = stripe.StripeClient

    def connected(key: str, **options: Any) -> Any:
        return client(key, **{"http_client": StripeDoubleClient(world.stripe), **options})

    monkeypatch.setattr(stripe, "StripeClient", connected)
    monkeypatch.setenv("STRIPE_API_KEY", SECRET)
    monkeypatch.chdir(ROOT)
    world.stripe.api_keys = {SECRET, RESTRICTED}
    world.stripe.webhooks.endpoints.clear()
    yield sam
    store = boto3.client("secretsmanager")
    for found in store.list_secrets()["SecretList"]:
        store.delete_secret(SecretId=found["Name"], ForceDeleteWithoutRecovery=True)


def stored() -> dict[str, str]:
    """The secrets by their names."""
    store = boto3.client("secretsmanager")
    names = [found["Name"] for found in store.list_secrets()["SecretList"]]
    return {name: store.get_secret_value(SecretId=name)["SecretString"] for name in names}


def set_up(run: Run, *arguments: str, typed: str = f"{RESTRICTED}\n") -> list[list[str]]:
    return lines(run("setup", *arguments, "--yes", input=typed, env={"STACK": None}))


class TestFresh:
    def test_leads_to_a_registered_webhook(self, run: Run, sam: Sam, world: World) -> None:
        rows = set_up(run)
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        assert rows == [
            ["api key", "stored", KEY_NAME],
            ["stack", "deployed", STACK],
            ["webhook", "registered", endpoint.id],
        ]
        assert sam.calls == [["build"], DEPLOY]
        assert set(endpoint.enabled_events) == set(applied_event_types())
        assert stored() == {KEY_NAME: RESTRICTED, SIGNING: endpoint.secrets[0]}

    def test_second_run_changes_nothing(self, run: Run, sam: Sam, world: World) -> None:
        set_up(run)
        before, endpoints = stored(), dict(world.stripe.webhooks.endpoints)
        result = run("setup")
        assert [result for _, result, _ in lines(result)] == ["unchanged"] * 3
        assert "nothing to do" in result.stderr
        assert (stored(), world.stripe.webhooks.endpoints) == (before, endpoints)
        assert len(sam.calls) == 2

    def test_no_key_is_printed(self, run: Run, sam: Sam) -> None:
        result = run("setup", "--yes", input=f"{RESTRICTED}\n")
        assert "_test_" not in result.output
        assert "whsec" not in result.output

    def test_asks_before_anything_is_changed(self, run: Run, sam: Sam, world: World) -> None:
        result = run("setup", input=f"{RESTRICTED}\n")
        assert result.exit_code == 2
        assert f"to do: deploy {STACK}" in result.stderr
        assert (stored(), sam.calls, world.stripe.webhooks.endpoints) == ({}, [], {})

    def test_dry_run_asks_for_nothing(self, run: Run, sam: Sam, world: World) -> None:
        planned = objects(run("setup", "--dry-run", "--json", env={"STRIPE_API_KEY": None}))
        assert [each["result"] for each in planned] == ["to do"] * 3
        assert (stored(), sam.calls, world.stripe.webhooks.endpoints) == ({}, [], {})

    def test_secret_key_is_the_first_line_without_the_variable(self, run: Run, sam: Sam) -> None:
        typed, environment = f"{SECRET}\n{RESTRICTED}\n", {"STRIPE_API_KEY": None}
        assert run("setup", "--yes", input=typed, env=environment).exit_code == 0
        assert stored()[KEY_NAME] == RESTRICTED

    def test_key_without_a_permission_is_not_stored(self, run: Run, sam: Sam, world: World) -> None:
        world.stripe.faults.fail_next(status=403, match="GET /v1/events")
        result = run("setup", "--yes", input=f"{RESTRICTED}\n")
        assert result.stderr.endswith("error: the key may not read events: nothing was changed\n")
        assert (stored(), sam.calls) == ({}, [])

    def test_problem_that_doctor_finds_is_the_status(
        self, run: Run, sam: Sam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        problem = Finding("clock", "problem", "is wrong", "set it")
        monkeypatch.setattr("stripe_integrations_cli.setup.check_stack", lambda *_: iter([problem]))
        result = run("setup", "--yes", input=f"{RESTRICTED}\n")
        assert result.exit_code == 1
        assert "clock\tproblem\tis wrong\tset it" in result.stdout


class TestInterrupted:
    """What is done remains, and another run continues."""

    @pytest.mark.parametrize("command", ["build", "deploy"])
    def test_deployment(self, run: Run, sam: Sam, command: str) -> None:
        def interrupt(called: str) -> None:
            if called == command:
                raise KeyboardInterrupt

        sam.before = interrupt
        result = run("setup", "--yes", input=f"{RESTRICTED}\n")
        assert result.exit_code == 130
        assert "interrupted: run setup again to continue" in result.stderr
        assert stored() == {KEY_NAME: RESTRICTED}
        sam.before = lambda _: None
        done = [result for _, result, _ in set_up(run, typed="")]
        assert done == ["unchanged", "deployed", "registered"]

    def test_deployment_that_continues_is_waited_for(
        self, run: Run, sam: Sam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(run)
        left = ["CREATE_IN_PROGRESS"] * 6
        describe, waited = Deployment.describe, []

        def in_progress(self: Deployment) -> Json | None:
            found = describe(self)
            assert found
            return {**found, "StackStatus": left[0] if left else found["StackStatus"]}

        def sleep(_: float) -> None:
            waited.append(left.pop())

        monkeypatch.setattr(Deployment, "describe", in_progress)
        monkeypatch.setattr("stripe_integrations_cli.setup.time.sleep", sleep)
        done = [result for _, result, _ in set_up(run)]
        assert done == ["unchanged", "deployed", "unchanged"]
        assert (len(waited), len(sam.calls)) == (6, 2)

    def test_endpoint_whose_secret_was_not_stored_is_replaced(
        self, run: Run, sam: Sam, world: World
    ) -> None:
        set_up(run)
        (before,) = world.stripe.webhooks.endpoints
        boto3.client("secretsmanager").delete_secret(
            SecretId=SIGNING, ForceDeleteWithoutRecovery=True
        )
        *_, (_, result, after) = set_up(run)
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        assert (result, endpoint.id) == ("registered", after)
        assert after != before
        assert stored()[SIGNING] == endpoint.secrets[0]

    def test_endpoint_whose_registration_was_interrupted_is_replaced(
        self, run: Run, sam: Sam, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(run, "--event", "invoice.paid")
        (before,) = world.stripe.webhooks.endpoints.values()
        world.stripe.webhooks.endpoints.clear()
        write = SecretStore.write_signing_secrets

        def kill(*_: object) -> None:
            (endpoint,) = world.stripe.webhooks.endpoints.values()
            left.append(replace(endpoint))
            raise KeyboardInterrupt

        left: list[Any] = []
        monkeypatch.setattr(SecretStore, "write_signing_secrets", kill)
        assert run("setup", "--yes", "--event", "invoice.paid").exit_code == 130
        monkeypatch.setattr(SecretStore, "write_signing_secrets", write)
        world.stripe.webhooks.endpoints[left[0].id] = left[0]
        *_, (_, result, after) = set_up(run)
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        assert (result, endpoint.id) == ("registered", after)
        assert endpoint.id not in (before.id, left[0].id)
        assert "invoice.paid" in endpoint.enabled_events
        assert stored()[SIGNING].split()[0] == endpoint.secrets[0]
        assert [result for _, result, _ in set_up(run)] == ["unchanged"] * 3


def stack_is(status: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """What setup says about a stack in this state."""
    parameters = [{"ParameterKey": "StripeMode", "ParameterValue": "test"}]
    found = {"StackStatus": status, "Parameters": parameters}
    monkeypatch.setattr(Deployment, "describe", lambda _: found)
    result = run("setup", "--yes")
    assert result.exit_code == 1
    assert status in result.stderr or "is being deleted" in result.stderr
    return result.stderr


class TestDeployment:
    def test_that_failed_is_named(
        self, run: Run, sam: Sam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sam.code = 1
        result = run("setup", "--yes", input=f"{RESTRICTED}\n")
        assert result.exit_code == 1
        assert "error: sam build has failed" in result.stderr
        assert stack_is("ROLLBACK_COMPLETE", run, monkeypatch).endswith(
            "delete it, run setup again\n"
        )

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            ("UPDATE_ROLLBACK_FAILED", "read its events, which say what has failed\n"),
            ("DELETE_IN_PROGRESS", "is being deleted: run setup again afterwards\n"),
        ],
    )
    def test_of_a_stack_with_data_is_not_advised_to_delete_it(
        self, run: Run, sam: Sam, monkeypatch: pytest.MonkeyPatch, status: str, error: str
    ) -> None:
        assert stack_is(status, run, monkeypatch).endswith(error)
        assert sam.calls == []

    @pytest.mark.parametrize("options", [["--yes"], ["--dry-run"]])
    @pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_IN_PROGRESS"])
    def test_over_a_foreign_stack_is_refused(
        self,
        run: Run,
        sam: Sam,
        monkeypatch: pytest.MonkeyPatch,
        status: str,
        options: list[str],
    ) -> None:
        monkeypatch.setattr(Deployment, "describe", lambda _: {"StackStatus": status})
        result = run("setup", *options, "--parameter", "LogLevel=INFO", input=f"{RESTRICTED}\n")
        assert result.stderr == f"error: {STACK} is not a stack of this product\n"
        assert (stored(), sam.calls) == ({}, [])

    def test_that_was_declined_at_sams_question_is_an_error(self, run: Run, sam: Sam) -> None:
        sam.answer = "no"
        result = run("setup", "--yes", input=f"{RESTRICTED}\n")
        assert result.exit_code == 1
        assert result.stderr.endswith(f"error: {STACK} was not deployed\n")

    def test_of_an_environment_with_another_stack_is_refused(self, run: Run, sam: Sam) -> None:
        result = run("setup", "--config-env", "prod", "--yes")
        assert result.exit_code == 2
        assert f"is for stripe-customers, and --stack or STACK says {STACK}" in result.stderr
        assert (stored(), sam.calls) == ({}, [])

    def test_without_sam_says_so(self, run: Run, sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("stripe_integrations_cli.project.shutil.which", lambda _: None)
        result = run("setup", "--yes", input=f"{RESTRICTED}\n")
        assert result.stderr.endswith(
            "error: sam is not installed: see docs/deploy.md#what-you-need\n"
        )

    def test_outside_the_project_says_so(
        self, run: Run, sam: Sam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir("/")
        assert "there is no samconfig.toml" in run("setup").stderr
        assert run("setup", "--config-env", "none", "--project", str(ROOT)).exit_code == 2

    def test_parameters_are_added_to_those_of_the_environment(self, run: Run, sam: Sam) -> None:
        set_up(run, "--parameter", "ExistingCustomers=check")
        _, deploy = sam.calls
        assert deploy[: len(DEPLOY)] == DEPLOY
        assert {'LogLevel="DEBUG"', 'ExistingCustomers="check"'} < set(deploy)
        assert "nothing to do" in run("setup", "--parameter", "ExistingCustomers=check").stderr
        set_up(run, "--parameter", "ExistingCustomers=ignore")
        assert sam.calls[-1] == [*DEPLOY, "--parameter-overrides", 'ExistingCustomers="ignore"']

    def test_secrets_are_stored_where_the_parameters_say(self, run: Run, sam: Sam) -> None:
        set_up(run, "--parameter", "SecretStore=ssm", "--parameter", "StripeApiKeyName=k/y")
        found = boto3.client("ssm").get_parameter(Name="/k/y", WithDecryption=True)
        assert found["Parameter"]["Value"] == RESTRICTED
        assert stored() == {}
        boto3.client("ssm").delete_parameters(Names=["/k/y", f"/{SIGNING}"])

    @pytest.mark.parametrize(
        "given", ["ExistingCustomers", "Log-Level=x", "LogLevel=x\\", "LogLevel=x\\ y"]
    )
    def test_wrong_parameter_is_refused(self, run: Run, sam: Sam, given: str) -> None:
        assert run("setup", "--yes", "--parameter", given, input=f"{RESTRICTED}\n").exit_code == 2
        assert stored() == {}

    def test_quotes_in_a_parameter_are_escaped(self, run: Run, sam: Sam) -> None:
        run("setup", "--yes", "--parameter", 'HandlerEnvironment=A="b c"', input=f"{RESTRICTED}\n")
        assert sam.calls[-1][-1] == r'HandlerEnvironment="A=\"b c\""'


class TestWebhook:
    def test_endpoint_gets_what_it_lacks(self, run: Run, sam: Sam, world: World) -> None:
        set_up(run)
        (endpoint,) = world.stripe.webhooks.endpoints.values()
        endpoint.is_disabled = True
        *_, (_, result, _) = set_up(run, "--event", "invoice.paid")
        assert result == "updated"
        assert "invoice.paid" in endpoint.enabled_events
        assert not endpoint.is_disabled
        *_, (_, result, _) = set_up(run, "--event", "invoice.paid")
        assert result == "unchanged"

    def test_step_that_was_not_listed_is_confirmed_too(
        self, run: Run, sam: Sam, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(run)
        (endpoint,) = world.stripe.webhooks.endpoints.values()

        def disable(command: str) -> None:
            endpoint.is_disabled = command == "deploy"

        def confirm(_: Session, question: str, **given: str | bool) -> None:
            asked.append(question)
            if question != "Do this?":
                raise CommandError(str(given["refused"]))

        asked: list[str] = []
        sam.before = disable
        monkeypatch.setattr(Session, "confirm", confirm)
        result = run("setup", "--parameter", "LogLevel=DEBUG")
        assert asked == ["Do this?", "Do this too?"]
        assert result.stderr.endswith(
            f"to do: enable {endpoint.id} for the types it lacks\nerror: not done\n"
        )
        assert endpoint.is_disabled

    def test_two_endpoints_of_this_release_are_refused(
        self, run: Run, sam: Sam, world: World
    ) -> None:
        set_up(run)
        world.stripe.webhooks.add_endpoint("https://hook", "whsec_x", ["*"], API_VERSION)
        result = run("setup", "--yes")
        assert result.exit_code == 1
        assert "2 endpoints of this version: delete all but one of " in result.stderr

    def test_new_secret_that_a_function_has_not_read_yet_is_no_problem(
        self, run: Run, sam: Sam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused = Finding("webhook", "problem", REFUSED_SIGNATURE, "wait")
        monkeypatch.setattr("stripe_integrations_cli.setup.check_stack", lambda *_: iter([refused]))
        assert set_up(run)[-1] == ["webhook", "skipped", REFUSED_SIGNATURE, "wait"]
        assert run("setup", "--yes").exit_code == 1

    def test_is_skipped_where_there_is_none(self, run: Run, sam: Sam, world: World) -> None:
        *_, (_, result, detail) = set_up(run, "--parameter", "WebhookIngress=eventbridge")
        assert result == "skipped"
        assert "choose-how-events-arrive" in detail
        assert not world.stripe.webhooks.endpoints


class TestKey:
    def test_secret_key_is_not_stored_as_the_functions_key(self, run: Run, sam: Sam) -> None:
        result = run("setup", "--yes", input=f"{SECRET}\n")
        assert result.exit_code == 1
        assert "this is a secret key, not a restricted one" in result.stderr
        assert (stored(), sam.calls) == ({}, [])

    def test_of_the_other_mode_is_replaced(self, run: Run, sam: Sam) -> None:
        boto3.client("secretsmanager").create_secret(Name=KEY_NAME, SecretString="rk_live_x")
        set_up(run)
        assert stored()[KEY_NAME] == RESTRICTED

    def test_of_live_mode_is_refused_for_a_stack_in_test_mode(self, run: Run, sam: Sam) -> None:
        assert run("setup", "--yes", input="rk_live_x\n").exit_code == 1
        assert run("setup", env={"STRIPE_API_KEY": "sk_live_x"}).exit_code == 1
        assert stored() == {}


def test_defaults_are_those_of_the_template() -> None:
    parameters = template()["Parameters"]
    assert {name: parameters[name]["Default"] for name in DEFAULTS} == DEFAULTS


def test_environments_name_their_secrets() -> None:
    project = Project(ROOT, "prod")
    assert project.stack_name == "stripe-customers"
    assert project.parameters["StripeMode"] == "live"


PARAMETERS = "[dev.deploy.parameters]\nstack_name = 'x'\n"


@pytest.mark.parametrize(
    "given",
    [
        "'LogLevel=INFO Canary=true'",
        "['LogLevel=INFO', 'Canary=true']",
        "'ParameterKey=LogLevel,ParameterValue=INFO ParameterKey=Canary,ParameterValue=true'",
        "{LogLevel = 'INFO', Canary = 'true'}",
    ],
)
def test_parameters_in_every_form_of_sam(tmp_path: Path, given: str) -> None:
    (tmp_path / "samconfig.toml").write_text(f"{PARAMETERS}parameter_overrides = {given}")
    assert Project(tmp_path, "dev").parameters == {"LogLevel": "INFO", "Canary": "true"}


@pytest.mark.parametrize(
    "text",
    [
        "[dev",
        "dev = 1",
        "[dev.deploy.parameters]",
        "[dev.build.parameters]",
        f"{PARAMETERS}parameter_overrides = 'LogLevel'",
        f"{PARAMETERS}parameter_overrides = 1",
    ],
)
def test_project_that_cannot_be_read_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "samconfig.toml").write_text(text)
    with pytest.raises(UsageError, match="samconfig"):
        Project(tmp_path, "dev")


def test_profile_of_the_project_has_to_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    (tmp_path / "samconfig.toml").write_text(f"{PARAMETERS}profile = 'other'")
    with pytest.raises(CommandError, match="has the profile other"):
        Project(tmp_path, "dev").deploy("x", "us-east-1", {}, is_confirmed=True)
