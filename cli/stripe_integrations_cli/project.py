"""The project's folder: the environments of samconfig.toml, and their deployment by SAM."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stripe_integrations_cli.errors import CommandError, UsageError
from stripe_integrations_cli.stripe_account import KEY_VARIABLE

_SECRETS = "stripe"
DEFAULTS = {
    "SecretStore": "secretsmanager",
    "SecretsKmsKeyArn": "",
    "StoredRecords": "Card,Subscription",
    "StripeApiBase": "",
    "StripeApiKeyName": f"{_SECRETS}/api-key",
    "StripeMode": "test",
    "StripeWebhookSecretName": f"{_SECRETS}/webhook-secret",
    "WebhookIngress": "function-url",
}
"""The defaults of the parameters that matter before the stack is deployed, from template.yaml."""
_STANDARD_ERROR = 2
_UNQUOTABLE = re.compile(r"""\\(?=[ "']|\Z)|ParameterKey=""")
"""SAM has no form of a value with this: it removes the backslash, or reads another parameter."""


class Project:
    """An environment of a clone of the project.

    Parameters
    ----------
    folder : Path
        The folder with ``template.yaml`` and ``samconfig.toml``.
    environment : str
        The environment, such as ``dev``.

    Raises
    ------
    CommandError
        The folder is not that of the project.
    UsageError
        It has no such environment.
    """

    def __init__(self, folder: Path, environment: str) -> None:
        self._folder = folder
        self.environment = environment
        try:
            read = tomllib.loads((folder / "samconfig.toml").read_text())
        except FileNotFoundError:
            raise CommandError(
                "there is no samconfig.toml: run this in the project's folder, or give --project"
            ) from None
        except ValueError as error:
            raise UsageError(f"samconfig.toml can't be read: {error}") from None
        if environment not in read:
            raise UsageError(f"samconfig.toml has no environment {environment}")
        try:
            commands = read[environment]
            of_all = commands.get("global", {}).get("parameters", {})
            deployed = {**of_all, **commands["deploy"]["parameters"]}
            self.stack_name = str(deployed["stack_name"])
            self.parameters = dict(_overrides(deployed.get("parameter_overrides", "")))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UsageError(
                f"samconfig.toml: {environment}.deploy.parameters needs stack_name, and "
                'parameter_overrides as a string or list of "NAME=VALUE"'
            ) from None
        self._profile = deployed.get("profile")

    def deploy(
        self, stack_name: str, region: str, parameters: Mapping[str, str], *, is_confirmed: bool
    ) -> None:
        """Build the functions and deploy them; SAM's output goes to standard error.

        Parameters
        ----------
        stack_name : str
            The stack.
        region : str
            Its region, in place of that of samconfig.toml.
        parameters : mapping
            Parameters in place of those of samconfig.toml; if there are none, the latter are used.
        is_confirmed : bool
            Whether an environment that asks before it executes a change set does not.

        Raises
        ------
        CommandError
            SAM is not installed, or has failed.
        """
        if self._profile not in (None, os.environ.get("AWS_PROFILE")):
            raise CommandError(f"samconfig.toml has the profile {self._profile}: give --profile")
        self._sam("build")
        options = ["--config-env", self.environment, "--stack-name", stack_name]
        options += ["--region", region]
        if is_confirmed:
            options.append("--no-confirm-changeset")
        if parameters:
            options.append("--parameter-overrides")
            options += [quoted(name, value) for name, value in parameters.items()]
        self._sam("deploy", *options)

    def _sam(self, command: str, *options: str) -> None:
        program = shutil.which("sam")
        if program is None:
            raise CommandError("sam is not installed: see docs/deploy.md#what-you-need")
        ended = subprocess.run(  # noqa: S603 - no shell reads the arguments
            [program, command, *options],
            cwd=self._folder,
            # A build runs the code of packages.
            env={name: value for name, value in os.environ.items() if name != KEY_VARIABLE},
            stdout=_STANDARD_ERROR,
            check=False,
        )
        if ended.returncode:
            raise CommandError(
                f"sam {command} has failed: correct what it says, and run setup again"
            )


def quoted(name: str, value: str) -> str:
    """Return a parameter as SAM's option takes it.

    Raises
    ------
    UsageError
        SAM would read another name or value.
    """
    if not re.fullmatch("[A-Za-z0-9]+", name) or _UNQUOTABLE.search(value):
        raise UsageError(f"--parameter {name}={value}: SAM can't pass this to CloudFormation")
    return name + '="' + value.replace('"', '\\"') + '"'


def _overrides(given: Any) -> Iterator[tuple[str, str]]:
    """The parameters in one of the forms of samconfig.toml."""
    if isinstance(given, list):
        for each in given:
            yield from _overrides(each)
    elif isinstance(given, dict):
        yield from ((name, str(value)) for name, value in given.items())
    else:
        for each in shlex.split(given):
            name, equals, value = each.removeprefix("ParameterKey=").partition(
                ",ParameterValue=" if each.startswith("ParameterKey=") else "="
            )
            if not equals:
                raise ValueError(each)
            yield name, value
