"""The examples of docs/publish.md work: the message, and the patterns of the rules.

tests/local_cloud/test_events.py deploys the subscriber.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from cfnlint.api import lint
from cfnlint.decode import decode_str
from ministack.services import eventbridge

from stripe_integrations.actions.events.side_effects import Effect
from stripe_integrations.adapters import publisher
from stripe_integrations.adapters.aws import client as aws_client
from stripe_integrations.config import Settings
from tests.world import hooked
from tools.published_event import schema_errors
from tools.template import ROOT

PAGE = (ROOT / "docs" / "publish.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SUBSCRIBER,) = (code for language, code in BLOCKS if language == "yaml")
MESSAGE, CHANGES = (json.loads(code) for language, code in BLOCKS if language == "json")
RULE = decode_str(SUBSCRIBER)[0]["Resources"]["InvoicesRule"]["Properties"]
INVOICES = RULE["EventPattern"]
BUS = "stripe-events"


@pytest.fixture
def bus(aws: None) -> Iterator[str]:
    events = boto3.client("events")
    events.create_event_bus(Name=BUS)
    yield BUS
    events.delete_event_bus(Name=BUS)


def message(kind: str, **changes: Any) -> dict[str, Any]:
    """The message on the bus for an event of this type."""
    detail = {**MESSAGE["detail"], "type": kind, **changes}
    assert schema_errors(detail) == []
    return {**MESSAGE, "detail-type": kind, "detail": detail}


def matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    """EventBridge's answer to TestEventPattern, as the local cloud gives it."""
    request = {"EventPattern": json.dumps(pattern), "Event": json.dumps(event)}
    status, _, body = eventbridge._test_event_pattern(request)
    assert status == 200, body
    return bool(json.loads(body)["Result"])


def test_every_block_is_tested() -> None:
    assert [language for language, _ in BLOCKS] == ["json", "yaml", "json"]


def test_every_effect_is_documented() -> None:
    table = PAGE.partition("| `effect` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Effect)


def test_message_is_the_one_sent_to_the_bus(bus: str) -> None:
    entries: list[dict[str, Any]] = []

    def record(params: dict[str, Any], **_: Any) -> None:
        entries.extend(params["Entries"])

    settings = Settings(table_name="customers", event_bus_name=bus)
    with hooked(aws_client("events"), "provide-client-params.events.PutEvents", record):
        publisher.publish(settings, MESSAGE["detail"])
    (entry,) = entries
    shown = {
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "detail": json.loads(entry["Detail"]),
    }
    assert shown == MESSAGE
    assert schema_errors(MESSAGE["detail"]) == []


def test_template_of_subscriber_is_valid() -> None:
    assert lint(SUBSCRIBER) == []


class TestPatternOfInvoices:
    @pytest.mark.parametrize("kind", ["invoice.paid", "invoice.overdue"])
    def test_matches_documented_types(self, kind: str) -> None:
        assert matches(INVOICES, message(kind))

    @pytest.mark.parametrize(
        "event",
        [
            message("invoice.created"),
            message("customer.updated", effect="applied"),
            message("invoice.paid", customer_is_active=False),
            {**message("invoice.paid"), "source": "aws.partner/stripe.com/ed_1"},
        ],
    )
    def test_matches_nothing_else(self, event: dict[str, Any]) -> None:
        assert not matches(INVOICES, event)


class TestPatternOfChanges:
    @pytest.mark.parametrize("effect", Effect)
    def test_matches_changes_of_subscriptions(self, effect: Effect) -> None:
        event = message("customer.subscription.updated", effect=effect)
        assert matches(CHANGES, event) is (effect in ("applied", "older"))

    def test_does_not_match_type_with_similar_name(self) -> None:
        event = message("customer.subscription_schedule.updated", effect="applied")
        assert not matches(CHANGES, event)
