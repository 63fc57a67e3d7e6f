"""The lines of `make serve`."""

from __future__ import annotations

import json

import pytest

from local.serve import SERVED, invocation, reported_invocations

PREFIX = "[2026-01-05 10:15:00 +0000] [4711] [INFO] "
API = "/_aws/execute-api/0a1b2c3d/$default"


@pytest.mark.parametrize(
    ("line", "function", "status", "request_"),
    [
        (f"POST {API}/customers 201 9000", "create_customer", "201", "POST /customers"),
        (f"GET {API}/customers/u 404 9000", "get_customer", "404", "GET /customers/u"),
        (f"POST {API}/customers/u/sync 200 9", "sync_customer", "200", "POST /customers/u/sync"),
        (f"PATCH {API}/customers/u 200 9", "update_customer", "200", "PATCH /customers/u"),
        (f"DELETE {API}/customers/u 204 9", "soft_delete_customer", "204", "DELETE /customers/u"),
        ("POST /_aws/lambda-url/abc/ 400 9000", "link_customer", "400", "POST webhook"),
        (f"POST {API}/webhook 200 9000", "link_customer", "200", "POST /webhook"),
        (f"GET {API}/customers 404 9000", "get_customer", "404", "GET /customers"),
        (f"GET {API}/elsewhere 404 9000", "-", "404", "GET /elsewhere"),
    ],
)
def test_request_names_its_function(line: str, function: str, status: str, request_: str) -> None:
    served = SERVED.search(PREFIX + line)
    assert served
    shown = invocation(served)
    assert (shown.function, shown.status, shown.request) == (function, status, request_)


def logged(message: str, request: str, **fields: str) -> str:
    line = {"level": "WARNING", "message": message, "function_request_id": request, **fields}
    return json.dumps(line)


def test_failed_handlers_are_shown() -> None:
    entries = [
        "START RequestId: r-1 Version: 1",
        "{'printed': 'by a handler'}",
        '{"level": "of a handler',
        logged("event ended", "r-1", stripe_event_id="evt_0", state="applied"),
        logged("event retry scheduled", "r-1", stripe_event_id="evt_1", error="KeyError"),
        logged("event failed", "r-1", stripe_event_id="evt_2", event_reason="no plan"),
        "REPORT RequestId: r-1\tDuration: 12.30 ms",
        logged("event retry scheduled", "r-2", stripe_event_id="evt_3", error="SystemExit"),
        "REPORT RequestId: r-2\tDuration: 1 ms",
        "[ERROR] r-3 Runtime.ExitError",
        "REPORT RequestId: r-3\tDuration: 1 ms",
        "REPORT RequestId: r-4\tDuration: 1 ms",
        logged("event failed", "r-5", stripe_event_id="evt_5", event_reason="not reported yet"),
    ]
    shown = dict(reported_invocations(entries, "apply_event", "stream"))
    assert {request: str(seen).split("  ", 1)[1] for request, seen in shown.items()} == {
        "r-1": "apply_event           failed     12 ms  "
        "stream; evt_1 retry: KeyError; evt_2 failed: no plan",
        "r-2": "apply_event           retry       1 ms  stream; evt_3 retry: SystemExit",
        "r-3": "apply_event           error       1 ms  stream",
        "r-4": "apply_event           ok          1 ms  stream",
    }


def test_calls_to_aws_are_left_out() -> None:
    assert not SERVED.search(PREFIX + "POST / 200 900")
