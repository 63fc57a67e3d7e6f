"""The page of `make serve`: the document, and calls that are forwarded for its user alone."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import pytest

from local.cloud import Response
from local.page import SCRIPT, STYLE, api_page

JSON = {"Content-Type": "application/json"}


class Api:
    """Records the calls that are forwarded, and responds to them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes]] = []
        self.headers: Mapping[str, str] = {}
        self.response = Response(200, {"Content-Type": "application/json"}, {"stripe_id": "cus_1"})

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        self.calls.append((method, path, body))
        self.headers = headers
        return self.response


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def page(api: Api) -> Iterator[str]:
    with api_page(api.send) as address:
        yield address


def request(
    page: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(urlsplit(page).netloc, timeout=10)
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    received = {name.lower(): value for name, value in response.getheaders()}
    return response.status, received, response.read().decode()


class TestDocument:
    def test_served_on_loopback(self, page: str) -> None:
        status, _, html = request(page, "GET", "/")
        assert urlsplit(page).hostname == "127.0.0.1"
        assert status == 200
        (spec,) = re.findall(r"^\s*spec: (\{.*\}),$", html, flags=re.M)
        document = json.loads(spec)
        assert "/customers/{user_id}/sync" in document["paths"]
        assert [server["url"] for server in document["servers"]] == ["/"]

    def test_loads_nothing_from_elsewhere(self, page: str) -> None:
        _, headers, html = request(page, "GET", "/")
        loaded = re.findall(r"""(?:src|href)=['"]([^'"]+)""", html)
        assert loaded == [STYLE, SCRIPT]
        for path in loaded:
            assert request(page, "GET", path)[0] == 200
        directives = headers["content-security-policy"].split("; ")
        policy = dict(directive.split(maxsplit=1) for directive in directives if " " in directive)
        assert policy["default-src"] == "'none'"
        for sources in policy.values():
            assert set(sources.split()) <= {"'none'", "'self'", "'unsafe-inline'", "data:"}


class TestCalls:
    def test_forwards_call_and_response(self, page: str, api: Api) -> None:
        path = "/customers/a%2Fb%20%C3%A9/sync"
        status, headers, body = request(page, "POST", path, b'{"user_id": "u"}', JSON)
        assert api.calls == [("POST", path, b'{"user_id": "u"}')]
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(body) == {"stripe_id": "cus_1"}

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
    def test_forwards_every_method(self, page: str, api: Api, method: str) -> None:
        assert request(page, method, "/customers/u", headers=JSON)[0] == 200
        assert [call[0] for call in api.calls] == [method]

    def test_forwards_idempotency_key_alone(self, page: str, api: Api) -> None:
        headers = {**JSON, "Idempotency-Key": "k-1", "Authorization": "Basic eDp5"}
        assert request(page, "PATCH", "/customers/u", b"{}", headers)[0] == 200
        assert api.headers == {"Idempotency-Key": "k-1"}

    @pytest.mark.parametrize(
        "headers", [{"Host": "rebound.example"}, {"Host": "127.0.0.1:1"}, {"Origin": "null"}]
    )
    def test_refuses_other_pages(self, page: str, api: Api, headers: dict[str, str]) -> None:
        status, received, _ = request(page, "POST", "/customers/u/sync", headers=headers)
        assert (status, api.calls) == (403, [])
        assert "access-control-allow-origin" not in received

    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
    def test_takes_its_own_calls(self, page: str, api: Api, name: str) -> None:
        here = f"{name}:{urlsplit(page).port}"
        headers = {"Host": here, "Origin": f"http://{here}"}
        assert request(page, "POST", "/customers/u/sync", headers=headers)[0] == 200

    @pytest.mark.parametrize(
        ("path", "headers", "expected"),
        [
            ("/", {}, 404),
            ("/customers", {"Content-Type": "text/plain"}, 415),
            ("/customers", {**JSON, "Content-Length": "99999999999"}, 413),
        ],
    )
    def test_refuses(
        self, page: str, api: Api, path: str, headers: dict[str, str], expected: int
    ) -> None:
        assert (request(page, "POST", path, b"{}", headers)[0], api.calls) == (expected, [])
