"""The configuration that all boto3 clients share."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
