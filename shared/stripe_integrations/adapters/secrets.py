"""Secrets by name, from Secrets Manager or the Parameter Store, cached for minutes."""

from __future__ import annotations

from functools import cache
from typing import Any

from stripe_integrations.config import Settings
from stripe_integrations.errors import ConfigurationError, SecretUnavailableError

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 1, 4, 2

_CACHE_SECONDS = 300
_FOR_GOOD = {
    "AccessDeniedException",
    "DecryptionFailure",
    "InvalidRequestException",
    "ParameterNotFound",
    "ResourceNotFoundException",
    "ValidationException",
}
"""What the stores say of a secret that won't be there, or readable, a moment later either."""


def api_key(settings: Settings, *, refresh: bool = False) -> str:
    """Stripe's API key.

    Parameters
    ----------
    refresh : bool
        Ask the store again even where the cache has an answer.

    Raises
    ------
    ConfigurationError
        No key is configured, it can't be read, or its prefix says the other mode.
    SecretUnavailableError
        The store can't be asked now.
    """
    key = _read(settings.api_key_name, settings.api_key, "STRIPE_API_KEY", refresh).strip()
    mode = "live" if settings.livemode else "test"
    if not key.startswith((f"sk_{mode}_", f"rk_{mode}_")):
        raise ConfigurationError(f"the Stripe API key is not one of {mode} mode")
    return key


def webhook_secrets(settings: Settings) -> list[str]:
    """The signing secrets of the webhook endpoint: while one is rolled, the old one counts too.

    Returns
    -------
    list of str
        What white space separates in the stored value.

    Raises
    ------
    ConfigurationError
        None is configured, or it can't be read.
    SecretUnavailableError
        The store can't be asked now.
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
        if code in _FOR_GOOD:
            raise ConfigurationError(f"the secret {name} can't be read: {code}") from error
        raise SecretUnavailableError(f"the secret {name} can't be read now") from error
    return value if isinstance(value, str) else ""


@cache
def _provider(store: str) -> Any:
    """The store's client: made, and boto3 imported, only where a secret is read by name."""
    from aws_lambda_powertools.utilities import parameters  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS},
    )
    if store == "ssm":
        return parameters.SSMProvider(boto_config=config)
    return parameters.SecretsProvider(boto_config=config)
