"""An HTTP client for the ``stripe`` library that calls a double in process, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

import stripe

from . import form
from .double import Response


class ResponseHeaders(dict[str, str]):
    """Response headers with case-insensitive names, as ``stripe`` expects."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__({key.lower(): value for key, value in headers.items()})

    def __getitem__(self, key: str) -> str:
        """Return a header's value."""
        return super().__getitem__(key.lower())

    def __contains__(self, key: object) -> bool:
        """Return whether a header is present."""
        return isinstance(key, str) and super().__contains__(key.lower())

    def get(self, key: str, default: Any = None) -> Any:
        """Return a header's value, or the default."""
        return super().get(key.lower(), default)


class ClientKilledError(BaseException):
    """A killed process, simulated in process: no ``except Exception`` catches it."""


class Endpoint(Protocol):
    """What handles requests to Stripe: a `StripeDouble`, or something in front of one."""

    def request(
        self, method: str, path: str, given: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Response:
        """Handle one request."""


class StripeDoubleClient(stripe.HTTPClient):
    """An HTTP client for ``stripe.StripeClient`` that calls a double.

    Parameters
    ----------
    double
        The double, or an endpoint in front of it.
    sleep
        Called with the delay of each response and with the pauses between retries, in seconds; a
        simulation moves its clock here. By default, nothing waits.
    timeout
        Seconds after which a late response counts as lost.

    Example
    -------
    >>> double = StripeDouble()
    >>> client = stripe.StripeClient("sk_test_double", http_client=StripeDoubleClient(double))
    >>> client.v1.customers.create({"name": "Ada"}).name
    'Ada'
    """

    name: ClassVar[str] = "stripe_double"

    def __init__(
        self,
        double: Endpoint,
        sleep: Callable[[float], None] | None = None,
        timeout: float = 80.0,
    ) -> None:
        super().__init__()
        self._double = double
        self._sleep = sleep or (lambda _: None)
        self._timeout = timeout

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        """Send one request of the library and return body, status and headers of the response.

        Raises
        ------
        stripe.APIConnectionError
            The request or its response was lost, or the response is later than the timeout.
        ClientKilledError
            The fault `Faults.kill_client_after` is set.
        """
        parts = urlsplit(url)
        given = form.decode((post_data or "") if method.lower() == "post" else parts.query)
        response = self._double.request(method, parts.path, given, headers or {})
        self._sleep(min(response.delay, self._timeout))
        if response.kill is not None:
            raise ClientKilledError(f"killed after {method.upper()} {parts.path}")
        if response.lost or response.delay > self._timeout:
            message = "Unexpected error communicating with Stripe: timed out."
            raise stripe.APIConnectionError(  # type: ignore[no-untyped-call]
                message, should_retry=response.should_retry
            )
        return json.dumps(response.body), response.status, ResponseHeaders(response.headers)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _sleep_time_seconds(self, num_retries: int) -> float:
        self._sleep(min(self.INITIAL_DELAY * 2 ** (num_retries - 1), self.MAX_DELAY))
        return 0.0
