"""The local cloud that `make serve` runs, as other programs on this machine find and use it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.config import Config

from local.cloud import (
    ROOT,
    STACK,
    WORK,
    CloudError,
    aws_client,
    function_name,
    invoke_function,
)

FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
"""The names of the functions: those of their folders."""

REGISTRATION = "serving"
"""The file in a cloud's folder with its endpoint, locked by the process that serves it."""


@dataclass(frozen=True)
class RunningCloud:
    """A cloud that another process runs."""

    endpoint: str

    def client(self, service: str, config: Config | None = None) -> Any:
        """Return a boto3 client for a service of this cloud."""
        return aws_client(self.endpoint, service, config)

    def invoke(self, function: str, event: object) -> Any:
        """Invoke a function and return its result.

        Parameters
        ----------
        function : str
            One of `FUNCTIONS`.
        event : object
            Sent as JSON.

        Raises
        ------
        CloudError
            The function failed.
        """
        name = function_name(self.endpoint, logical_id(function))
        return invoke_function(self.endpoint, name, event)

    def variables(self, function: str) -> dict[str, str]:
        """Return the environment variables that a function is deployed with."""
        name = function_name(self.endpoint, logical_id(function))
        found = self.client("lambda").get_function_configuration(FunctionName=name)
        variables: dict[str, str] = found["Environment"]["Variables"]
        return variables

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The parameters that the stack is deployed with."""
        described = self.client("cloudformation").describe_stacks(StackName=STACK)
        found = described["Stacks"][0]["Parameters"]
        return {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in found}

    @property
    def signing_secret(self) -> str:
        """The webhook's signing secret, the newest one."""
        store = self.client("secretsmanager")
        name = self.parameters["StripeWebhookSecretName"]
        stored: str = store.get_secret_value(SecretId=name)["SecretString"]
        return stored.split(maxsplit=1)[0]


def logical_id(function: str) -> str:
    """Return the logical id in template.yaml of a function: GetCustomer for get_customer."""
    return "".join(word.capitalize() for word in function.split("_"))


@contextmanager
def registered(folder: Path, endpoint: str) -> Iterator[None]:
    """Let `running_cloud` find the cloud in this folder for the duration of the block."""
    with (folder / REGISTRATION).open("w") as registration:
        fcntl.flock(registration, fcntl.LOCK_EX)
        registration.write(endpoint)
        registration.flush()
        yield


def running_cloud() -> RunningCloud:
    """Return the cloud that `make serve` runs in this folder; with several, the newest one.

    Raises
    ------
    CloudError
        None is running.
    """
    found = sorted(WORK.glob(f"cloud-*/{REGISTRATION}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        if is_locked(path):
            return RunningCloud(path.read_text())
    raise CloudError(
        "No local cloud is running. Start one in another terminal with `make serve`,"
        " and wait until it prints its addresses."
    )


def is_locked(path: Path) -> bool:
    """Return whether a running process has locked a file; a killed process holds no lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
