"""Followers: a change that was applied is published at least once, after it and before the mark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
from stripe_integrations.errors import (
    DatabaseUnavailableError,
    MessageNotSentError,
    SideEffectFailedError,
)
from stripe_integrations.models import Customer, Event
from tests.world import START, World

USER = User("u-1")
EMAIL = "jane@example.com"


@pytest.fixture
def handlers() -> dict[str, str]:
    """What the deployment handles by itself; a test may choose."""
    return {}


@pytest.fixture
def world(table_name: str, handlers: dict[str, str]) -> Iterator[World]:
    """A deployment whose changes are published."""
    world = World(table_name, event_bus_name="changes", event_handlers=handlers)
    with use(world.context):
        yield world


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL)


def rename(world: World, customer: Customer, name: str = "Newest") -> str:
    world.time += 10
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": name})
    payload = world.payload("customer.updated")
    StripeEvent.receive(payload)
    return str(payload["id"])


def state(stripe_id: str) -> str | None:
    event = Event.find(stripe_id)
    assert event
    return event.state


def published(world: World) -> list[str]:
    return [detail["event_id"] for detail in world.published]


def test_a_change_is_published_in_ids(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Jane Roe")
    StripeEvent.apply(stripe_id)
    assert world.published == [
        {
            "event_id": stripe_id,
            "type": "customer.updated",
            "created": int(START) + 10,
            "customer_id": customer.stripe_id,
            "user_id": "u-1",
            "livemode": False,
        }
    ]


def test_a_change_is_published_after_its_effect_and_before_its_mark(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer)
    order: list[tuple[str | None, str | None]] = []
    world.context.publish = lambda _: order.append(
        (StripeCustomer.get(USER).name, state(stripe_id))
    )
    StripeEvent.apply(stripe_id)
    assert order == [("Newest", "pending")]
    assert state(stripe_id) == "applied"


def test_every_change_of_a_batch_is_published(world: World, customer: Customer) -> None:
    renamed = [rename(world, customer, f"Name {number}") for number in range(3)]
    world.stream()
    assert sorted(published(world)) == sorted(renamed)
    assert {state(stripe_id) for stripe_id in renamed} == {"applied"}


def test_a_change_that_cant_be_published_is_published_later(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer)
    take = world.context.publish

    def refuse(_: Mapping[str, Any]) -> None:
        raise MessageNotSentError("events: it is full")

    world.context.publish = refuse
    assert world.stream((f"EVENT#{stripe_id}", "EVENT")) == {"batchItemFailures": []}
    event = Event.find(stripe_id)
    assert (event.state, event.last_error) == ("pending", "MessageNotSentError")
    assert StripeCustomer.get(USER).name == "Newest"

    world.context.publish = take
    world.time = event.next_try
    world.reconcile()
    assert published(world) == [stripe_id]
    assert state(stripe_id) == "applied"


def test_a_change_whose_process_died_before_it_was_published_is_published_all_the_same(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer)
    take = world.context.publish

    def die(_: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    world.context.publish = die
    with pytest.raises(KeyboardInterrupt):
        StripeEvent.apply(stripe_id)
    world.context.publish = take
    # Its own effect has made it no news; and something newer has happened since.
    StripeEvent.apply(rename(world, customer, "Newer"))
    world.time += 200
    world.reconcile()
    assert stripe_id in published(world)
    assert StripeCustomer.get(USER).name == "Newer"


def test_a_change_whose_process_died_before_the_mark_is_published_again(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer)
    take = world.context.publish

    def publish_and_die(detail: Mapping[str, Any]) -> None:
        take(detail)
        raise KeyboardInterrupt

    world.context.publish = publish_and_die
    with pytest.raises(KeyboardInterrupt):
        StripeEvent.apply(stripe_id)
    world.context.publish = take
    world.time += 200
    world.reconcile()
    assert published(world) == [stripe_id, stripe_id]


def test_nothing_is_published_of_what_is_ignored(world: World, customer: Customer) -> None:
    older = rename(world, customer, "Older")
    newest = rename(world, customer)
    StripeEvent.apply(newest)
    StripeEvent.apply(older)
    payload = world.payload("customer.updated")
    for number, changes in enumerate(
        [
            {"livemode": True},
            {"account": "acct_1"},
            {
                "type": "invoice.paid",
                "data": {"object": {"object": "invoice", "customer": customer.stripe_id}},
            },
        ]
    ):
        StripeEvent.receive({**payload, "id": f"evt_{number}", **changes})
        StripeEvent.apply(f"evt_{number}")
    StripeCustomer.soft_delete(StripeCustomer.get(USER))
    StripeEvent.apply(rename(world, customer, "Too late"))
    assert published(world) == [newest]


@pytest.mark.parametrize("handlers", [{"invoice.paid": f"{__name__}:do_nothing"}])
def test_what_only_an_own_handler_has_done_is_no_change_to_publish(
    world: World, customer: Customer
) -> None:
    payload = world.payload("customer.created")
    invoice = {"object": "invoice", "customer": customer.stripe_id}
    StripeEvent.receive(
        {**payload, "id": "evt_own", "type": "invoice.paid", "data": {"object": invoice}}
    )
    StripeEvent.apply("evt_own")
    assert state("evt_own") == "applied"
    assert world.published == []


@pytest.mark.parametrize("handlers", [{"customer.updated": f"{__name__}:do_nothing"}])
def test_a_change_with_an_own_handler_is_published_too(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer)
    StripeEvent.apply(stripe_id)
    assert published(world) == [stripe_id]


def do_nothing(event: Event, customer: Customer | None) -> None:
    """An own handler."""


def test_by_default_nothing_is_published(table_name: str) -> None:
    world = World(table_name)
    with use(world.context):
        stripe_id = rename(world, StripeCustomer.create(USER, EMAIL))
        StripeEvent.apply(stripe_id)
        assert state(stripe_id) == "applied"
        assert world.published == []


def test_a_replayed_change_is_published_again(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer)
    StripeEvent.apply(stripe_id)
    world.replay({"event_id": stripe_id})
    assert published(world) == [stripe_id, stripe_id]


@pytest.mark.parametrize(
    "handlers",
    [{"customer.updated": "tests.stripe_integrations.actions.events.custom_handlers:note"}],
)
def test_what_only_a_handler_made_something_of_is_not_published(
    world: World, customer: Customer
) -> None:
    older = rename(world, customer, "Older")
    newest = rename(world, customer)
    for stripe_id in (newest, older):
        StripeEvent.apply(stripe_id)
    StripeCustomer.soft_delete(customer)
    late = rename(world, customer, "Late")
    StripeEvent.apply(late)

    assert [state(stripe_id) for stripe_id in (older, newest, late)] == ["applied"] * 3
    assert published(world) == [newest]


def test_an_event_that_failed_before_its_effect_and_is_older_by_now_is_not_published(
    world: World, customer: Customer
) -> None:
    first = rename(world, customer, "First")
    with (
        world.failing_database("ThrottlingException", operation="TransactWriteItems"),
        pytest.raises(DatabaseUnavailableError),
    ):
        StripeEvent.apply(first)
    second = rename(world, customer)
    StripeEvent.apply(second)
    world.time = Event.find(first).next_try
    StripeEvent.apply(first)
    assert (state(first), published(world)) == ("ignored", [second])


def test_without_time_for_what_follows_an_event_is_put_off(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer)
    world.context.begin_invocation(10_000)
    with pytest.raises(SideEffectFailedError):
        StripeEvent.apply(stripe_id)
    assert StripeCustomer.get(USER).name == "Newest"
    assert (state(stripe_id), published(world)) == ("pending", [])
