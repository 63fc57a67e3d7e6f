"""``make serve``: run the local cloud until Ctrl-C and print a line for each invocation.

Arguments are parameters of template.yaml, ``NAME=value``, that override those of a local stack.
"""

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from local.cloud import (
    ACCESS_KEY,
    REGION,
    REQUESTS,
    SECRET_KEY,
    STACK,
    Cloud,
    CloudError,
    local_cloud,
    printed_step,
)
from local.console import local_console
from local.page import DOCUMENT
from local.running import registered

POLL_SECONDS = 0.3

SERVED = re.compile(
    r"\] (?P<method>[A-Z]+) (?P<url>/_aws/(?P<how>execute-api|lambda-url)/[^/]+(?:/\$default)?"
    r"(?P<path>/\S*)) (?P<status>\d+) (?P<microseconds>\d+)$"
)
REPORT = re.compile(r"^REPORT RequestId: (?P<request>\S+)\tDuration: (?P<milliseconds>[\d.]+) ms")
VARIANT = re.compile("_by_(query|token)$")
VARIABLE = re.compile(r"\{\w+\}")
BACKGROUND = {
    "apply_event": "stream",
    "reconcile_events": "schedule",
    "replay_events": "operator",
    "erase_customer": "operator",
    "walk_account": "state machine",
}
"""Functions outside the API and what invokes them."""
FAILED_ATTEMPTS = {
    "event failed": ("failed", "event_reason"),
    "event retry scheduled": ("retry", "error"),
}
"""Log messages about failed attempts of events: the outcome, and the field that has the reason."""
WORST_FIRST = ("error", "failed", "retry")


@dataclass(frozen=True)
class Invocation:
    """One invocation of a function, or a request without a route."""

    function: str
    status: str
    milliseconds: float
    request: str
    failures: tuple[str, ...] = ()
    """The events that failed in it, and why."""

    def __str__(self) -> str:
        """Return the line of the live log."""
        now = time.strftime("%H:%M:%S")
        return (
            f"{now}  {self.function:<21} {self.status:<6} {self.milliseconds:>6.0f} ms  "
            f"{'; '.join((self.request, *self.failures))}"
        )


class Watcher:
    """Reads the invocations of a cloud: requests from the log of its HTTP server, all others from
    the log groups of the functions."""

    def __init__(self, cloud: Cloud) -> None:
        self._requests = (cloud.folder / REQUESTS).open()
        self._requests.seek(0, 2)
        self._logs = cloud.client("logs")
        self._seen: set[str] = set()

    def new(self) -> Iterator[Invocation]:
        """Yield the invocations since the last call."""
        for line in self._requests:
            served = SERVED.search(line.rstrip())
            if served:
                yield invocation(served)
        for function, invoked_by in BACKGROUND.items():
            yield from self._logged(function, invoked_by)

    def _logged(self, function: str, invoked_by: str) -> Iterator[Invocation]:
        pages = self._logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{STACK}/{function.replace('_', '-')}"
        )
        entries = [entry["message"] for page in pages for entry in page["events"]]
        for request, seen in reported_invocations(entries, function, invoked_by):
            if request not in self._seen:
                self._seen.add(request)
                yield seen


def reported_invocations(
    entries: Sequence[str], function: str, invoked_by: str
) -> Iterator[tuple[str, Invocation]]:
    """Yield the request ids of a function's log that have a report, and their invocations."""
    crashed = {word for entry in entries if "[ERROR]" in entry for word in entry.split()}
    failed = failed_attempts(entries)
    for report in filter(None, map(REPORT.match, entries)):
        request = report["request"]
        attempts = failed[request]
        states = {"error"} if request in crashed else {state for state, _ in attempts}
        status = next((state for state in WORST_FIRST if state in states), "ok")
        failures = tuple(failure for _, failure in attempts)
        milliseconds = float(report["milliseconds"])
        yield request, Invocation(function, status, milliseconds, invoked_by, failures)


def failed_attempts(entries: Iterable[str]) -> defaultdict[str, list[tuple[str, str]]]:
    """Return the outcomes of the events whose attempts failed, and the reasons, by request id."""
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for entry in entries:
        line = logged_line(entry)
        if line.get("message") in FAILED_ATTEMPTS:
            state, field = FAILED_ATTEMPTS[line["message"]]
            failure = f"{line.get('stripe_event_id', '?')} {state}: {line.get(field)}"
            found[line.get("function_request_id", "")].append((state, failure))
    return found


