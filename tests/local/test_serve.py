"""The lines of `make serve`."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.cloud import Cloud, Stripe
from local.serve import SERVED, invocation, welcome

PREFIX = "[2026-01-05 10:15:00 +0000] [4711] [INFO] "


@pytest.mark.parametrize(
    ("line", "function", "status", "request_"),
    [
        (
            "POST /_aws/execute-api/0a1b2c3d/$default/customers 201 152000",
            "create_customer",
            "201",
            "POST /customers",
        ),
        (
            "GET /_aws/execute-api/0a1b2c3d/$default/customers/user-1 404 9000",
            "get_customer",
            "404",
            "GET /customers/user-1",
        ),
        (
            "POST /_aws/execute-api/0a1b2c3d/$default/customers/user-1/sync 200 9000",
            "sync_customer",
            "200",
            "POST /customers/user-1/sync",
        ),
        (
            "DELETE /_aws/execute-api/0a1b2c3d/$default/customers/user-1 204 9000",
            "soft_delete_customer",
            "204",
            "DELETE /customers/user-1",
        ),
        ("POST /_aws/lambda-url/abc/ 400 9000", "link_customer", "400", "POST webhook"),
        (
            "GET /_aws/execute-api/0a1b2c3d/$default/elsewhere 404 9000",
            "-",
            "404",
            "GET /elsewhere",
        ),
    ],
)
def test_a_request_is_shown_with_the_function_that_it_reached(
    line: str, function: str, status: str, request_: str
) -> None:
    served = SERVED.search(PREFIX + line)

    assert served
    seen = invocation(served)
    assert (seen.function, seen.status, seen.request) == (function, status, request_)


def test_calls_of_the_functions_to_aws_are_not_shown() -> None:
    assert not SERVED.search(PREFIX + "POST / 200 900")


def test_the_page_is_what_is_told_first() -> None:
    cloud = Cloud(
        endpoint="http://127.0.0.1:1",
        api_url="http://127.0.0.1:1/api",
        webhook_url="http://127.0.0.1:1/webhook",
        table_name="table",
        replay_events="replay",
        reconcile_events="reconcile",
        dead_letters_url="http://127.0.0.1:1/queue",
        stripe=Stripe("sk_test_x", "whsec_x"),
        folder=Path(),
    )
    told = welcome(cloud, "http://127.0.0.1:2/").splitlines()
    first = next(line for line in told if "http" in line)
    assert "http://127.0.0.1:2/" in first
