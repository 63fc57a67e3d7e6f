"""Faults on request: errors, delays, lost responses and killed callers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from .errors import ApiError

_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 402: "card_error"}
_TYPES |= {403: "invalid_request_error", 404: "invalid_request_error", 409: "idempotency_error"}
_TYPES |= {429: "invalid_request_error"}
_CODES = {429: "rate_limit"}


@dataclass
class Fault:
    """A fault of the next matching requests.

    Attributes
    ----------
    kind
        ``refuse`` before execution, ``fail`` in execution, ``delay``, ``lose_request``,
        ``lose_response``, ``kill_client``.
    match
        ``METHOD /path``, with ``*`` as a wildcard; ``*`` alone matches every request.
    times
        The number of remaining requests; None for all.
    """

    kind: str
    match: str
    times: int | None
    error: ApiError | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    takes_effect: bool = False
    stored: bool = False
    seconds: float = 0.0
    responds: bool = True
    should_retry: bool = True


class Faults:
    """The faults of a double, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def fail_next(
        self,
        times: int | None = 1,
        *,
        status: int = 500,
        error_type: str | None = None,
        code: str | None = None,
        message: str = "A fault was requested.",
        match: str = "*",
        stored: bool | None = None,
        takes_effect: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Respond to the next matching requests with an error.

        Parameters
        ----------
        times
            The number of requests; None for all until `clear`.
        status, error_type, code, message
            The error. By default, type and code are those of the status.
        match
            ``METHOD /path``, with ``*`` as a wildcard.
        stored
            Whether an idempotency key stores and replays the error, as for an error in execution;
            otherwise the request is refused before idempotency keys are read. The default is
            Stripe's behaviour: 500 and 402 are stored, 401, 403, 409, 429, 400, 502, 503 aren't.
        takes_effect
            Whether the request is carried out before the error.
        headers
            Further headers of the response, for example ``Retry-After``.
        """
        error = ApiError(
            status,
            error_type or _TYPES.get(status, "api_error"),
            message,
            code=code or _CODES.get(status),
        )
        is_stored = status in (402, 500) if stored is None else stored
        kind = "fail" if is_stored or takes_effect else "refuse"
        self._faults.append(
            Fault(
                kind,
                match,
                times,
                error=error,
                stored=is_stored,
                takes_effect=takes_effect,
                headers=headers or {},
            )
        )

    def lock(self, object_id: str, times: int | None = 1) -> None:
        """Refuse the next requests for one object, as if another request were changing it.

        The error is 429 ``lock_timeout``: https://docs.stripe.com/rate-limits#object-lock-timeouts

        Parameters
        ----------
        object_id
            Requests whose path has this id are refused.
        times
            The number of requests; None for all until `clear`.
        """
        self.fail_next(
            times,
            status=429,
            code="lock_timeout",
            message="Another request is accessing this object.",
            match=f"*/{object_id}*",
        )

    def delay(self, seconds: float, times: int | None = 1, *, match: str = "*") -> None:
        """Delay the response; until then the request has its effect and its key is in progress."""
        self._faults.append(Fault("delay", match, times, seconds=seconds))

    def time_out(
        self,
        times: int | None = 1,
        *,
        match: str = "*",
        when: Literal["before", "after"] = "after",
        should_retry: bool = True,
    ) -> None:
        """Lose the request ``before`` it takes effect, or the response ``after`` it.

        In process the caller gets ``stripe.APIConnectionError`` with ``should_retry``; over HTTP
        the connection is closed.
        """
        kind = "lose_request" if when == "before" else "lose_response"
        self._faults.append(Fault(kind, match, times, should_retry=should_retry))

    def kill_client_after(
        self, times: int | None = 1, *, match: str = "*", responds: bool = True
    ) -> None:
        """Kill the caller's process after its request has taken effect.

        Parameters
        ----------
        responds
            Whether the response is sent first.
        """
        self._faults.append(Fault("kill_client", match, times, responds=responds))

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def pending(self) -> list[Fault]:
        """Return the remaining faults."""
        return list(self._faults)

    def take(self, kind: str, request: str) -> Fault | None:
        """Consume and return the first fault of a kind that matches ``METHOD /path``."""
        for fault in self._faults:
            if fault.kind == kind and fnmatchcase(request, fault.match):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None
