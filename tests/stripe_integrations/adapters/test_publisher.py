"""Messages to others: taken by the queue and the bus, or told as not sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.adapters import publisher
from stripe_integrations.config import Settings
from stripe_integrations.context import use
from stripe_integrations.errors import MessageNotSentError
from stripe_integrations.models import Event
from stripe_integrations.models.event import MAX_ATTEMPTS
from tests.world import World

DETAIL = {"event_id": "evt_1", "type": "customer.updated", "user_id": "u-1"}


@pytest.fixture
def sqs(aws: None) -> Any:
    return boto3.client("sqs")


@pytest.fixture
def queue_url(sqs: Any) -> Iterator[str]:
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
def heard(bus: str) -> Iterator[list[dict[str, Any]]]:
    """The entries that the bus was asked to take."""
    entries: list[dict[str, Any]] = []

    def hear(params: dict[str, Any], **_: Any) -> None:
        entries.extend(params["Entries"])

    hooks = publisher._client("events").meta.events
    hooks.register("provide-client-params.events.PutEvents", hear)
    yield entries
    hooks.unregister("provide-client-params.events.PutEvents", hear)


def read(sqs: Any, queue_url: str) -> list[Any]:
    """What stands in the queue."""
    received = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in received.get("Messages", [])]


def settings(**changes: Any) -> Settings:
    return Settings(table_name="customers", **changes)


def test_a_dead_letter_is_in_the_queue(sqs: Any, queue_url: str) -> None:
    publisher.send_dead_letter(settings(dead_letters_url=queue_url), {"event_id": "evt_1"})
    assert read(sqs, queue_url) == [{"event_id": "evt_1"}]


def test_a_deployment_without_a_queue_sends_no_dead_letter(sqs: Any, queue_url: str) -> None:
    publisher.send_dead_letter(settings(), {"event_id": "evt_1"})
    assert read(sqs, queue_url) == []


def test_a_change_is_put_on_the_bus_under_its_type(heard: list[dict[str, Any]], bus: str) -> None:
    publisher.publish(settings(event_bus_name=bus), DETAIL)
    (entry,) = heard
    assert entry["EventBusName"] == "changes"
    assert (entry["Source"], entry["DetailType"]) == ("stripe-integrations", "customer.updated")
    assert json.loads(entry["Detail"]) == DETAIL


def test_a_queue_that_is_not_there_is_told(queue_url: str) -> None:
    gone = settings(dead_letters_url=f"{queue_url}-gone")
    with pytest.raises(MessageNotSentError, match=r"sqs: .*NonExistentQueue"):
        publisher.send_dead_letter(gone, {"event_id": "evt_1"})


def test_an_entry_that_the_bus_does_not_take_is_told(sqs: Any, bus: str) -> None:
    with pytest.raises(MessageNotSentError, match="events"):
        publisher.publish(settings(event_bus_name=bus), {**DETAIL, "type": ""})


@pytest.mark.parametrize(
    ("service", "send"),
    [
        ("sqs", lambda to: publisher.send_dead_letter(to, {"event_id": "evt_1"})),
        ("events", lambda to: publisher.publish(to, DETAIL)),
    ],
)
def test_no_answer_is_told_without_what_was_to_be_sent(
    queue_url: str, bus: str, service: str, send: Callable[[Settings], None]
) -> None:
    def time_out(request: Any, **_: Any) -> None:
        raise ReadTimeoutError(endpoint_url=request.url)

    both = settings(dead_letters_url=queue_url, event_bus_name=bus)
    heard = publisher._client(service).meta.events
    heard.register(f"before-send.{service}", time_out)
    try:
        with pytest.raises(MessageNotSentError) as told:
            send(both)
    finally:
        heard.unregister(f"before-send.{service}", time_out)
    assert str(told.value) == f"{service}: ReadTimeoutError"


def test_the_message_of_a_failed_event_and_of_a_change_take_this_way(
    table_name: str, sqs: Any, queue_url: str, bus: str, heard: list[dict[str, Any]]
) -> None:
    world = World(table_name, dead_letters_url=queue_url, event_bus_name=bus)
    world.context.send_dead_letter = world.context.publish = None
    with use(world.context):
        customer = StripeCustomer.create(User("u-1"), "jane@example.com")
        world.time += 10
        ids = []
        for name in ("Jane Roe", "Jane Poe"):
            world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": name})
            ids.append(world.payload("customer.updated")["id"])
        world.deliver()
        Event.find(ids[1]).update([Event.attempts.set(MAX_ATTEMPTS), Event.next_try.set(0)])
        for stripe_id in ids:
            StripeEvent.apply(stripe_id)
        states = [Event.find(stripe_id).state for stripe_id in ids]
    assert states == ["applied", "failed"]
    (change,) = heard
    (letter,) = read(sqs, queue_url)
    assert (json.loads(change["Detail"])["event_id"], letter["event_id"]) == tuple(ids)
    assert "Jane" not in str([change, letter])
