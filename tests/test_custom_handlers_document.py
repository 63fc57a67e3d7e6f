"""The example of docs/custom-handlers.md works as it is written there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.ses.models import ses_backends

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.config import Settings
from stripe_integrations.context import use
from tests.custom_handlers_document import DOCUMENT, write_example
from tests.engines import REGION
from tests.world import EMAIL, USER, World, stored_event, stripe_event
from tools.template import ROOT

BUCKET = "invoices"
SENDER = "billing@example.com"


@pytest.fixture
def handlers(
    aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The declared handlers of the example, importable, with their bucket and sender."""
    write_example(tmp_path / "handlers")
    monkeypatch.syspath_prepend(str(tmp_path / "handlers"))
    monkeypatch.setenv("INVOICE_BUCKET", BUCKET)
    monkeypatch.setenv("SENDER", SENDER)
    s3, ses = boto3.client("s3"), boto3.client("ses")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    ses.verify_email_identity(EmailAddress=SENDER)
    yield dict(Settings.from_environment({"TABLE_NAME": "unused"}).event_handlers)
    for name in ("stripe_event_handlers", "billing"):
        sys.modules.pop(name, None)
    for listed in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        s3.delete_object(Bucket=BUCKET, Key=listed["Key"])
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def world(table_name: str, handlers: dict[str, str]) -> Iterator[World]:
    world = World(table_name, event_handlers=handlers)
    with use(world.context):
        yield world


def receive_invoice(customer: str) -> dict[str, Any]:
    """Receive the event of a paid invoice, and return the invoice."""
    invoice = {"id": "in_1", "object": "invoice", "customer": customer}
    StripeEvent.receive(stripe_event("invoice.paid", data={"object": invoice}))
    return invoice


def test_invoice_is_stored_and_customer_is_thanked(world: World) -> None:
    invoice = receive_invoice(StripeCustomer.create(USER, EMAIL).stripe_id)
    StripeEvent.apply("evt_1")
    assert stored_event("evt_1").state == "applied"
    stored = boto3.client("s3").get_object(Bucket=BUCKET, Key="in_1.json")["Body"]
    assert json.load(stored) == invoice
    account = boto3.client("sts").get_caller_identity()["Account"]
    mail = ses_backends[account][REGION].sent_messages[-1]
    assert (mail.source, mail.destinations["ToAddresses"]) == (SENDER, [EMAIL])


def test_invoice_of_unknown_customer_fails_with_its_reason(world: World) -> None:
    receive_invoice("cus_unknown")
    world.time += 2 * 86_400
    world.reconcile()
    event = stored_event("evt_1")
    reason = "UnprocessableEventError: the invoice's customer is unknown"
    assert (event.state, event.reason) == ("failed", reason)


def test_tests_of_the_example_pass(tmp_path: Path) -> None:
    write_example(tmp_path / "billing-handlers")
    (command,) = re.findall(r"```sh\n(PYTHONPATH=.*)\n```", DOCUMENT.read_text())
    paths = {"../billing-handlers": str(tmp_path / "billing-handlers")}
    paths[".venv/bin/pytest"] = f"{sys.executable} -m pytest -p no:cacheprovider"
    for written, here in paths.items():
        assert written in command
        command = command.replace(written, here)
    done = subprocess.run(
        ["sh", "-c", command],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
