"""The lines of `make serve`."""

from __future__ import annotations

import pytest

from local.serve import SERVED, invocation

PREFIX = "[2026-01-05 10:15:00 +0000] [4711] [INFO] "
API = "/_aws/execute-api/0a1b2c3d/$default"


@pytest.mark.parametrize(
    ("line", "function", "status", "request_"),
    [
        (f"POST {API}/customers 201 9000", "create_customer", "201", "POST /customers"),
        (f"GET {API}/customers/u 404 9000", "get_customer", "404", "GET /customers/u"),
        (f"POST {API}/customers/u/sync 200 9", "sync_customer", "200", "POST /customers/u/sync"),
        (f"DELETE {API}/customers/u 204 9", "soft_delete_customer", "204", "DELETE /customers/u"),
        ("POST /_aws/lambda-url/abc/ 400 9000", "link_customer", "400", "POST webhook"),
        (f"GET {API}/customers 404 9000", "get_customer", "404", "GET /customers"),
        (f"GET {API}/elsewhere 404 9000", "-", "404", "GET /elsewhere"),
    ],
)
def test_request_names_its_function(line: str, function: str, status: str, request_: str) -> None:
    served = SERVED.search(PREFIX + line)
    assert served
    shown = invocation(served)
    assert (shown.function, shown.status, shown.request) == (function, status, request_)


def test_calls_to_aws_are_left_out() -> None:
    assert not SERVED.search(PREFIX + "POST / 200 900")
