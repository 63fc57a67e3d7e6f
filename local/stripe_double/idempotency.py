"""Idempotency keys: the first answer stands for 24 hours."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .account import copy_json
from .errors import ApiError, Json, invalid

RETENTION = 24 * 3600
"""Seconds after which Stripe forgets a key."""
_MAX_LENGTH = 255


@dataclass
class Stored:
    """What a key stands for: the request, and its answer from the time at which it is there."""

    fingerprint: str
    created: float
    answered: float
    request_id: str
    status: int
    body: Json


class IdempotencyKeys:
    """The keys that were used, and the answers that they replay."""

    def __init__(self) -> None:
        self._stored: dict[str, Stored] = {}

    def find(self, key: str, fingerprint: str, now: float) -> Stored | None:
        """Return what a key replays, None for a new key.

        Raises
        ------
        ApiError
            400 ``idempotency_error`` where the key was used for another request, 409 where the
            first request with it is still in progress.
        """
        if len(key) > _MAX_LENGTH:
            raise invalid(f"Idempotency keys can have up to {_MAX_LENGTH} characters.")
        self._expire(now)
        stored = self._stored.get(key)
        if stored is None:
            return None
        if stored.fingerprint != fingerprint:
            message = f"The idempotency key {key} was used with other parameters."
            raise ApiError(400, "idempotency_error", message)
        if now < stored.answered:
            message = f"Another request with the idempotency key {key} is in progress."
            raise ApiError(409, "idempotency_error", message, code="idempotency_key_in_use")
        return stored

    def store(self, key: str, stored: Stored) -> None:
        """Keep the answer that a key replays from now on."""
        self._stored[key] = Stored(
            stored.fingerprint,
            stored.created,
            stored.answered,
            stored.request_id,
            stored.status,
            copy_json(stored.body),
        )

    def _expire(self, now: float) -> None:
        for key in list(self._stored):
            if self._stored[key].created > now - RETENTION:
                return
            del self._stored[key]


def fingerprint(method: str, path: str, given: Json) -> str:
    """Return what has to be the same for two requests to be one."""
    return f"{method} {path} {json.dumps(given, sort_keys=True, default=str)}"
