"""Secrets by name, from Secrets Manager or the Parameter Store, cached for minutes."""

from __future__ import annotations

import json
import math
import re
import time

from botocore.exceptions import BotoCoreError, ClientError

from stripe_integrations.adapters.aws import client, is_misconfigured
from stripe_integrations.config import SIGNING_SECRET, Settings, api_key_pattern
from stripe_integrations.errors import ConfigurationError, SecretUnavailableError

_CACHE_SECONDS = 300
_cache: dict[str, tuple[str, float]] = {}
"""The values by reference, and the Unix times at which they were read."""
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
            client(_store_of(name)[0])


def forget() -> None:
    """Read the stores again at the next use of each secret."""
    _cache.clear()


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
    value, read_at = _cache.get(reference, ("", -math.inf))
    if refresh or time.time() >= read_at + _CACHE_SECONDS:
        store, name = _store_of(reference)
        value = _fetch_stored(store, name)
        _cache[reference] = value, time.time()
    return value


def _fetch_stored(store: str, name: str) -> str:
    try:
        if store == "ssm":
            found = client(store).get_parameter(Name=name, WithDecryption=True)
            return str(found["Parameter"]["Value"])
        found = client(store).get_secret_value(SecretId=name)
        return str(
            found["SecretString"] if "SecretString" in found else found["SecretBinary"].decode()
        )
    except UnicodeDecodeError:
        raise ConfigurationError(f"the secret {name} is not valid UTF-8") from None
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else None
        if code in _UNREADABLE_CODES or is_misconfigured(error):
            reason = code or type(error).__name__
            raise ConfigurationError(f"the secret {name} can't be read: {reason}") from error
        raise SecretUnavailableError(f"the secret {name} can't be read now") from error


def _store_of(reference: str) -> tuple[str, str]:
    """The store of a secret, and its name there."""
    store, _, name = reference.partition(":")
    if store not in ("secretsmanager", "ssm"):
        raise ConfigurationError("a secret's name starts with secretsmanager: or ssm:")
    return store, name
