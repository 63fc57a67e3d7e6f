"""Holds the Stripe double to Stripe's own description of its API; for `make test-contract`.

    python -m pytest -p tests.stripe_judge tests/functions …

Every kind of request that the double accepts in a test is sent to stripe-mock too, which knows
every path and parameter of Stripe's. One that stripe-mock refuses, the real Stripe would refuse:
the test that sent it fails.
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


class Judge:
    """Asks stripe-mock about each kind of request once, and keeps what it objects to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.asked: set[str] = set()
        self.objections: list[str] = []

    def judge(self, method: str, path: str, given: Mapping[str, Any]) -> None:
        """Ask about a request which the double has accepted."""
        pairs = list(_pairs(given))
        kind = json.dumps([method, _ID.sub("/{id}", path), sorted(_kind(*pair) for pair in pairs)])
        if kind in self.asked:
            return
        self.asked.add(kind)
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
                told = json.load(error)["error"]["message"]
            self.objections.append(f"{method} {path} {form}: {told}")


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
def judge() -> Iterator[Judge]:
    """The judge of this session, asked about whatever any double accepts."""
    with stripe_mock.serve() as url, pytest.MonkeyPatch.context() as patch:
        judge = Judge(url)
        patch.setattr(StripeDouble, "request", _judged(judge, StripeDouble.request))
        yield judge
    assert judge.asked, "no double was asked anything"


def _judged(judge: Judge, request: Callable[..., Response]) -> Callable[..., Response]:
    def judged(
        double: StripeDouble,
        method: str,
        path: str,
        given: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        response = request(double, method, path, given, headers)
        if response.status == 200:
            judge.judge(method.upper(), path, given or {})
        return response

    return judged


@pytest.fixture(autouse=True)
def every_request_is_one_that_stripe_has(judge: Judge) -> Iterator[None]:
    before = len(judge.objections)
    yield
    assert judge.objections[before:] == []
