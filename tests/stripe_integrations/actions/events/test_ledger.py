"""The ledger of events: a try is counted before it is made, and each event ends for a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
from stripe_integrations.errors import (
    DatabaseRefusedError,
    MessageNotSentError,
    SideEffectFailedError,
    StripeUnavailableError,
    UnprocessableEventError,
)
from stripe_integrations.models import Customer, Event
from stripe_integrations.models.event import MAX_ATTEMPTS
from tests.world import World

USER = User("u-1")
EMAIL = "jane@example.com"
DAY = 86400


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL)


@pytest.fixture
def stripe_id(world: World, customer: Customer) -> str:
    """An event that is in doubt, and received."""
    return rename(world, customer, "Newest")


def rename(world: World, customer: Customer, name: str) -> str:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": name})
    payload = world.payload("customer.updated")
    StripeEvent.receive(payload)
    return str(payload["id"])


def kill(world: World, stripe_id: str) -> None:
    """Let the process die while it applies an event."""
    world.stripe.faults.kill_client_after(1, match="GET /v1/customers/*")
    with use(world.new_context()), pytest.raises(ClientKilledError):
        StripeEvent.apply(stripe_id)


def fail(stripe_id: str) -> None:
    with pytest.raises(StripeUnavailableError):
        StripeEvent.apply(stripe_id)


def state(stripe_id: str) -> tuple[str | None, int | None]:
    event = Event.find(stripe_id)
    assert event
    return event.state, event.attempts


# ---- claimed


def test_a_try_is_counted_before_it_is_made(world: World, stripe_id: str) -> None:
    counted: list[int | None] = []
    world.during_sleep = lambda: counted.append(Event.find(stripe_id).attempts)
    StripeEvent.apply(stripe_id)
    assert counted[0] == 1
    assert state(stripe_id) == ("applied", 1)


def test_an_event_that_somebody_else_is_at_is_left_alone_until_their_time_is_over(
    world: World, stripe_id: str
) -> None:
    kill(world, stripe_id)
    with world.counting() as counts:
        StripeEvent.apply(stripe_id)
        world.time += 120
        StripeEvent.apply(stripe_id)
    assert counts.operations == ["UpdateItem", "UpdateItem"]
    assert state(stripe_id) == ("pending", 1)

    world.time += 11
    StripeEvent.apply(stripe_id)
    assert state(stripe_id) == ("applied", 2)


def test_two_at_once_apply_an_event_once(world: World, stripe_id: str) -> None:
    def rival() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            StripeEvent.apply(stripe_id)

    world.during_sleep = rival
    StripeEvent.apply(stripe_id)
    assert state(stripe_id) == ("applied", 1)


def test_an_event_whose_process_died_is_counted_and_comes_back_by_the_schedule(
    world: World, stripe_id: str
) -> None:
    kill(world, stripe_id)
    assert state(stripe_id) == ("pending", 1)
    assert Event.find(stripe_id).claimed_at is not None

    world.time += 200
    assert world.reconcile()["tried"] == 1

    assert state(stripe_id) == ("applied", 2)
    assert Event.find(stripe_id).claimed_at is None
    assert StripeCustomer.get(USER).name == "Newest"


def test_an_event_whose_process_died_is_tried_alone_and_after_the_others(
    world: World, customer: Customer
) -> None:
    stripe_id = "evt_killer"
    always_in_doubt = {"id": stripe_id, "api_version": "2025-02-24.acacia"}
    rename(world, customer, "Newest")
    StripeEvent.receive({**world.payload("customer.updated"), **always_in_doubt})
    kill(world, stripe_id)
    others = [rename(world, customer, f"Name {number}") for number in range(3)]
    world.time += 200
    fetched: list[set[tuple[str | None, int | None]]] = []

    def die_at_the_second_fetch() -> None:
        if world.stripe.requests[-1].path == f"/v1/customers/{customer.stripe_id}":
            fetched.append({state(other) for other in others})
            if len(fetched) == 2:
                world.during_sleep = lambda: None
                raise ClientKilledError

    world.during_sleep = die_at_the_second_fetch
    with pytest.raises(ClientKilledError):
        world.reconcile()

    assert fetched == [{("pending", 1)}, {("applied", 1)}]
    assert state(stripe_id) == ("pending", 2)


# ---- given up


def test_an_event_that_kills_its_process_every_time_fails_and_is_reported(
    world: World, stripe_id: str
) -> None:
    for _ in range(MAX_ATTEMPTS):
        kill(world, stripe_id)
        world.time += 200
    assert state(stripe_id) == ("pending", MAX_ATTEMPTS)
    world.stripe.faults.kill_client_after(None, match="GET /v1/customers/*")

    world.reconcile()

    assert state(stripe_id)[0] == "failed"
    assert Event.find(stripe_id).reason == "tried too often, at last: interrupted"
    (message,) = world.dead_letters
    assert (message["event_id"], message["type"]) == (stripe_id, "customer.updated")
    assert message["customer_id"] == Event.find(stripe_id).customer_id


def test_an_event_that_fails_every_time_is_given_up_within_three_days(
    world: World, stripe_id: str
) -> None:
    began = world.time
    world.stripe.faults.fail_next(None, status=503)
    tries = 0
    while state(stripe_id)[0] == "pending":
        tries += 1
        world.reconcile()
        world.time = max(world.time, Event.find(stripe_id).next_try)
    assert tries == MAX_ATTEMPTS + 1 or tries == MAX_ATTEMPTS + 2
    assert 1 * DAY < world.time - began < 3 * DAY
    assert state(stripe_id)[0] == "failed"
    assert "StripeUnavailableError" in Event.find(stripe_id).reason
    assert [message["event_id"] for message in world.dead_letters] == [stripe_id]


def test_the_dead_letter_is_sent_before_the_event_is_marked(world: World, stripe_id: str) -> None:
    states: list[tuple[str | None, int | None]] = []
    world.context.send_dead_letter = lambda _: states.append(state(stripe_id))
    Event.find(stripe_id).update([Event.attempts.set(MAX_ATTEMPTS)])
    world.time += 200
    StripeEvent.apply(stripe_id)
    assert states == [("pending", MAX_ATTEMPTS + 1)]
    assert state(stripe_id)[0] == "failed"


def test_a_queue_that_refuses_the_dead_letter_puts_the_event_off_until_it_takes_it(
    world: World, stripe_id: str
) -> None:
    take = world.context.send_dead_letter

    def refuse(_: Mapping[str, Any]) -> None:
        raise MessageNotSentError("sqs: it is full")

    world.context.send_dead_letter = refuse
    Event.find(stripe_id).update([Event.attempts.set(MAX_ATTEMPTS)])
    world.time += 200
    StripeEvent.apply(stripe_id)

    event = Event.find(stripe_id)
    assert (event.state, event.last_error) == ("pending", "MessageNotSentError")
    world.context.send_dead_letter = take
    world.time = event.next_try
    world.reconcile()
    assert state(stripe_id)[0] == "failed"
    assert len(world.dead_letters) == 1


def test_an_exhausted_event_does_not_take_the_others_of_its_customer_along(
    world: World, customer: Customer, stripe_id: str
) -> None:
    other = rename(world, customer, "Newer")
    Event.find(stripe_id).update([Event.attempts.set(MAX_ATTEMPTS)])
    world.time += 200
    world.reconcile()
    assert (state(stripe_id)[0], state(other)[0]) == ("failed", "applied")
    assert StripeCustomer.get(USER).name == "Newer"


def test_what_the_database_will_never_take_fails_at_once(world: World, customer: Customer) -> None:
    world.time += 10
    stripe_id = rename(world, customer, "Newest")
    refusal = world.failing_database("ValidationException", operation="TransactWriteItems")
    with refusal, pytest.raises(DatabaseRefusedError):
        StripeEvent.apply(stripe_id)
    event = Event.find(stripe_id)
    assert (event.state, event.attempts) == ("failed", 1)
    assert event.reason == "DatabaseRefusedError"
    assert world.dead_letters == [
        {
            "event_id": stripe_id,
            "type": "customer.updated",
            "customer_id": customer.stripe_id,
            "attempts": 1,
            "reason": "DatabaseRefusedError",
        }
    ]


def refuse_for_good(event: Event, customer: Customer | None) -> None:
    raise UnprocessableEventError("jane@example.com can't be handled")


def test_what_a_handler_says_it_can_never_do_fails_at_once(table_name: str) -> None:
    handlers = {"customer.updated": f"{__name__}:refuse_for_good"}
    world = World(table_name, event_handlers=handlers)
    with use(world.context):
        stripe_id = rename(world, StripeCustomer.create(USER, EMAIL), "Newest")
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(stripe_id)
        assert state(stripe_id) == ("failed", 1)
        assert Event.find(stripe_id).reason == "UnprocessableEventError"
        assert [message["event_id"] for message in world.dead_letters] == [stripe_id]
        assert StripeCustomer.get(USER).name == "Newest"


# ---- what the table keeps


def test_only_what_is_applied_or_ignored_expires(
    world: World, customer: Customer, stripe_id: str
) -> None:
    StripeEvent.apply(stripe_id)
    world.time += 100
    older = {
        **world.payload("customer.updated"),
        "id": "evt_older",
        "created": int(world.time) - 200,
    }
    StripeEvent.receive(older)
    StripeEvent.apply("evt_older")
    failed = rename(world, customer, "Of no use")
    with (
        world.failing_database("ValidationException", operation="TransactWriteItems"),
        pytest.raises(DatabaseRefusedError),
    ):
        StripeEvent.apply(failed)
    rename(world, customer, "Not yet")
    unknown = {
        **older,
        "id": "evt_waiting",
        "data": {"object": {"object": "x", "customer": "cus_1"}},
    }
    StripeEvent.receive(unknown)

    expires = {item["state"]: item.get("expires_at") for item in world.items(record_type="Event")}

    assert {name: time for name, time in expires.items() if time is None} == {
        "failed": None,
        "pending": None,
        "waiting": None,
    }
    assert expires["ignored"] == world.time + 90 * DAY
    assert expires["applied"] == world.time - 100 + 90 * DAY


def test_an_unfinished_event_is_in_the_queue_and_a_finished_one_is_not(
    world: World, customer: Customer, stripe_id: str
) -> None:
    (item,) = world.items(record_type="Event")
    assert item["queue"] in set("01234567")
    assert item["next_try"] > world.time
    StripeEvent.apply(stripe_id)
    (item,) = world.items(record_type="Event")
    assert {"queue", "next_try", "claimed_at"} & item.keys() == set()


def raise_with_a_value(event: Event, customer: Customer | None) -> None:
    raise ValueError(f"{customer.email} is odd")


def test_no_value_is_in_what_the_ledger_and_the_dead_letters_say(table_name: str, log: Any) -> None:
    world = World(table_name, event_handlers={"customer.updated": f"{__name__}:raise_with_a_value"})
    with use(world.context):
        customer = StripeCustomer.create(USER, EMAIL)
        odd = rename(world, customer, "Jane Roe")
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(odd)
        assert Event.find(odd).last_error == "ValueError"
        refused = rename(world, customer, "Jane Poe")
        world.stripe.faults.fail_next(None, status=400, message="jane@example.com is refused")
        with pytest.raises(Exception, match="Stripe did not"):
            StripeEvent.apply(refused)
        world.stripe.faults.clear()
        for stripe_id in (odd, refused):
            Event.find(stripe_id).update([Event.attempts.set(MAX_ATTEMPTS)])
        world.time += DAY
        world.reconcile()

        assert len(world.dead_letters) == 2
        told = str(world.dead_letters) + log.getvalue()
        for item in world.items(record_type="Event"):
            told += str([item.get("last_error"), item.get("reason")])
        assert "ValueError" in told
        for value in ("jane", "Jane", "Roe", "Poe"):
            assert value not in told


def test_an_event_that_the_database_will_never_take_lets_no_other_fail(world: World) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    world.time += 10
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
    well = world.payload("customer.updated")
    subscription = {
        "id": "sub_1",
        "object": "subscription",
        "customer": customer.stripe_id,
        "status": "active",
        "items": {"data": [{"id": "si_1", "text": "x" * 450_000}], "has_more": False},
    }
    refused = {
        **well,
        "id": "evt_refused",
        "type": "customer.subscription.updated",
        "data": {"object": subscription},
    }
    StripeEvent.receive(well)
    StripeEvent.receive(refused)

    world.stream()

    assert Event.find("evt_refused").state == "failed"
    assert Event.find(well["id"]).state == "applied"
    assert StripeCustomer.get(USER).name == "Newest"
