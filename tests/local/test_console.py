"""The page that controls the Stripe double."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import boto3
import pytest
from flask import Flask
from flask.testing import FlaskClient

from local.console import double_pages, local_credentials
from local.stripe_double import StripeDouble, StripeDoubleServer


class Server:
    """A double without a server."""

    def __init__(self) -> None:
        self.double = StripeDouble()

    @contextmanager
    def use(self) -> Iterator[StripeDouble]:
        yield self.double


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def page(server: Server) -> FlaskClient:
    app = Flask(__name__)
    app.register_blueprint(double_pages(cast("StripeDoubleServer", server)))
    return app.test_client()


def test_takes_whole_numbers(page: FlaskClient, server: Server) -> None:
    assert page.post("/double/fail", data={"times": "7"}).status_code == 302
    assert [fault.times for fault in server.double.faults.pending()] == [7]


@pytest.mark.parametrize(
    ("action", "given"),
    [
        *(("fail", {"times": times}) for times in ("0", "-1", "0.5", "1001", "nan", "", "x")),
        *(("slow", {"seconds": seconds}) for seconds in ("0", "-1", "61", "inf", "nan", "x")),
    ],
)
def test_refuses_other_numbers(
    page: FlaskClient, server: Server, action: str, given: dict[str, str]
) -> None:
    assert page.post(f"/double/{action}", data=given).status_code == 400
    assert server.double.faults.pending() == []


def test_refuses_unknown_actions(page: FlaskClient) -> None:
    assert page.post("/double/none").status_code == 404


def test_local_credentials_replace_those_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "none")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    with local_credentials("http://127.0.0.1:1"):
        client = boto3.Session().client("dynamodb")
        assert client.meta.endpoint_url == "http://127.0.0.1:1"
        assert "AWS_SESSION_TOKEN" not in os.environ
    assert os.environ["AWS_PROFILE"] == "none"
