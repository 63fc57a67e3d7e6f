"""Messages to the dead-letter queue and to the event bus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from stripe_integrations.actions import StripeEvent
from stripe_integrations.adapters import publisher
from stripe_integrations.adapters.aws import client as aws_client
from stripe_integrations.config import Settings
from stripe_integrations.errors import MessageNotSentError
from stripe_integrations.models import Customer
from tests.world import World, exhaust, hooked, stored_event, time_out

DETAIL = {"event_id": "evt_1", "type": "customer.updated", "user_id": "u-1"}
LETTER = {"event_id": "evt_1"}


@pytest.fixture
def queue_url(aws: None) -> Iterator[str]:
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
    yield url
    sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def bus(aws: None) -> Iterator[str]:
    events = boto3.client("events")
    events.create_event_bus(Name="changes")
    yield "changes"
    events.delete_event_bus(Name="changes")


@pytest.fixture
def entries(bus: str) -> Iterator[list[dict[str, Any]]]:
    """The entries that were put to the bus."""
    entries: list[dict[str, Any]] = []

    def record(params: dict[str, Any], **_: Any) -> None:
        entries.extend(params["Entries"])

    with hooked(aws_client("events"), "provide-client-params.events.PutEvents", record):
        yield entries


def letters(queue_url: str) -> list[Any]:
    """The messages in the queue."""
    received = boto3.client("sqs").receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in received.get("Messages", [])]


def settings(**changes: Any) -> Settings:
    return Settings(table_name="customers", **changes)


class TestSendDeadLetter:
    def test_puts_message_into_queue(self, queue_url: str) -> None:
        publisher.send_dead_letter(settings(dead_letters_url=queue_url), LETTER)
        assert letters(queue_url) == [LETTER]

    def test_sends_nothing_without_queue(self, queue_url: str) -> None:
        publisher.send_dead_letter(settings(), LETTER)
        assert letters(queue_url) == []

    def test_raises_for_missing_queue(self, queue_url: str) -> None:
        gone = settings(dead_letters_url=f"{queue_url}-gone")
        with pytest.raises(MessageNotSentError, match=r"sqs: .*NonExistentQueue"):
            publisher.send_dead_letter(gone, LETTER)


class TestPublish:
    def test_puts_entry_under_type_of_event(self, entries: list[dict[str, Any]], bus: str) -> None:
        publisher.publish(settings(event_bus_name=bus), DETAIL)
        (entry,) = entries
        assert entry["EventBusName"] == "changes"
        assert (entry["Source"], entry["DetailType"]) == ("stripe-integrations", "customer.updated")
        assert json.loads(entry["Detail"]) == DETAIL

    def test_raises_for_refused_entry(self, bus: str) -> None:
        with pytest.raises(MessageNotSentError, match="events"):
            publisher.publish(settings(event_bus_name=bus), {**DETAIL, "type": ""})


@pytest.mark.parametrize(
    ("service", "send"),
    [
        ("sqs", lambda to: publisher.send_dead_letter(to, LETTER)),
        ("events", lambda to: publisher.publish(to, DETAIL)),
    ],
)
def test_timeout_error_does_not_quote_message(
    queue_url: str, bus: str, service: str, send: Callable[[Settings], None]
) -> None:
    with (
        hooked(aws_client(service), f"before-send.{service}", time_out),
        pytest.raises(MessageNotSentError, match=f"^{service}: ReadTimeoutError$"),
    ):
        send(settings(dead_letters_url=queue_url, event_bus_name=bus))


def test_events_use_both_by_default(
    world: World, customer: Customer, queue_url: str, bus: str, entries: list[dict[str, Any]]
) -> None:
    world.configure(dead_letters_url=queue_url, event_bus_name=bus)
    world.context.send_dead_letter = world.context.publish = None
    world.time += 10
    ids = []
    for name in ("Jane Roe", "Jane Poe"):
        world.rename(customer.stripe_id, name)
        ids.append(world.receive())
    exhaust(ids[1])
    for stripe_id in ids:
        StripeEvent.apply(stripe_id)
    assert [stored_event(stripe_id).state for stripe_id in ids] == ["applied", "failed"]
    (change,), (letter,) = entries, letters(queue_url)
    assert [json.loads(change["Detail"])["event_id"], letter["event_id"]] == ids
    assert "Jane" not in str([change, letter])
