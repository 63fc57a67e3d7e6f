"""The two secrets of a stack: stored where its functions read them, and never printed."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from botocore.exceptions import ClientError

from stripe_integrations_cli.errors import UsageError
from stripe_integrations_cli.stack import Deployment

_ABSENT = ("ResourceNotFoundException", "ParameterNotFound")


def ask_for_secret(prompt: str, variable: str | None = None) -> str:
    """Return a secret from an environment variable, or typed at a prompt without an echo.

    Without a terminal, it is a line of standard input.

    Raises
    ------
    UsageError
        It is empty.
    """
    secret = os.environ.get(variable, "") if variable else ""
    if not secret:
        with suppress(EOFError):
            secret = getpass.getpass(f"{prompt}: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not secret.strip():
        named = f" or in {variable}" if variable else ""
        raise UsageError(f"{prompt}: nothing was given at the prompt{named}")
    return secret.strip()


class SecretStore:
    """The store that a stack reads its secrets from.

    Parameters
    ----------
    stack : Deployment
        The stack, which need not be deployed yet.
    """

    def __init__(self, stack: Deployment) -> None:
        self._stack = stack
        self._is_ssm = stack.parameters["SecretStore"] == "ssm"

    def signing_secrets(self) -> list[str]:
        """Return the webhook's signing secrets, the newest first; empty if there are none yet."""
        return (self._read(self._stack.parameters["StripeWebhookSecretName"]) or "").split()

    def write_signing_secrets(self, secrets: Sequence[str]) -> None:
        """Store the webhook's signing secrets, the newest first."""
        self._write(self._stack.parameters["StripeWebhookSecretName"], " ".join(secrets))

    def api_key(self) -> str | None:
        """Return the API key that the functions use; None if there is none."""
        return self._read(self._stack.parameters["StripeApiKeyName"])

    def write_api_key(self, key: str) -> None:
        """Store the API key."""
        self._write(self._stack.parameters["StripeApiKeyName"], key)

    def _read(self, name: str) -> str | None:
        try:
            if self._is_ssm:
                client = self._stack.client("ssm")
                found = client.get_parameter(Name=f"/{name}", WithDecryption=True)
                value: str = found["Parameter"]["Value"]
            else:
                store = self._stack.client("secretsmanager")
                value = store.get_secret_value(SecretId=name)["SecretString"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        return value

    def _write(self, name: str, value: str) -> None:
        key = self._stack.parameters["SecretsKmsKeyArn"]
        if self._is_ssm:
            encryption = {"KeyId": key} if key else {}
            self._stack.client("ssm").put_parameter(
                Name=f"/{name}", Value=value, Type="SecureString", Overwrite=True, **encryption
            )
            return
        store = self._stack.client("secretsmanager")
        try:
            store.put_secret_value(SecretId=name, SecretString=value)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _ABSENT:
                raise
            encryption = {"KmsKeyId": key} if key else {}
            store.create_secret(Name=name, SecretString=value, **encryption)
