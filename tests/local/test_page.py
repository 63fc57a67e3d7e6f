"""The page of `make serve`: the document, and calls that are passed on for its user alone."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import pytest

from local.cloud import Answer
from local.page import SCRIPT, STYLE, api_page

JSON = {"Content-Type": "application/json"}


class Api:
    """Takes note of the calls that come through, and answers them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes]] = []
        self.answer = Answer(200, {"Content-Type": "application/json"}, {"stripe_id": "cus_1"})

    def send(self, method: str, path: str, body: bytes, _: Mapping[str, str]) -> Answer:
        self.calls.append((method, path, body))
        return self.answer


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def page(api: Api) -> Iterator[str]:
    with api_page(api.send) as address:
        yield address


def ask(
    page: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(urlsplit(page).netloc, timeout=10)
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    told = {name.lower(): value for name, value in response.getheaders()}
    return response.status, told, response.read().decode()


def test_the_page_is_served_on_this_machine_alone_with_the_document_in_it(page: str) -> None:
    status, _, html = ask(page, "GET", "/")

    assert urlsplit(page).hostname == "127.0.0.1"
    assert status == 200
    (spec,) = re.findall(r"^\s*spec: (\{.*\}),$", html, flags=re.M)
    document = json.loads(spec)
    assert set(document["paths"]) == {
        "/customers",
        "/customers/{user_id}",
        "/customers/{user_id}/sync",
    }
    assert [server["url"] for server in document["servers"]] == ["/"]
    status, headers, body = ask(page, "GET", "/?format=json")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == document


def test_nothing_of_the_page_comes_from_or_goes_to_elsewhere(page: str) -> None:
    _, headers, html = ask(page, "GET", "/")

    loaded = re.findall(r"""(?:src|href)=['"]([^'"]+)""", html)
    assert loaded == [STYLE, SCRIPT]
    for path in loaded:
        assert ask(page, "GET", path)[0] == 200
    _, _, style = ask(page, "GET", STYLE)
    assert set(re.findall(r"url\(\s*[\"']?(\w+)", style)) == {"data"}
    policy = dict(
        directive.split(maxsplit=1)
        for directive in headers["content-security-policy"].split("; ")
        if " " in directive
    )
    assert policy["default-src"] == "'none'"
    for sources in policy.values():
        assert set(sources.split()) <= {"'none'", "'self'", "'unsafe-inline'", "data:"}


def test_a_call_is_passed_on_and_its_answer_comes_back(page: str, api: Api) -> None:
    status, headers, body = ask(page, "POST", "/customers", b'{"user_id": "u"}', JSON)

    assert api.calls == [("POST", "/customers", b'{"user_id": "u"}')]
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"stripe_id": "cus_1"}


def test_a_path_is_passed_on_as_it_came(page: str, api: Api) -> None:
    ask(page, "POST", "/customers/a%2Fb%20%C3%A9/sync")
    assert api.calls == [("POST", "/customers/a%2Fb%20%C3%A9/sync", b"")]


def test_an_answer_without_a_body_and_one_to_be_tried_again_come_back_as_they_are(
    page: str, api: Api
) -> None:
    api.answer = Answer(204, {}, "")
    status, headers, body = ask(page, "DELETE", "/customers/u")
    assert (status, "content-type" in headers, body) == (204, False, "")

    told = {"Content-Type": "application/problem+json", "Retry-After": "5"}
    api.answer = Answer(503, told, {"status": 503})
    status, headers, body = ask(page, "GET", "/customers/u")
    assert (status, headers["content-type"]) == (503, "application/problem+json")
    assert headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/customers/u/sync"), ("GET", "/")])
def test_other_pages_in_the_same_browser_reach_nothing(
    page: str, api: Api, headers: dict[str, str], method: str, path: str
) -> None:
    status, told, _ = ask(page, method, path, headers=headers)

    assert (status, api.calls) == (403, [])
    assert "access-control-allow-origin" not in told


def test_the_page_s_own_calls_are_let_through_under_both_names_of_this_machine(
    page: str, api: Api
) -> None:
    for name in ("127.0.0.1", "localhost"):
        here = f"{name}:{urlsplit(page).port}"
        headers = {"Host": here, "Origin": f"http://{here}"}
        assert ask(page, "POST", "/customers/u/sync", headers=headers)[0] == 200
    assert len(api.calls) == 2


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_form_of_another_page_is_no_body(page: str, api: Api, media_type: str) -> None:
    status, _, _ = ask(page, "POST", "/customers", b"{}", {"Content-Type": media_type})
    assert (status, api.calls) == (415, [])


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/elsewhere"), ("POST", "/"), ("GET", "/customersx")]
)
def test_there_is_nothing_else(page: str, api: Api, method: str, path: str) -> None:
    assert (ask(page, method, path)[0], api.calls) == (404, [])


def test_a_cloud_that_does_not_answer_is_said_to(page: str, api: Api) -> None:
    def refuse(*_: object) -> Answer:
        raise ConnectionRefusedError

    with api_page(refuse) as address:
        assert ask(address, "GET", "/customers/u")[0] == 502


@pytest.mark.parametrize("length", ["abc", "-1", "99999999999"])
def test_a_body_of_an_impossible_length_is_not_waited_for(page: str, api: Api, length: str) -> None:
    headers = {**JSON, "Content-Length": length}
    status, _, _ = ask(page, "POST", "/customers", b"", headers)
    assert (status, api.calls) == (413, [])


def test_a_path_that_no_client_can_send_on_is_answered() -> None:
    def refuse(*_: object) -> Answer:
        raise http.client.InvalidURL

    with api_page(refuse) as other:
        assert ask(other, "GET", "/customers/user-1")[0] == 502
