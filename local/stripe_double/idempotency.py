"""Idempotency keys: the first response is replayed for 24 hours."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass

from .account import copy_json
from .errors import ApiError, Json, invalid

RETENTION = 24 * 3600
"""Seconds after which a key expires."""
_MAX_LENGTH = 255


@dataclass
class Stored:
    """The request of a key and its response, which is available from ``available_at`` on."""

    fingerprint: str
    created: float
    available_at: float
    request_id: str
    status: int
    body: Json


class IdempotencyKeys:
    """The used keys and their responses."""

    def __init__(self) -> None:
        self._stored: OrderedDict[str, Stored] = OrderedDict()

    def find(self, key: str, fingerprint: str, now: float) -> Stored | None:
        """Return the response of a key, or None for a new key.

        Raises
        ------
        ApiError
            400 ``idempotency_error`` if the key was used for another request, 409 if the first
            request is still in progress.
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
        if now < stored.available_at:
            message = f"Another request with the idempotency key {key} is in progress."
            raise ApiError(409, "idempotency_error", message, code="idempotency_key_in_use")
        return stored

    def store(self, key: str, stored: Stored) -> None:
        """Store the response of a key."""
        self._stored[key] = Stored(
            stored.fingerprint,
            stored.created,
            stored.available_at,
            stored.request_id,
            stored.status,
            copy_json(stored.body),
        )

    def _expire(self, now: float) -> None:
        # Unlike a dict, an OrderedDict finds its oldest key at once after many deletions.
        while self._stored:
            key, oldest = next(iter(self._stored.items()))
            if oldest.created > now - RETENTION:
                return
            del self._stored[key]


def fingerprint(method: str, path: str, given: Json) -> str:
    """Return a string that is equal for two requests with the same method, path and parameters."""
    return f"{method} {path} {json.dumps(given, sort_keys=True, default=str)}"
