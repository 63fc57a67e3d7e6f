"""Messages to the dead-letter queue, to the event bus and to the erasure log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.adapters import publisher
from stripe_integrations.adapters.aws import client as aws_client
from stripe_integrations.config import Settings
from stripe_integrations.errors import MessageNotSentError
from stripe_integrations.models import Customer
from tests.world import USER, World, exhaust, hooked, stored_event, time_out

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
def log_group(aws: None) -> Iterator[str]:
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName="/erasures")
    logs.create_log_stream(logGroupName="/erasures", logStreamName=publisher.ERASURE_STREAM)
    yield "/erasures"
    logs.delete_log_group(logGroupName="/erasures")


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


def logged(log_group: str) -> list[tuple[int, str]]:
    """Times, in Unix milliseconds, and messages of a log group."""
    events = boto3.client("logs").filter_log_events(logGroupName=log_group)["events"]
    return [(event["timestamp"], event["message"]) for event in events]


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


class TestLogErasure:
    def test_appends_a_line_for_each_customer(self, log_group: str) -> None:
        now = int(time.time())
        to = settings(erasure_log_group=log_group)
        publisher.log_erasure(to, ["cus_1", "cus_2"], now)
        publisher.log_erasure(to, ["cus_3"], now + 1)
        first, second = now * 1000, (now + 1) * 1000
        assert logged(log_group) == [(first, "cus_1"), (first, "cus_2"), (second, "cus_3")]

    def test_logs_nothing_without_log_group(self, log_group: str) -> None:
        publisher.log_erasure(settings(), ["cus_1"], time.time())
        assert logged(log_group) == []

    def test_raises_for_missing_log_group(self, log_group: str) -> None:
        to = settings(erasure_log_group=f"{log_group}-gone")
        with pytest.raises(MessageNotSentError, match=r"logs: ResourceNotFoundException"):
            publisher.log_erasure(to, ["cus_1"], time.time())

    def test_raises_for_rejected_entry(self, log_group: str) -> None:
        """One that is too old: the clock is wrong."""
        to = settings(erasure_log_group=log_group)
        with pytest.raises(MessageNotSentError, match="logs: the entries were not accepted"):
            publisher.log_erasure(to, ["cus_1"], time.time() - 100 * 86_400)

    def test_is_used_by_default(self, world: World, customer: Customer, log_group: str) -> None:
        world.configure(erasure_log_group=log_group)
        world.context.log_erasure = None
        world.time = time.time()
        StripeCustomer.erase(USER)
        assert [message for _, message in logged(log_group)] == [customer.stripe_id]


@pytest.mark.parametrize(
    ("service", "send"),
    [
        ("logs", lambda to: publisher.log_erasure(to, ["cus_1"], 0)),
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
        send(
            settings(dead_letters_url=queue_url, event_bus_name=bus, erasure_log_group="/erasures")
        )


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
