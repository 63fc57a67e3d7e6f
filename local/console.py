"""The console of `make serve`: of the stack, the API to try, and what the Stripe double does wrong.

The double loses, duplicates and holds deliveries on request, and is slow or fails.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import boto3
from flask import Blueprint, abort, redirect, render_template, request, url_for

from local.cloud import REGION, STACK, Cloud, aws_environment
from local.metrics import extracted_metrics
from local.page import api_pages
from local.stripe_double import StripeDoubleServer
from stripe_integrations_cli.console.server import application, served
from stripe_integrations_cli.stack import Stack

MAX_TIMES = 1000
MAX_SECONDS = 60.0

ACTIONS = {
    "drop": "Lose the next deliveries",
    "duplicate": "Send the next deliveries twice",
    "hold": "Hold all deliveries",
    "release": "Send what is held, newest first",
    "slow": "Be slow in the next responses",
    "fail": "Fail the next requests with 500",
    "limit": "Refuse the next requests with 429",
    "clear": "Clear all faults",
}
"""What the double can be asked for, and what its buttons say."""


N = TypeVar("N", int, float)


@contextmanager
def local_console(cloud: Cloud) -> Iterator[str]:
    """Serve the console for the duration of the block; yields the address to open."""
    tabs, parts = [("api.show", "API")], [api_pages(cloud.request)]
    if cloud.stripe.double:
        tabs.append(("double.show", "Stripe double"))
        parts.append(double_pages(cloud.stripe.double))
    with local_credentials(cloud.endpoint):
        console = application(Stack(STACK, boto3.Session()), tabs, parts)
        with extracted_metrics(cloud), served(console) as address:
            yield address


@contextmanager
def local_credentials(endpoint: str) -> Iterator[None]:
    """Let this process use the local AWS inside the block, whatever the caller's profile is.

    The Python API makes clients of its own, which read the environment.
    """
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(aws_environment(endpoint), AWS_REGION=REGION)
        yield


def double_pages(server: StripeDoubleServer) -> Blueprint:
    """Make the page that controls a Stripe double."""
    pages = Blueprint("double", __name__, url_prefix="/double", template_folder="templates")

    @pages.get("/")
    def show() -> str:
        with server.use() as double:
            faults = [[fault.kind, fault.match, fault.times] for fault in double.faults.pending()]
            deliveries = list(double.webhooks.log[-50:])[::-1]
            pending = double.webhooks.pending_count()
        return render_template(
            "double.html",
            actions=ACTIONS,
            faults=faults,
            deliveries=[list(delivery.values()) for delivery in deliveries],
            columns=list(deliveries[0]) if deliveries else [],
            pending=pending,
        )

    @pages.post("/<action>")
    def act(action: str) -> Any:
        if action not in ACTIONS:
            abort(404)
        times = number(int, request.form.get("times", "1"), MAX_TIMES)
        seconds = number(float, request.form.get("seconds", "1"), MAX_SECONDS)
        with server.use() as double:
            match action:
                case "drop":
                    double.webhooks.drop_next(times)
                case "duplicate":
                    double.webhooks.duplicate_next(times)
                case "hold":
                    double.webhooks.hold()
                case "release":
                    double.webhooks.release("reversed")
                case "slow":
                    double.faults.delay(seconds, times)
                case "fail":
                    double.faults.fail_next(times, status=500)
                case "limit":
                    double.faults.fail_next(times, status=429)
                case "clear":
                    double.faults.clear()
        return redirect(url_for("double.show"))

    return pages


def number(kind: type[N], text: str, most: N) -> N:
    """Return a positive number of a form, or refuse the request."""
    try:
        value = kind(text)
    except ValueError:
        abort(400, "not a number")
    if not 0 < value <= most:
        abort(400, f"must be over 0, and at most {most:g}")
    return value
