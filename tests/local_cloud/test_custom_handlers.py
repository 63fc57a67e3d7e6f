"""Custom handlers on the deployed stack: their permissions, and how failures are shown.

The example of docs/custom-handlers.md is deployed, together with handlers that fail.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import (
    BUILD,
    TEMPLATE,
    Cloud,
    http,
    local_cloud,
    program,
    sam_deploy,
    sam_environment,
)
from local.invocations import EventOutcome, Invocation
from local.serve import Watcher
from tests.custom_handlers_document import write_example

BUCKET, OTHER_BUCKET, SENDER = "invoices", "others", "billing@example.com"
EMAIL = "jenny@example.com"
FAILING = """
import os, sys
import boto3
from stripe_integrations.errors import UnprocessableEventError

def refuse(event, customer):
    from of_a_layer import REASON
    raise UnprocessableEventError(REASON)

def fail(event, customer):
    raise KeyError(customer.email)

def exit_process(event, customer):
    sys.exit(customer.email)

def write_without_permission(event, customer):
    boto3.client("s3").put_object(Bucket=os.environ["OTHER_BUCKET"], Key="key", Body=b"")
"""
REASON = "no plan has this price"
FAILURES = {
    "invoice.payment_failed": ("refuse", "failed", f"UnprocessableEventError: {REASON}"),
    "invoice.voided": ("fail", "retry", "KeyError"),
    "invoice.sent": ("exit_process", "retry", "SystemExit"),
    "invoice.updated": ("write_without_permission", "retry", "AccessDenied"),
}
"""The handler for each type of event, its state in the live log, and why."""


@pytest.fixture
def no_faults() -> None:
    """Replace the fixture that starts the cloud of the other tests."""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A stack with handlers; policy, environment and layer are given by an update."""
    folder = tmp_path_factory.mktemp("custom") / "handlers"
    write_example(folder)
    write_failing(folder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EVENT_HANDLERS", str(folder))
        with local_cloud() as cloud:
            for bucket in (BUCKET, OTHER_BUCKET):
                cloud.client("s3").create_bucket(Bucket=bucket)
            cloud.client("ses").verify_email_identity(EmailAddress=SENDER)
            update(cloud, policy=create_policy(cloud), layer=publish_layer(cloud))
            yield cloud


def write_failing(folder: Path) -> None:
    """Add the handlers that fail to the declared ones."""
    (folder / "failing.py").write_text(FAILING)
    functions = {kind: f"failing:{name}" for kind, (name, _, _) in FAILURES.items()}
    with (folder / "stripe_event_handlers.py").open("a") as declaration:
        declaration.write(f"HANDLERS |= {functions!r}\n")


def create_policy(cloud: Cloud) -> str:
    """Create the policy that the handlers need, and return its ARN."""
    allowed = {"s3:PutObject": f"arn:aws:s3:::{BUCKET}/*", "ses:SendEmail": "*"}
    statements = [
        {"Effect": "Allow", "Action": action, "Resource": resource}
        for action, resource in allowed.items()
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    created = cloud.client("iam").create_policy(PolicyName="billing", PolicyDocument=document)
    return str(created["Policy"]["Arn"])


def publish_layer(cloud: Cloud) -> str:
    """Publish a layer with a module that a handler imports, and return its ARN."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as layer:
        layer.writestr("python/of_a_layer.py", f"REASON = {REASON!r}\n")
    published = cloud.client("lambda").publish_layer_version(
        LayerName="shared", Content={"ZipFile": packed.getvalue()}
    )
    return str(published["LayerVersionArn"])


def update(cloud: Cloud, policy: str, layer: str) -> None:
    """Deploy the same build with the parameters of custom handlers."""
    variables = {"INVOICE_BUCKET": BUCKET, "OTHER_BUCKET": OTHER_BUCKET, "SENDER": SENDER}
    parameters = {
        "HandlerPolicyArns": policy,
        "HandlerLayerArns": layer,
        "HandlerEnvironment": ",".join(f"{name}={value}" for name, value in variables.items()),
    }
    command = sam_deploy(cloud.folder / BUILD / TEMPLATE, parameters)
    environment = sam_environment(cloud.endpoint)
    with program("sam update", command, cloud.folder, environment=environment) as updating:
        updating.succeed()


@pytest.fixture(scope="module")
def customer(cloud: Cloud) -> str:
    """The Stripe id of a customer whose first event is applied."""
    body = {"user_id": "u-1", "billing_email": EMAIL}
    stripe_id: str = cloud.request("POST", "/customers", body).body["stripe_id"]
    cloud.wait_until(
        lambda: [i["state"] for i in cloud.items() if i["sk"] == "EVENT"] == ["applied"],
        "the event of the creation is applied",
    )
    return stripe_id


def emit(cloud: Cloud, kind: str, customer: str) -> str:
    """Let Stripe send an event of an invoice, and return the event's id."""
    assert cloud.stripe.double
    with cloud.stripe.double.use() as double:
        identifier = double.account.new_id("in")
        invoice = {"id": identifier, "object": "invoice", "customer": customer}
        return double.account.emit(kind, invoice)


def stored(cloud: Cloud, stripe_id: str) -> dict[str, Any]:
    """An event's record; empty where it is not stored."""
    return next((item for item in cloud.items() if item["pk"] == f"EVENT#{stripe_id}"), {})


def test_handler_writes_to_s3_and_sends_through_ses(cloud: Cloud, customer: str) -> None:
    watcher = Watcher(cloud)
    list(watcher.new())
    event = emit(cloud, "invoice.paid", customer)
    cloud.wait_until(lambda: stored(cloud, event).get("state") == "applied", "it is handled")
    invoice = json.loads(stored_invoice(cloud))
    assert invoice["customer"] == customer
    assert sent_to(cloud) == [EMAIL]
    seen, shown = watched(cloud, watcher, event)
    assert (seen.status, shown.state, seen.cause) == ("ok", "applied", "stream")
    assert (shown.stored.kind, shown.stored.owner) == ("invoice.paid", "u-1")


def stored_invoice(cloud: Cloud) -> bytes:
    """The one object in the handlers' bucket."""
    s3 = cloud.client("s3")
    (listed,) = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    content: bytes = s3.get_object(Bucket=BUCKET, Key=listed["Key"])["Body"].read()
    return content


def sent_to(cloud: Cloud) -> list[str]:
    """The recipients of the mail that was sent."""
    by_account = http("GET", f"{cloud.endpoint}/_ministack/ses/messages", b"", {}).body["messages"]
    return [address for mails in by_account.values() for mail in mails for address in mail["To"]]


def watched(cloud: Cloud, watcher: Watcher, event: str) -> tuple[Invocation, EventOutcome]:
    """The invocation of apply_event in which an event is shown next, and the event in it."""
    found: list[tuple[Invocation, EventOutcome]] = []

    def look() -> bool:
        lines = [line for line in watcher.new() if line.function == "apply_event"]
        found.extend((line, e) for line in lines for e in line.events if e.stripe_id == event)
        return bool(found)

    cloud.wait_until(look, "the live log shows the invocation")
    return found[0]


@pytest.mark.parametrize("kind", FAILURES)
def test_failure_is_shown_and_stored(cloud: Cloud, customer: str, kind: str) -> None:
    watcher = Watcher(cloud)
    list(watcher.new())
    event = emit(cloud, kind, customer)
    seen, shown = watched(cloud, watcher, event)
    handler, state, why = FAILURES[kind]
    assert (seen.status, shown.state, shown.stored.kind) == (state, state, kind)
    record = stored(cloud, event)
    if state == "failed":
        assert shown.reason == why
        assert (record["state"], record["reason"]) == ("failed", why)
        assert dead_letters(cloud) == [(event, why)]
    else:
        assert re.fullmatch(rf"{why} at failing\.py:\d+ {handler}", shown.reason)
        assert 0 < (shown.stored.retry_seconds or 0) <= 60
        assert (record["state"], record["last_error"]) == ("pending", why)
    assert EMAIL not in json.dumps([str(seen), record.get("reason")])


def dead_letters(cloud: Cloud) -> list[tuple[str, str]]:
    """The ids and reasons in the dead-letter queue."""
    received = cloud.client("sqs").receive_message(
        QueueUrl=cloud.dead_letters_url, MaxNumberOfMessages=10
    )
    letters = [json.loads(message["Body"]) for message in received["Messages"]]
    return [(letter["event_id"], letter["reason"]) for letter in letters]
