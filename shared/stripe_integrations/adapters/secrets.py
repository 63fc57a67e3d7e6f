"""Secrets by name, from Secrets Manager or the Parameter Store, cached for minutes."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from stripe_integrations.adapters.aws import client_config, is_misconfigured
from stripe_integrations.config import SIGNING_SECRET, Settings, api_key_pattern
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
        No key is configured, it can't be read, or the stored value is not a key of this mode.
    SecretUnavailableError
        The store can't be reached now.
    """
    mode = "live" if settings.livemode else "test"
    stored = _read(settings.api_key_name, settings.api_key, "STRIPE_API_KEY", refresh)
    keys = _parse(stored, api_key_pattern(mode))
    if len(keys) != 1:
        raise ConfigurationError(
            f"the Stripe API key is not a {mode}-mode key (expected sk_{mode}_… or rk_{mode}_…)"
        )
    return keys[0]


def webhook_secrets(settings: Settings) -> list[str]:
    """The signing secrets of the webhook endpoint: while one is rolled, the old one is valid too.

    Returns
    -------
    list of str
        The parts of the stored value, which white space separates.

    Raises
    ------
    ConfigurationError
        None is configured, it can't be read, or the stored value is not a list of signing secrets.
    SecretUnavailableError
        The store can't be reached now.
    """
    stored = _read(
        settings.webhook_secret_name, settings.webhook_secret, "STRIPE_WEBHOOK_SECRET", False
    )
    secrets = _parse(stored, SIGNING_SECRET)
    if not secrets:
        raise ConfigurationError(
            "the webhook's signing secrets are not of the form whsec_…, separated by white space"
        )
    return secrets


def prepare(settings: Settings) -> None:
    """Make the clients of the stores that the settings name, without a call."""
    for name in (settings.api_key_name, settings.webhook_secret_name):
        if name:
            _provider(_store_of(name)[0])


def _read(name: str | None, plain: str | None, variable: str, refresh: bool) -> str:
    value = _fetch(name, refresh) if name else plain
    if not value or not value.strip():
        raise ConfigurationError(f"{variable}_NAME names no secret, and {variable} is not set")
    return value


def _parse(stored: str, wanted: re.Pattern[str]) -> list[str]:
    """Return the secrets in a stored text, or in the one value of a JSON object that has any.

    Empty if there is anything else in it. A byte order mark and quotes are ignored, as editors,
    shells and consoles add them.
    """
    stored = stored.replace("\ufeff", " ").strip()
    texts = _texts_of_json(stored) if stored.startswith("{") else [stored]
    found = [secrets for text in texts if (secrets := _parts(text, wanted))]
    return found[0] if len(found) == 1 else []


def _parts(text: str, wanted: re.Pattern[str]) -> list[str]:
    parts = [part.strip("\"'") for part in text.split()]
    return parts if all(wanted.fullmatch(part) for part in parts) else []


def _texts_of_json(stored: str) -> list[str]:
    try:
        values = json.loads(stored).values()
    except (ValueError, RecursionError):
        return []
    return [value for value in values if isinstance(value, str)]


def _fetch(reference: str, refresh: bool) -> str:
    from aws_lambda_powertools.utilities.parameters.exceptions import (  # noqa: PLC0415
        GetParameterError,
    )

    store, name = _store_of(reference)
    options = {"decrypt": True} if store == "ssm" else {}
    try:
        value = _provider(store).get(name, max_age=_CACHE_SECONDS, force_fetch=refresh, **options)
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise ConfigurationError(f"the secret {name} is not valid UTF-8") from None
    except GetParameterError as error:
        cause = error.__cause__ or error.__context__
        code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else None
        if code in _UNREADABLE_CODES or is_misconfigured(cause):
            reason = code or type(cause).__name__
            raise ConfigurationError(f"the secret {name} can't be read: {reason}") from error
        raise SecretUnavailableError(f"the secret {name} can't be read now") from error
    except BotoCoreError as error:
        raise ConfigurationError(
            f"the AWS client is not configured: {type(error).__name__}"
        ) from error


def _store_of(reference: str) -> tuple[str, str]:
    """The store of a secret, and its name there."""
    store, _, name = reference.partition(":")
    if store not in ("secretsmanager", "ssm"):
        raise ConfigurationError("a secret's name starts with secretsmanager: or ssm:")
    return store, name


@cache
def _provider(store: str) -> Any:
    """The store's client; boto3 is imported when it is made."""
    from aws_lambda_powertools.utilities import parameters  # noqa: PLC0415

    if store == "ssm":
        return parameters.SSMProvider(boto_config=client_config())
    return parameters.SecretsProvider(boto_config=client_config())
