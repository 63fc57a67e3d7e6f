"""What all AWS clients share: their configuration, and why a call got no response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore import exceptions

if TYPE_CHECKING:
    from botocore.config import Config

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 1, 4, 2


def client_config() -> Config:
    """Time-outs and retries of a client; botocore is imported only when a client is made."""
    from botocore.config import Config  # noqa: PLC0415

    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS},
    )


def is_misconfigured(error: object) -> bool:
    """Return whether a request could not be sent: credentials, region or endpoint are missing.

    Where the endpoint can't be reached or does not respond, a later request may succeed.
    """
    is_unreachable = isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError)
    return isinstance(error, exceptions.BotoCoreError) and not is_unreachable
