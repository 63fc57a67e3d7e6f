"""The project's folder: the environments of samconfig.toml, and their deployment by SAM."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

from stripe_integrations_cli.errors import CommandError, UsageError
from stripe_integrations_cli.stripe_account import KEY_VARIABLE

DEFAULTS = {
    "SecretStore": "secretsmanager",
    "SecretsKmsKeyArn": "",
    "StoredRecords": "Card,Subscription",
    "StripeApiBase": "",
    "StripeApiKeyName": "stripe/api-key",
    "StripeMode": "test",
    "StripeWebhookSecretName": "stripe/webhook-secret",
    "WebhookIngress": "function-url",
}
"""The defaults of the parameters that matter before the stack is deployed, from template.yaml."""
_STANDARD_ERROR = 2


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
            environments = tomllib.loads((folder / "samconfig.toml").read_text())
        except FileNotFoundError:
            raise CommandError(
                "there is no samconfig.toml: run this in the project's folder, or give --project"
            ) from None
        try:
            deployed = environments[environment]["deploy"]["parameters"]
        except KeyError:
            raise UsageError(f"samconfig.toml has no environment {environment}") from None
        self.stack_name: str = deployed["stack_name"]
        given = shlex.split(deployed.get("parameter_overrides", ""))
        self.parameters = dict(each.split("=", 1) for each in given)

    def deploy(self, stack_name: str, parameters: Mapping[str, str], *, is_confirmed: bool) -> None:
        """Build the functions and deploy them; SAM's output goes to standard error.

        Parameters
        ----------
        stack_name : str
            The stack.
        parameters : mapping
            Parameters in place of those of samconfig.toml; if there are none, the latter are used.
        is_confirmed : bool
            Whether an environment that asks before it executes a change set does not.

        Raises
        ------
        CommandError
            SAM is not installed, or has failed.
        """
        self._sam("build")
        options = ["--config-env", self.environment, "--stack-name", stack_name]
        if is_confirmed:
            options.append("--no-confirm-changeset")
        if parameters:
            options.append("--parameter-overrides")
            options += [f'{name}="{value}"' for name, value in parameters.items()]
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
