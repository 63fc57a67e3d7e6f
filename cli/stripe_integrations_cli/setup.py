"""``setup``: from nothing to a live webhook, which skips the steps that are done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from stripe_integrations_cli.doctor import REFUSED_SIGNATURE, Finding, check_stack, report
from stripe_integrations_cli.errors import CommandError, UsageError
from stripe_integrations_cli.key import store_key
from stripe_integrations_cli.project import DEFAULTS, Project, quoted
from stripe_integrations_cli.secret_store import SecretStore
from stripe_integrations_cli.session import Session, Yes
from stripe_integrations_cli.stack import Deployment, Stack, parameters_of
from stripe_integrations_cli.stripe_account import (
    KEY_VARIABLE,
    ask_for_secret_key,
    client_with_key,
    is_key_of_mode,
)
from stripe_integrations_cli.webhook import (
    EventOption,
    current,
    enable,
    endpoints_of,
    is_without_secret,
    missing_types,
    register,
    several,
)

_UNUSABLE = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
"""The stack was never deployed, and CloudFormation does not deploy it: it has to be deleted."""
_DEPLOYED = ("CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
_NOT_CREATED = "REVIEW_IN_PROGRESS"
"""There is a change set, which was not executed."""
_IN_PROGRESS = "_IN_PROGRESS"
_SECONDS_BETWEEN_LOOKS = 5
_WITH_ENDPOINT = ("function-url", "http-api")
_FUNCTIONS_KEY = (
    "The functions need a restricted key. Create it in Stripe's Dashboard in {mode} mode, with the "
    "permissions in docs/deploy.md#create-the-keys."
)
_REGISTER = "register the endpoint, and store its signing secret"
_OPERATORS_KEY = "The secret key registers the webhook endpoint. It is not stored."


@dataclass(frozen=True)
class Progress:
    """What a step has found or done.

    Parameters
    ----------
    step : str
        The step.
    result : str
        ``to do``, ``unchanged``, ``skipped``, or what was done.
    detail : str
        To what.
    """

    step: str
    result: str
    detail: str

    COLUMNS = ("step", "result", "detail")


class Step(Protocol):
    """A step of the setup."""

    def plan(self) -> Progress:
        """Return what is to be done, or that nothing is."""

    def run(self) -> Progress:
        """Do what is to be done, and return what was done, or what is left to do."""


def setup(
    session: Session,
    *,
    config_env: Annotated[
        str | None,
        typer.Option("--config-env", help="The environment of samconfig.toml; by default, dev."),
    ] = None,
    project: Annotated[
        Path,
        typer.Option("--project", metavar="FOLDER", help="The project; by default, this folder."),
    ] = Path(),
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", metavar="NAME=VALUE", help="A parameter of the stack; may be repeated."
        ),
    ] = None,
    event: EventOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")
    ] = False,
    is_confirmed: Yes = False,
) -> None:
    """Set up a stack: store the key, deploy, register the webhook endpoint, check the stack.

    Steps that are done are skipped: run it again after Ctrl-C or a failure.
    Keys are typed at prompts; without a terminal, they are lines of standard input, the secret key
    first, unless it is in STRIPE_API_KEY.
    """
    given = _parameters(parameter or ())
    open_project = partial(Project, project, config_env or "dev")
    if config_env and session.stack_name not in (None, "", open_project().stack_name):
        raise UsageError(
            f"--config-env {config_env} is for {open_project().stack_name}, "
            f"and --stack or STACK says {session.stack_name}: give one of them"
        )
    target = _target(session, open_project, given)
    _say_where(session, target)
    secret_key = _secret_key(session, target, dry_run=dry_run)
    steps: list[Step] = [
        ApiKeyStep(session, target),
        StackStep(target, open_project, given, is_confirmed=is_confirmed),
        WebhookStep(session, target, secret_key, set(event or ())),
    ]
    plans = [step.plan() for step in steps]
    if dry_run:
        session.output.rows(Progress.COLUMNS, map(asdict, plans))
        return
    try:
        done = _run(session, steps, plans, is_confirmed=is_confirmed)
    except (KeyboardInterrupt, typer.Abort):
        session.output.say("interrupted: run setup again to continue")
        raise
    findings = check_stack(Stack(target.name, session.aws), secret_key)
    report(session, _soon(findings) if "registered" in done else findings)


def _run(
    session: Session, steps: Sequence[Step], plans: Sequence[Progress], *, is_confirmed: bool
) -> set[str]:
    """Run the steps that are to do, and return the results of all."""
    listed = {plan.detail for plan in plans if plan.result == "to do"}
    for plan in plans:
        if plan.result == "to do":
            session.output.say(f"to do: {plan.detail}")
    if listed:
        session.confirm("Do this?", is_confirmed=is_confirmed)
    else:
        session.output.say("nothing to do")
    results = set()
    for step in steps:
        progress = step.plan()  # again: what was deployed in the meantime may need other things
        while progress.result == "to do":
            if progress.detail not in listed:
                session.output.say(f"to do: {progress.detail}")
                session.confirm("Do this too?", is_confirmed=is_confirmed, refused="not done")
            progress = step.run()
        session.output.row(Progress.COLUMNS, asdict(progress))
        results.add(progress.result)
    return results


def _soon(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings after a registration: functions read the new secret within five minutes."""
    for each in findings:
        yield replace(each, result="skipped") if each.found == REFUSED_SIGNATURE else each


