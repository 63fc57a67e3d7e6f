"""A pytest plugin that compares the Stripe double with stripe-mock; for `make test-contract`.

    python -m pytest -p tests.stripe_mock_plugin tests/functions …

Every kind of request that the double accepts in a test is sent to stripe-mock too, which knows
every path and parameter of Stripe's API. What stripe-mock refuses, Stripe would refuse: the test
that sent it fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from local.stripe_double import Response, StripeDouble
from tools import stripe_mock

_ID = re.compile(r"/[a-z]+_(?=\w*[A-Z0-9])\w+")


class StripeMock:
    """Sends each kind of request to stripe-mock once, and records which are refused."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.sent: set[str] = set()
        self.refused: list[str] = []

    def send(self, method: str, path: str, given: Mapping[str, Any]) -> None:
        """Send a request that the double has accepted."""
        pairs = list(_pairs(given))
        kind = json.dumps([method, _ID.sub("/{id}", path), sorted(_kind(*pair) for pair in pairs)])
        if kind in self.sent:
            return
        self.sent.add(kind)
        form = urlencode(pairs)
        request = Request(
            self._url + path + ("" if method == "POST" else f"?{form}"),
            data=form.encode() if method == "POST" else None,
            headers={"Authorization": "Bearer sk_test_double"},
            method=method,
        )
        try:
            urlopen(request, timeout=10).close()
        except HTTPError as error:
            with error:
                message = json.load(error)["error"]["message"]
            self.refused.append(f"{method} {path} {form}: {message}")


def _pairs(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Stripe's form encoding of parameters."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _pairs(entry, f"{name}[{key}]" if name else str(key))
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            yield from _pairs(entry, f"{name}[{position}]")
    elif isinstance(value, bool):
        yield name, str(value).lower()
    elif value is not None:
        yield name, str(value)


def _kind(name: str, value: str) -> str:
    """A parameter with as much of its value as decides whether Stripe takes it."""
    if name.startswith("metadata["):
        return "metadata"
    return f"{name}={value if value.isalpha() else value.isdigit()}"


@pytest.fixture(scope="session")
def mocked_too() -> Iterator[StripeMock]:
    """Gets every request of this session that any double accepts."""
    with stripe_mock.serve() as url, pytest.MonkeyPatch.context() as patch:
        mock = StripeMock(url)
        patch.setattr(StripeDouble, "request", _sent_to(mock, StripeDouble.request))
        yield mock
    assert mock.sent, "no test has sent anything to a double"


def _sent_to(mock: StripeMock, request: Callable[..., Response]) -> Callable[..., Response]:
    def request_both(
        double: StripeDouble,
        method: str,
        path: str,
        given: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        response = request(double, method, path, given, headers)
        if response.status == 200:
            mock.send(method.upper(), path, given or {})
        return response

    return request_both


@pytest.fixture(autouse=True)
def every_request_is_one_that_stripe_has(mocked_too: StripeMock) -> Iterator[None]:
    before = len(mocked_too.refused)
    yield
    assert mocked_too.refused[before:] == []