def logged_line(entry: str) -> dict[str, Any]:
    """Return the fields of a line that the product has logged; empty for any other line."""
    if not entry.startswith('{"level"'):
        return {}  # a custom handler may print anything
    with suppress(ValueError):
        line: dict[str, Any] = json.loads(entry)
        return line
    return {}


def invocation(served: re.Match[str]) -> Invocation:
    """Return the invocation of a line of the server's log."""
    if served["how"] == "lambda-url":
        function = "link_customer"
        path = "webhook"
    else:
        function = function_of(served["method"], served["path"])
        path = served["path"]
    milliseconds = int(served["microseconds"]) / 1000
    return Invocation(function, served["status"], milliseconds, f"{served['method']} {path}")


def function_of(method: str, path: str) -> str:
    """Return the function of a route, or a dash if there is no route."""
    for route, pattern, function in routes():
        if route == method and pattern.fullmatch(path):
            return function
    return "-"


@cache
def routes() -> list[tuple[str, re.Pattern[str], str]]:
    """Return the routes of the API and of the webhook: method, pattern of the path, function."""
    documented = [
        (
            method.upper(),
            re.compile(VARIABLE.sub("[^/]+", path)),
            VARIANT.sub("", operation["operationId"]),
        )
        for path, operations in json.loads(DOCUMENT.read_text())["paths"].items()
        for method, operation in operations.items()
    ]
    return [*documented, ("POST", re.compile("/webhook"), "link_customer")]


def welcome(cloud: Cloud, page: str) -> str:
    """Return the addresses of the cloud and commands to try it."""
    signed = f"curl -sSi --aws-sigv4 aws:amz:{REGION}:execute-api --user {ACCESS_KEY}:{SECRET_KEY}"
    api = f"{cloud.api_url}/customers"
    lines = [
        "",
        f"Console     {page}",
        "            (customers, events, charts, and every call of the API, in a browser)",
        f"HTTP API    {cloud.api_url}",
        f"Webhook     {cloud.webhook_url}",
        f"Stripe      {cloud.stripe.api_base}",
        f"Local AWS   {cloud.endpoint}  (table {cloud.table_name})",
        "",
        "Create a customer and read it:",
        f"  {signed} '{api}' \\",
        "    -H 'Content-Type: application/json' \\",
        """    -d '{"user_id": "user-1", "billing_email": "jenny@example.com", "name": "Jenny"}'""",
        f"  {signed} '{api}/user-1'",
        "",
    ]
    if cloud.stripe.double:
        stripe = f"curl -sS --user {cloud.stripe.api_key}: {cloud.stripe.api_base}/v1"
        lines += [
            "Change the newest customer on the Stripe double, which sends a webhook:",
            f"  newest=$({stripe}/customers | grep -o 'cus_[A-Za-z0-9]*' | head -n 1)",
            f"  {stripe}/customers/$newest -d description='changed on Stripe'",
            f"  {stripe}/payment_methods/pm_card_visa/attach -d customer=$newest",
        ]
    else:
        lines += ["The events of this Stripe account are forwarded to the webhook."]
    lines += [
        "",
        "Update it, refresh it from Stripe, and soft-delete it:",
        f"  {signed} -X PATCH '{api}/user-1' \\",
        "    -H 'Content-Type: application/json' -d '{\"phone\": \"+32 2 555 01 02\"}'",
        f"  {signed} -X POST '{api}/user-1/sync'",
        f"  {signed} -X DELETE '{api}/user-1'",
        "",
        "List its events with the command line, in another terminal:",
        f"  export AWS_ENDPOINT_URL={cloud.endpoint} AWS_DEFAULT_REGION={REGION}",
        f"  export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} STACK={STACK}",
        "  .venv/bin/stripe-customers events list --user user-1",
        "",
        "Invoke a function with its example in events/, for instance:",
        "  make invoke FUNCTION=reconcile_events",
    ]
    return "\n".join([*lines, "", "Invocations, until Ctrl-C:"])


def main(*assignments: str) -> int:
    """Serve until Ctrl-C, with parameters of the stack as ``NAME=value``."""
    parameters = {name: value for name, _, value in (a.partition("=") for a in assignments)}
    try:
        with (
            local_cloud(printed_step, parameters) as cloud,
            local_console(cloud) as page,
            registered(cloud.folder, cloud.endpoint),
        ):
            print(welcome(cloud, page), flush=True)
            watcher = Watcher(cloud)
            while True:
                for seen in watcher.new():
                    print(seen, flush=True)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0
    except CloudError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