def _parameters(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise UsageError(f"--parameter {wrong[0]}: this is not NAME=VALUE")
    for name, _, value in pairs:
        quoted(name, value)  # refuses it before anything is changed
    return {name: value for name, _, value in pairs}


def _target(
    session: Session, open_project: Callable[[], Project], given: Mapping[str, str]
) -> Deployment:
    """The stack as it will be: with the parameters that it has or will have."""
    name = session.stack_name or open_project().stack_name
    found = Deployment(name, {}, session.aws).describe()
    if found is None or _status(found) is None:
        chosen: Mapping[str, str] = open_project().parameters
    else:
        chosen = parameters_of(name, found)
    return Deployment(name, {**DEFAULTS, **chosen, **given}, session.aws)


def _status(found: Mapping[str, Any] | None) -> str | None:
    """The state of a stack; None if it was never created."""
    if found is None or found["StackStatus"] == _NOT_CREATED:
        return None
    return str(found["StackStatus"])


def _say_where(session: Session, target: Deployment) -> None:
    account = target.client("sts").get_caller_identity()["Account"]
    session.output.say(f"{target.name} in {session.aws.region_name} of the AWS account {account}")


def _secret_key(session: Session, target: Deployment, *, dry_run: bool) -> str | None:
    """The key that registers the endpoint; None if there will be none, or it is not known."""
    if target.parameters["WebhookIngress"] not in _WITH_ENDPOINT:
        return None
    if not os.environ.get(KEY_VARIABLE):
        if dry_run:
            return None
        session.output.say(_OPERATORS_KEY)
    return ask_for_secret_key(target)


class ApiKeyStep:
    """Stores the restricted key of the functions.

    Parameters
    ----------
    session : Session
        The call of the command.
    target : Deployment
        The stack.
    """

    def __init__(self, session: Session, target: Deployment) -> None:
        self._session = session
        self._target = target
        self._name = target.parameters["StripeApiKeyName"]

    def plan(self) -> Progress:
        """Return whether a key is stored."""
        mode = self._target.parameters["StripeMode"]
        stored = SecretStore(self._target).api_key()
        if stored is None:
            return Progress("api key", "to do", f"store the restricted key as {self._name}")
        if not is_key_of_mode(self._target, stored.strip()):
            return Progress("api key", "to do", f"replace {self._name}: it is no {mode}-mode key")
        return Progress("api key", "unchanged", f"{self._name} has a {mode}-mode key")

    def run(self) -> Progress:
        """Ask for the key, let Stripe check it, and store it."""
        mode = self._target.parameters["StripeMode"]
        self._session.output.say(_FUNCTIONS_KEY.format(mode=mode))
        store_key(self._target)
        return Progress("api key", "stored", self._name)


class StackStep:
    """Deploys the stack.

    Parameters
    ----------
    target : Deployment
        The stack.
    open_project : callable
        Returns the project, which is needed only for a deployment.
    given : mapping
        Parameters that the stack has to have.
    is_confirmed : bool
        Whether `--yes` was given.
    """

    def __init__(
        self,
        target: Deployment,
        open_project: Callable[[], Project],
        given: Mapping[str, str],
        *,
        is_confirmed: bool,
    ) -> None:
        self._target = target
        self._open_project = open_project
        self._given = given
        self._is_confirmed = is_confirmed

    def plan(self) -> Progress:
        """Return whether the stack is deployed, with the given parameters."""
        name, found = self._target.name, self._target.describe()
        status = _status(found)
        if found is None or status is None:
            options = f"--config-env {self._open_project().environment} --stack-name {name}"
            return Progress("stack", "to do", f"deploy {name}: sam build, sam deploy {options}")
        if status == "DELETE_IN_PROGRESS":
            raise CommandError(f"{name} is being deleted: run setup again afterwards")
        if status.endswith(_IN_PROGRESS):
            return Progress("stack", "to do", f"wait for the deployment of {name}")
        if status in _UNUSABLE:
            raise CommandError(f"{name} is {status}: read its events, delete it, run setup again")
        if status not in _DEPLOYED:
            raise CommandError(f"{name} is {status}: read its events, which say what has failed")
        has = parameters_of(name, found)
        changed = [f"{n}={value}" for n, value in self._given.items() if has.get(n) != value]
        if changed:
            return Progress("stack", "to do", f"deploy {name} with {', '.join(changed)}")
        return Progress("stack", "unchanged", f"{name} is deployed")

    def run(self) -> Progress:
        """Wait for a deployment that was interrupted; otherwise deploy."""
        if self._is_in_progress():
            while self._is_in_progress():
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        else:
            self._deploy()
            if self.plan().result == "to do":  # the answer to SAM's question was no
                raise CommandError(f"{self._target.name} was not deployed")
        progress = self.plan()
        if progress.result == "to do":
            return progress
        return Progress("stack", "deployed", self._target.name)

    def _is_in_progress(self) -> bool:
        return (_status(self._target.describe()) or "").endswith(_IN_PROGRESS)

    def _deploy(self) -> None:
        project = self._open_project()
        # An existing stack keeps the values of the parameters that are not passed.
        is_new = _status(self._target.describe()) is None
        of_environment = project.parameters if is_new else {}
        parameters = {**of_environment, **self._given} if self._given else {}
        region = self._target.client("cloudformation").meta.region_name
        project.deploy(self._target.name, region, parameters, is_confirmed=self._is_confirmed)


class WebhookStep:
    """Registers the stack's webhook at Stripe, and stores its signing secret.

    Parameters
    ----------
    session : Session
        The call of the command.
    target : Deployment
        The stack.
    secret_key : str or None
        The operator's key.
    types : set of str
        Types of event besides those that the stack needs.
    """

    def __init__(
        self, session: Session, target: Deployment, secret_key: str | None, types: set[str]
    ) -> None:
        self._session = session
        self._target = target
        self._client: Any = client_with_key(target, secret_key) if secret_key else None
        self._types = types

    def plan(self) -> Progress:
        """Return whether the endpoint is as this release needs it."""
        ingress = self._target.parameters["WebhookIngress"]
        if ingress not in _WITH_ENDPOINT:
            page = "docs/deploy.md#choose-how-events-arrive"
            return Progress("webhook", "skipped", f"events arrive by {ingress}: {page}")
        if self._client is None:
            return Progress("webhook", "to do", f"with a secret key: {KEY_VARIABLE} is not set")
        if _status(self._target.describe()) in _DEPLOYED:
            stack = Stack(self._target.name, self._session.aws)
            if "WebhookUrl" in stack.outputs:
                return self._plan_endpoint(stack)
        return Progress("webhook", "to do", _REGISTER)

    def run(self) -> Progress:
        """Register the endpoint, or change it."""
        stack = Stack(self._target.name, self._session.aws)
        endpoint, types = self._endpoint(stack), self._types
        if endpoint is not None:
            if not self._is_to_be_replaced(stack, endpoint):
                enable(stack, self._client, endpoint, types)
                return Progress("webhook", "updated", endpoint.id)
            self._client.v1.webhook_endpoints.delete(endpoint.id)
            types = {*types, *endpoint.enabled_events}
        return Progress("webhook", "registered", register(stack, self._client, types).id)

    def _plan_endpoint(self, stack: Stack) -> Progress:
        endpoint = self._endpoint(stack)
        if endpoint is None:
            return Progress("webhook", "to do", _REGISTER)
        if self._is_to_be_replaced(stack, endpoint):
            what = f"replace {endpoint.id}, whose signing secret is not stored"
            return Progress("webhook", "to do", what)
        if endpoint.status != "enabled" or missing_types(stack, endpoint, self._types):
            return Progress("webhook", "to do", f"enable {endpoint.id} for the types it lacks")
        return Progress("webhook", "unchanged", endpoint.id)

    def _is_to_be_replaced(self, stack: Stack, endpoint: Any) -> bool:
        """Whether the endpoint's secret, which Stripe shows only once, is not stored."""
        return is_without_secret(stack, endpoint) or not SecretStore(stack).signing_secrets()

    def _endpoint(self, stack: Stack) -> Any:
        """The endpoint of this release; None if there is none."""
        found = current(endpoints_of(stack, self._client))
        if len(found) > 1:
            raise CommandError(several(found))
        return found[0] if found else None
