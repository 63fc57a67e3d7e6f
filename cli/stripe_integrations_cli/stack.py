"""A deployed stack: its outputs and parameters, its functions, and its settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations_cli.errors import CommandError

Json = dict[str, Any]

_ONE_INVOCATION = Config(read_timeout=910, retries={"total_max_attempts": 1}, tcp_keepalive=True)
"""As long as a function may take, and never repeated: the function may have done its work although
the response is lost. Without the keepalive, networks drop a connection that is idle for minutes."""

FROM_PARAMETERS = {
    "STRIPE_MODE": "StripeMode",
    "STORED_RECORDS": "StoredRecords",
    "EXISTING_CUSTOMERS": "ExistingCustomers",
    "UNASSIGNED_CUSTOMERS": "UnassignedCustomers",
    "ADOPT_FROM": "AdoptFrom",
    "EVENT_RETENTION_DAYS": "EventRetentionDays",
    "EVENT_BUS_NAME": "EventBusName",
    "PUBLISH_TYPES": "PublishTypes",
    "STRIPE_API_BASE": "StripeApiBase",
    "WALK_STRIPE_PERCENT": "WalkStripePercent",
    "WALK_WRITE_UNITS_PER_SECOND": "WalkWriteUnitsPerSecond",
}
"""The parameter that each variable of a process with the Python API is taken from."""
FROM_OUTPUTS = {
    "TABLE_NAME": "TableName",
    "DEAD_LETTERS_URL": "DeadLettersUrl",
    "ERASURE_LOG_GROUP": "ErasureLogName",
    "REPORTS_BUCKET": "ReportsBucket",
}
"""The output that each of the others is taken from."""


class Deployment:
    """A stack's name and parameters, whether or not it is deployed yet.

    Parameters
    ----------
    name : str
        The stack.
    parameters : mapping
        Its parameters by name.
    session : boto3.Session
        The operator's credentials and region.
    """

    def __init__(self, name: str, parameters: Mapping[str, str], session: boto3.Session) -> None:
        self.name = name
        self.parameters = parameters
        self._session = session
        self._clients: dict[str, Any] = {}
        self._lock = Lock()

    def client(self, service: str) -> Any:
        """Return a client of an AWS service."""
        with self._lock:  # a boto3 session is not thread-safe
            if service not in self._clients:
                config = _ONE_INVOCATION if service == "lambda" else None
                self._clients[service] = self._session.client(service, config=config)
        return self._clients[service]

    def describe(self) -> Json | None:
        """Return CloudFormation's description of the stack; None if there is no such stack."""
        try:
            described: Json = self.client("cloudformation").describe_stacks(StackName=self.name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            return None
        found: Json = described["Stacks"][0]
        return found


class Stack(Deployment):
    """A stack, and the calls to it with the operator's credentials.

    Parameters
    ----------
    name : str
        The stack.
    session : boto3.Session
        The operator's credentials and region.

    Raises
    ------
    CommandError
        There is no such stack, or it is not one of this product.
    """

    def __init__(self, name: str, session: boto3.Session) -> None:
        super().__init__(name, {}, session)
        found = self.describe()
        if found is None:
            raise CommandError(
                f"there is no stack {name} in {session.region_name}: check --stack and --region"
            )
        self.age = (datetime.now(UTC) - found["CreationTime"]).total_seconds()
        """Seconds since it was created."""
        self.parameters = parameters_of(name, found)
        self.outputs = Named(found.get("Outputs", ()), "Output")
        if "TableName" not in self.outputs:
            raise _not_ours(name)

    def resource(self, logical_id: str) -> str:
        """Return the name of one of the stack's resources, by its name in template.yaml."""
        described = self.client("cloudformation").describe_stack_resource(
            StackName=self.name, LogicalResourceId=logical_id
        )
        name: str = described["StackResourceDetail"]["PhysicalResourceId"]
        return name

    def invoke(self, logical_id: str, event: Json) -> Any:
        """Invoke a function, by its name in template.yaml, and return its result.

        Raises
        ------
        CommandError
            The function failed; the message has its error.
        """
        response = self.client("lambda").invoke(
            FunctionName=self.resource(logical_id),
            Qualifier="live",
            Payload=json.dumps(event).encode(),
        )
        result = json.loads(response["Payload"].read() or b"null")
        if "FunctionError" in response:
            raise CommandError(_error_of(result))
        return result

    def variables(self) -> dict[str, str]:
        """Return the environment variables of a process that calls the Python API."""
        store = "ssm:/" if self.parameters["SecretStore"] == "ssm" else "secretsmanager:"
        names = {
            "STRIPE_API_KEY_NAME": self.parameters["StripeApiKeyName"],
            "STRIPE_WEBHOOK_SECRET_NAME": self.parameters["StripeWebhookSecretName"],
        }
        # An empty list of kinds is not the same as none given. A stack of another release may
        # lack a parameter.
        given = {
            variable: self.parameters[name]
            for variable, name in FROM_PARAMETERS.items()
            if name in self.parameters and (self.parameters[name] or variable == "STORED_RECORDS")
        }
        return {
            **{
                variable: self.outputs[name]
                for variable, name in FROM_OUTPUTS.items()
                if name in self.outputs
            },
            "DEPLOYMENT_NAME": self.name,
            **given,
            **{variable: f"{store}{name}" for variable, name in names.items()},
        }

    @cached_property
    def context(self) -> Context:
        """What the actions depend on, in this process."""
        return Context(Settings.from_environment(self.variables()))

    @contextmanager
    def in_process(self) -> Iterator[None]:
        """Connect the Python API to this stack, with the operator's credentials."""
        with use(self.context):
            yield


class Named(dict[str, str]):
    """The outputs or parameters of a stack, which may be of another release.

    Parameters
    ----------
    entries : iterable of dict
        As CloudFormation describes them.
    kind : str
        ``Output`` or ``Parameter``.
    """

    def __init__(self, entries: Iterable[Json], kind: str) -> None:
        super().__init__({each[f"{kind}Key"]: each[f"{kind}Value"] for each in entries})
        self._kind = kind.lower()

    def __missing__(self, name: str) -> str:
        raise CommandError(f"the stack has no {self._kind} {name}: deploy this release")


def parameters_of(name: str, found: Json) -> Named:
    """Return the parameters in CloudFormation's description of a stack.

    Raises
    ------
    CommandError
        It is not a stack of this product.
    """
    parameters = Named(found.get("Parameters", ()), "Parameter")
    if "StripeMode" not in parameters:
        raise _not_ours(name)
    return parameters


def _not_ours(name: str) -> CommandError:
    return CommandError(f"{name} is not a stack of this product")


def _error_of(result: Any) -> str:
    if not isinstance(result, dict):
        return "the function failed"
    return f"{result.get('errorType', 'error')}: {result.get('errorMessage', '')}"
