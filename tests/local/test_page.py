"""The page of the API in the local console: the document, and calls that are forwarded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
from flask import Flask
from flask.testing import FlaskClient

from local.cloud import Response
from local.page import api_pages

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
def page(api: Api) -> FlaskClient:
    app = Flask(__name__)
    app.register_blueprint(api_pages(api.send))
    return app.test_client()


class TestDocument:
    def test_has_the_api_with_the_console_as_its_server(self, page: FlaskClient) -> None:
        html = page.get("/api/").text
        (spec,) = re.findall(r"^\s*spec: (\{.*\}),$", html, flags=re.M)
        document = json.loads(spec)
        assert "/customers/{user_id}/sync" in document["paths"]
        assert [server["url"] for server in document["servers"]] == ["/api"]
        assert page.get("/api/?format=json").json == document

    def test_is_below_the_path_of_the_console(self, page: FlaskClient) -> None:
        (server,) = page.get("/api/?format=json", base_url="http://localhost/base").json["servers"]  # type: ignore[index]
        assert server["url"] == "/base/api"

    def test_loads_nothing_from_elsewhere(self, page: FlaskClient) -> None:
        response = page.get("/api/")
        loaded = re.findall(r"""(?:src|href)=['"]([^'"]+)""", response.text)
        assert loaded == ["/api/swagger-ui.css", "/api/swagger-ui.js"]
        for path in loaded:
            assert page.get(path).status_code == 200
        directives = response.headers["content-security-policy"].split("; ")
        policy = dict(directive.split(maxsplit=1) for directive in directives if " " in directive)
        assert policy["default-src"] == "'none'"
        for sources in policy.values():
            assert set(sources.split()) <= {"'none'", "'self'", "'unsafe-inline'", "data:"}


class TestCalls:
    def test_forwards_call_and_response(self, page: FlaskClient, api: Api) -> None:
        path = "/customers/a%2Fb%20%C3%A9/sync?expand=x"
        response = page.post(f"/api{path}", data=b'{"user_id": "u"}', headers=JSON)
        assert api.calls == [("POST", path, b'{"user_id": "u"}')]
        assert (response.status_code, response.mimetype) == (200, "application/json")
        assert response.json == {"stripe_id": "cus_1"}

    def test_forwards_what_follows_the_path_of_the_console(
        self, page: FlaskClient, api: Api
    ) -> None:
        path = "/customers/a%2Fb"
        raw = {"RAW_URI": f"/base/api{path}"}
        page.get(f"/api{path}", base_url="http://localhost/base", environ_overrides=raw)
        assert [call[1] for call in api.calls] == [path]

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
    def test_forwards_every_method(self, page: FlaskClient, api: Api, method: str) -> None:
        assert page.open("/api/customers/u", method=method, headers=JSON).status_code == 200
        assert [call[0] for call in api.calls] == [method]

    def test_forwards_idempotency_key_alone(self, page: FlaskClient, api: Api) -> None:
        headers = {**JSON, "Idempotency-Key": "k-1", "Authorization": "Basic eDp5"}
        assert page.patch("/api/customers/u", data=b"{}", headers=headers).status_code == 200
        assert api.headers == {"Idempotency-Key": "k-1"}

    def test_says_that_the_cloud_does_not_respond(self) -> None:
        app = Flask(__name__)

        def refused(*_: object) -> Response:
            raise ConnectionRefusedError

        app.register_blueprint(api_pages(refused))
        assert app.test_client().get("/api/customers/u").status_code == 502

    @pytest.mark.parametrize(
        ("path", "headers", "expected"),
        [("/api/", {}, 405), ("/api/customers", {"Content-Type": "text/plain"}, 415)],
    )
    def test_refuses(
        self, page: FlaskClient, api: Api, path: str, headers: dict[str, str], expected: int
    ) -> None:
        response = page.post(path, data=b"{}", headers=headers)
        assert (response.status_code, api.calls) == (expected, [])
