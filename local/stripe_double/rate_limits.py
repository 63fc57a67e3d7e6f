"""Stripe's rate limits, of an account and of each endpoint: https://docs.stripe.com/rate-limits."""

from __future__ import annotations

from collections import Counter, defaultdict, deque

from .errors import ApiError

REASON_HEADER = "Stripe-Rate-Limited-Reason"
LIVE_RATE, SANDBOX_RATE, ENDPOINT_RATE = 100, 25, 25
"""Requests per second that Stripe takes by default."""

_ACCOUNT = "account"
_SECOND = 1 - 1e-6
"""A second, less the rounding error of a difference of Unix times."""


class RateLimits:
    """How many requests a second are accepted, and how many were made and refused.

    In no second are more requests accepted than the limit. A refused request counts towards no
    limit. Requests without a valid key or of no endpoint are not counted.

    Attributes
    ----------
    account, endpoint
        Requests per second, of all endpoints and of each; None without a limit.
    made, refused
        The number of requests by endpoint, such as ``GET /v1/customers/{customer}``: all, and
        those of them that were refused.
    """

    def __init__(self) -> None:
        self.account: int | None = None
        self.endpoint: int | None = None
        self.made: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._accepted: defaultdict[str, deque[float]] = defaultdict(deque)

    def enforce(self, account: int | None = None, endpoint: int | None = ENDPOINT_RATE) -> None:
        """Set the limits, in requests per second; None for no limit."""
        self.account, self.endpoint = account, endpoint

    def lift(self) -> None:
        """Remove the limits; the counts stay."""
        self.enforce(None, None)

    def check(self, endpoint: str, now: float) -> str | None:
        """Count a request; return the reason to refuse it, or None.

        Parameters
        ----------
        endpoint
            Method and path, with the names of ids in place of ids.
        now
            Unix time in seconds.

        Returns
        -------
        str or None
            The value of Stripe's header: ``global-rate`` or ``endpoint-rate``.
        """
        self.made[endpoint] += 1
        reason = None
        if self._is_exhausted(_ACCOUNT, self.account, now):
            reason = "global-rate"
        elif self._is_exhausted(endpoint, self.endpoint, now):
            reason = "endpoint-rate"
        if reason is not None:
            self.refused[endpoint] += 1
            return reason
        for name, limit in ((_ACCOUNT, self.account), (endpoint, self.endpoint)):
            if limit is not None:
                self._accepted[name].append(now)
        return None

    def _is_exhausted(self, name: str, limit: int | None, now: float) -> bool:
        if limit is None:
            return False
        accepted = self._accepted[name]
        # A clock that was set back must not refuse everything until it has caught up.
        while accepted and not 0 <= now - accepted[0] < _SECOND:
            accepted.popleft()
        return len(accepted) >= limit


def rate_limited() -> ApiError:
    """Return Stripe's 429."""
    message = "Request rate limit exceeded. See https://docs.stripe.com/rate-limits."
    return ApiError(429, "invalid_request_error", message, code="rate_limit")
