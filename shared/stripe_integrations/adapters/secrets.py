"""Secrets by name, from Secrets Manager or the Parameter Store, cached for minutes."""

from __future__ import annotations

from functools import cache
from typing import Any

from stripe_integrations.adapters.aws import client_config
from stripe_integrations.config import Settings
from stripe_integrations.errors import ConfigurationError, SecretUnavailableError

_CACHE_SECONDS = 300
_UNREADABLE_CODES = {
    "AccessDeniedException",
    "DecryptionFailure",
    "InvalidRequestException",
    "ParameterNotFound",
    "ResourceNotFoundException",
    "ValidationException",
}
"""The stores' error codes for a secret that a retry can't read either."""


def api_key(settings: Settings, *, refresh: bool = False) -> str:
    """Stripe's API key.

    Parameters
    ----------
    refresh : bool
        Read the store even where the cache has the value.

    Raises
    ------
    ConfigurationError
        No key is configured, it can't be read, or its prefix is of the other mode.
    SecretUnavailableError
        The store can't be reached now.
    """
    key = _read(settings.api_key_name, settings.api_key, "STRIPE_API_KEY", refresh).strip()
    mode = "live" if settings.livemode else "test"
    if not key.startswith((f"sk_{mode}_", f"rk_{mode}_")):
        raise ConfigurationError(f"the Stripe API key is not one of {mode} mode")
    return key


def webhook_secrets(settings: Settings) -> list[str]:
    """The signing secrets of the webhook endpoint: while one is rolled, the old one is valid too.

    Returns
    -------
    list of str
        The parts of the stored value, which white space separates.

    Raises
    ------
    ConfigurationError
        None is configured, or it can't be read.
    SecretUnavailableError
        The store can't be reached now.
    """
    return _read(
        settings.webhook_secret_name, settings.webhook_secret, "STRIPE_WEBHOOK_SECRET", False
    ).split()


def _read(name: str | None, plain: str | None, variable: str, refresh: bool) -> str:
    value = _fetch(name, refresh) if name else plain
    if not value or not value.strip():
        raise ConfigurationError(f"{variable}_NAME names no secret, and {variable} is not set")
    return value


def _fetch(reference: str, refresh: bool) -> str:
    from aws_lambda_powertools.utilities.parameters.exceptions import (  # noqa: PLC0415
        GetParameterError,
    )
    from botocore.exceptions import ClientError  # noqa: PLC0415

    store, _, name = reference.partition(":")
    if store not in ("secretsmanager", "ssm"):
        raise ConfigurationError("a secret's name starts with secretsmanager: or ssm:")
    options = {"decrypt": True} if store == "ssm" else {}
    try:
        value = _provider(store).get(name, max_age=_CACHE_SECONDS, force_fetch=refresh, **options)
    except GetParameterError as error:
        cause = error.__cause__ or error.__context__
        code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else None
        if code in _UNREADABLE_CODES:
            raise ConfigurationError(f"the secret {name} can't be read: {code}") from error
        raise SecretUnavailableError(f"the secret {name} can't be read now") from error
    return value if isinstance(value, str) else ""


@cache
def _provider(store: str) -> Any:
    """The store's client: made, and boto3 imported, when a secret is first read by name."""
    from aws_lambda_powertools.utilities import parameters  # noqa: PLC0415

    if store == "ssm":
        return parameters.SSMProvider(boto_config=client_config())
    return parameters.SecretsProvider(boto_config=client_config())
