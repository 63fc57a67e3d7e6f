"""``make serve``: run the local cloud until Ctrl-C and print a line for each invocation.

Arguments are parameters of template.yaml, ``NAME=value``, that override those of a local stack.
"""

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from http.client import responses

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
from local.function_logs import FunctionLogs, InvocationLog
from local.invocations import Invocation, described, http_status
from local.live_line import live_console, live_lines
from local.page import DOCUMENT
from local.running import FUNCTIONS, logical_id, registered
from local.stored_events import StoredEvents

POLL_SECONDS = 0.3
MATCH_SECONDS = 10
"""How long the log of an invocation may wait for the line of its request."""

SERVED = re.compile(
    r"\] (?P<method>[A-Z]+) "
    r"(?:/_aws/(?P<how>execute-api|lambda-url)/[^/]+(?:/\$default)?(?P<path>/\S*)"
    rf"|/2015-03-31/functions/{STACK}-(?P<name>[A-Za-z]+)\S*/invocations\S*)"
    r" (?P<status>\d+) (?P<microseconds>\d+)$"
)
"""A request to the API or the webhook, or a call of Lambda's Invoke."""
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
BY_LOGICAL_ID = {logical_id(function): function for function in FUNCTIONS}


@dataclass(frozen=True)
class Request:
    """A request to a function, or to no route, that the server has logged."""

    function: str
    cause: str
    status: str
    milliseconds: float
    is_invoke: bool = False
    """Whether it is a call of Lambda's Invoke, whose status is not the function's."""

    def is_logged_as(self, log: InvocationLog) -> bool:
        """Return whether an invocation of the function may be that of this request."""
        return self.is_invoke or http_status(log) in (None, self.status)

    def with_log(self, seen: Invocation) -> Invocation:
        """Return the invocation of this request, whose log is known."""
        if self.is_invoke:
            return seen
        outcome = ": ".join(filter(None, (phrase(self.status), seen.outcome)))
        return replace(seen, status=self.status, milliseconds=self.milliseconds, outcome=outcome)

    def without_log(self) -> Iterator[Invocation]:
        """Yield the request alone; a call that was accepted has a log, which is shown by itself."""
        if not self.is_invoke or not self.status.startswith("2"):
            yield Invocation(
                self.function, self.status, self.milliseconds, self.cause, phrase(self.status)
            )


class Watcher:
    """Reads the invocations of a cloud from now on: requests from the log of its HTTP server, all
    else from the logs of the functions.

    Parameters
    ----------
    cloud : Cloud
    clock : callable
        Returns the Unix time in seconds.
    """

    def __init__(self, cloud: Cloud, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._requests = (cloud.folder / REQUESTS).open()
        self._requests.seek(0, 2)
        self._logs = FunctionLogs(cloud.client("logs"), clock)
        self._stored = StoredEvents(cloud.client("dynamodb"), cloud.table_name, clock)
        self._causes = dict(BACKGROUND)
        if not cloud.webhook_url:
            self._causes["link_customer"] = "EventBridge"
        self._unmatched: defaultdict[str, list[InvocationLog]] = defaultdict(list)

    def new(self) -> Iterator[Invocation]:
        """Yield the invocations since the last call.

        What has no request is yielded by the next call: the server logs a request after the
        function has logged its invocation.
        """
        requests = [request(line) for line in map(SERVED.search, self._requests) if line]
        earlier = [log for logs in self._unmatched.values() for log in logs]
        for function in {*self._causes, *(each.function for each in requests)} & {*FUNCTIONS}:
            self._unmatched[function] += self._logs.new(function)
        for each in requests:
            log = self._take(each)
            if log is None:
                yield from each.without_log()
            else:
                yield each.with_log(described(log, each.cause, self._stored))
        for log in sorted(earlier, key=lambda log: log.ended):
            if log in self._unmatched[log.function]:
                yield from self._without_request(log)

    def _take(self, sent: Request) -> InvocationLog | None:
        logs = self._unmatched[sent.function]
        found = next(filter(sent.is_logged_as, logs), None)
        if found:
            logs.remove(found)
        return found

    def _without_request(self, log: InvocationLog) -> Iterator[Invocation]:
        if log.function in self._causes:
            yield described(log, self._causes[log.function], self._stored)
        elif self._clock() < log.ended + MATCH_SECONDS:
            return
        self._unmatched[log.function].remove(log)


def request(served: re.Match[str]) -> Request:
    """Return the request of a line of the server's log."""
    status, milliseconds = served["status"], int(served["microseconds"]) / 1000
    if served["name"]:
        function = BY_LOGICAL_ID.get(served["name"], "-")
        return Request(function, "invoke", status, milliseconds, is_invoke=True)
    if served["how"] == "lambda-url":
        return Request("link_customer", f"{served['method']} webhook", status, milliseconds)
    path = served["path"]
    function = function_of(served["method"], path.partition("?")[0])
    return Request(function, f"{served['method']} {path}", status, milliseconds)


def phrase(status: str) -> str:
    """Return the title of an HTTP status; empty for success."""
    return "" if status.startswith("2") else responses.get(int(status), "")


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
            console = live_console()
            while True:
                for seen in watcher.new():
                    for line in live_lines(seen, time.strftime("%H:%M:%S")):
                        console.print(line)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0
    except CloudError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
