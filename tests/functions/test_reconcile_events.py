"""The schedule: what never arrived is found in Stripe's list, what is unfinished is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
from stripe_integrations.models import Customer, Event, SweepCursor
from tests.world import START, World

USER = User("u-1")
EMAIL = "jane@example.com"
LIST = "/v1/events"


@pytest.fixture
def customer(world: World) -> Customer:
    """A customer, all of whose events have been swept."""
    customer = StripeCustomer.create(USER, EMAIL)
    world.reconcile()
    world.settle()
    world.time += 1000
    world.reconcile()
    world.time += 1000
    return customer


def rename(world: World, customer: Customer, name: str) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": name})


def lose(world: World, customer: Customer, times: int) -> list[str]:
    """Let changes happen whose webhooks never come; the ids of their events, oldest first."""
    world.stripe.webhooks.drop_next(times)
    before = len(world.stripe.account.events)
    for number in range(times):
        rename(world, customer, f"Name {number}")
    return list(world.stripe.account.events)[before:]


def listings(world: World) -> int:
    """How often Stripe was asked for its list of events."""
    return sum(request.path == LIST for request in world.stripe.requests)


def at_listing(world: World, number: int, happen: Callable[[], None]) -> None:
    """Let something happen while an answer with a page of events is under way."""
    first = listings(world)

    def check() -> None:
        if world.stripe.requests[-1].path == LIST and listings(world) == first + number:
            world.during_sleep = lambda: None
            happen()

    world.during_sleep = check


def die() -> None:
    raise ClientKilledError


def cursor() -> SweepCursor:
    return SweepCursor.read()


def attempts(stripe_id: str) -> int | None:
    event = Event.find(stripe_id)
    assert event
    return event.attempts


# ---- swept


def test_an_event_that_was_never_delivered_is_found_and_applied(
    world: World, customer: Customer
) -> None:
    (lost,) = lose(world, customer, 1)
    world.time += 60
    assert world.reconcile() == {"swept": 1, "recovered": 1, "tried": 0}
    assert Event.find(lost).valid
    assert Event.find(lost).state == "pending"
    world.time += 200
    assert world.reconcile() == {"swept": 1, "recovered": 0, "tried": 1}
    assert Event.find(lost).state == "applied"
    assert StripeCustomer.get(USER).name == "Name 0"


def test_the_stream_applies_what_the_sweep_has_found(world: World, customer: Customer) -> None:
    (lost,) = lose(world, customer, 1)
    world.reconcile()
    world.stream((f"EVENT#{lost}", "EVENT"))
    assert Event.find(lost).state == "applied"


def test_what_has_arrived_already_is_not_received_again(world: World, customer: Customer) -> None:
    rename(world, customer, "Newest")
    world.settle()
    before = world.items(record_type="Event")
    assert world.reconcile()["recovered"] == 0
    assert world.items(record_type="Event") == before


def test_a_sweep_of_nothing_costs_one_question(world: World, customer: Customer) -> None:
    with world.counting() as counts:
        world.reconcile()
    assert counts.stripe == 1


def test_the_first_sweep_begins_shortly_before_it(world: World) -> None:
    world.stripe.webhooks.drop_next(2)
    customer = StripeCustomer.create(USER, EMAIL)
    world.time += 550
    assert world.reconcile()["recovered"] == 1
    world.time += 10_000
    rename(world, customer, "Newest")
    assert world.reconcile()["recovered"] == 1


def test_an_event_that_stripe_lists_late_is_found_by_the_overlap(
    world: World, customer: Customer
) -> None:
    (lost,) = lose(world, customer, 1)
    late = world.stripe.account.events.pop(lost)
    world.time += 500
    assert world.reconcile()["recovered"] == 0
    world.stripe.account.events[lost] = late
    world.time += 300
    assert world.reconcile()["recovered"] == 1
    assert Event.find(lost)


def test_many_pages_are_swept_to_the_end(world: World, customer: Customer) -> None:
    lost = lose(world, customer, 210)
    assert world.reconcile()["recovered"] == 210
    assert {item["stripe_id"] for item in world.items(record_type="Event")} >= set(lost)
    assert cursor().swept_until == world.time
    assert (cursor().started_at, cursor().after) == (None, None)


def test_a_sweep_that_runs_out_of_time_is_gone_on_with_by_the_next(
    world: World, customer: Customer
) -> None:
    lose(world, customer, 210)
    swept_until = cursor().swept_until
    began = world.time
    world.stripe.faults.delay(6, None, match=f"GET {LIST}")

    assert world.reconcile(remaining_seconds=55)["swept"] == 200

    assert cursor().swept_until == swept_until
    assert cursor().after is not None
    world.stripe.faults.clear()
    world.time += 300
    done = world.reconcile()
    assert (done["swept"], done["recovered"]) == (10, 10)
    assert cursor().swept_until == began
    assert (cursor().started_at, cursor().after) == (None, None)


def test_a_sweep_that_is_killed_on_its_way_is_gone_on_with_by_the_next(
    world: World, customer: Customer
) -> None:
    lost = lose(world, customer, 110)
    swept_until = cursor().swept_until
    at_listing(world, 2, die)
    with pytest.raises(ClientKilledError):
        world.reconcile()
    assert cursor().swept_until == swept_until

    done = world.reconcile()

    assert (done["swept"], done["recovered"]) == (10, 10)
    assert {item["stripe_id"] for item in world.items(record_type="Event")} >= set(lost)


def test_what_happens_during_an_interrupted_sweep_is_found_by_the_one_after_it(
    world: World, customer: Customer
) -> None:
    lose(world, customer, 110)
    at_listing(world, 2, die)
    with pytest.raises(ClientKilledError):
        world.reconcile()
    world.time += 2000
    (lost,) = lose(world, customer, 1)
    world.reconcile()
    assert Event.find(lost) is None
    world.reconcile()
    assert Event.find(lost)


def test_a_sweep_that_finds_the_database_out_of_reach_moves_no_cursor(
    world: World, customer: Customer
) -> None:
    (lost,) = lose(world, customer, 1)
    with world.failing_database("InternalServerError", operation="BatchGetItem"):
        world.reconcile()
    assert cursor().started_at is not None
    world.time += 5000
    assert world.reconcile()["recovered"] == 1
    assert Event.find(lost)


def test_a_cursor_that_cant_be_written_stops_the_sweep_and_loses_nothing(
    world: World, customer: Customer, log: Any
) -> None:
    (lost,) = lose(world, customer, 1)
    with world.failing_database("InternalServerError", operation="PutItem"):
        world.reconcile()
    assert "DatabaseUnavailableError" in log.getvalue()
    world.time += 5000
    world.reconcile()
    assert Event.find(lost)


def test_of_two_runs_at_once_one_sweeps_and_the_other_leaves_it(
    world: World, customer: Customer, log: Any
) -> None:
    lost = lose(world, customer, 110)

    def rival() -> None:
        with use(world.new_context()):
            world.reconcile()

    at_listing(world, 1, rival)
    world.reconcile()

    assert '"message":"failed"' not in log.getvalue()
    assert {item["stripe_id"] for item in world.items(record_type="Event")} >= set(lost)
    assert cursor().swept_until == world.time
    assert (cursor().started_at, cursor().after) == (None, None)


def test_an_event_to_go_on_from_that_is_listed_no_longer_begins_the_sweep_again(
    world: World, customer: Customer
) -> None:
    lost = lose(world, customer, 110)
    at_listing(world, 2, die)
    with pytest.raises(ClientKilledError):
        world.reconcile()
    del world.stripe.account.events[cursor().after]

    done = world.reconcile()

    assert done["swept"] == 109
    assert {item["stripe_id"] for item in world.items(record_type="Event")} >= set(lost)
    assert cursor().after is None


def test_an_event_is_received_even_where_stripe_calls_it_of_another_version(
    world: World, customer: Customer
) -> None:
    (lost,) = lose(world, customer, 1)
    world.stripe.account.events[lost]["api_version"] = "2025-02-24.acacia"
    world.reconcile()
    world.time += 200
    world.reconcile()
    assert Event.find(lost).state == "applied"
    assert StripeCustomer.get(USER).name == "Name 0"


def test_an_event_of_the_other_mode_or_a_connected_account_is_swept_and_ignored(
    world: World, customer: Customer
) -> None:
    first, second = lose(world, customer, 2)
    world.stripe.account.events[first]["livemode"] = True
    world.stripe.account.events[second]["account"] = "acct_1"
    world.reconcile()
    world.time += 200
    world.reconcile()
    assert {Event.find(first).state, Event.find(second).state} == {"ignored"}
    assert StripeCustomer.get(USER).name is None


# ---- which types are swept


@pytest.mark.parametrize("pattern", ["price.created", "price.*"])
def test_the_types_of_own_handlers_are_swept(table_name: str, pattern: str) -> None:
    handlers = {pattern: "tests.functions.test_reconcile_events:take"}
    world = World(table_name, event_handlers=handlers)
    with use(world.context):
        assert price_is_recovered(world)


def take(event: Event, customer: Customer | None) -> None:
    """An own handler that has nothing to do."""


def price_is_recovered(world: World) -> dict[str, Any]:
    """Whether a price, and no product, is found that was never delivered."""
    world.stripe.webhooks.drop_next(2)
    world.ask(
        "POST",
        "/v1/prices",
        {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Plan"}},
    )
    done = world.reconcile()
    assert [item["kind"] for item in world.items(record_type="Event")] == ["price.created"]
    return done


# ---- tried again


def test_stripe_refusing_its_list_does_not_keep_the_unfinished_from_being_tried(
    world: World, customer: Customer, log: Any
) -> None:
    rename(world, customer, "Newest")
    world.deliver()
    world.time += 200
    for status in (400, 401, 503):
        world.stripe.faults.fail_next(2, status=status, match=f"GET {LIST}")
    assert world.reconcile() == {"swept": 0, "recovered": 0, "tried": 1}
    assert '"message":"failed"' in log.getvalue()
    assert StripeCustomer.get(USER).name == "Newest"


def test_with_stripe_down_what_needs_no_stripe_is_applied_all_the_same(
    world: World, customer: Customer
) -> None:
    rename(world, customer, "Newest")
    world.deliver()
    world.time += 200
    world.stripe.faults.fail_next(None, status=503)
    world.reconcile()
    assert StripeCustomer.get(USER).name == "Newest"


def three_in_doubt(world: World) -> list[str]:
    """Events of three customers, each of which asks Stripe, and due."""
    ids = []
    for number in range(3):
        other = StripeCustomer.create(User(f"v-{number}"), EMAIL)
        rename(world, other, "Newest")
        payload = world.payload("customer.updated")
        StripeEvent.receive(payload)
        ids.append(payload["id"])
    world.time += 200
    return ids


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 503}, {"status": 401}])
def test_where_stripe_asks_to_slow_down_or_fails_the_rest_is_left_unclaimed(
    world: World, fault: dict[str, Any]
) -> None:
    ids = three_in_doubt(world)
    world.stripe.faults.fail_next(None, match="GET /v1/customers/*", **fault)
    done = world.reconcile()
    assert done["tried"] == 1
    assert sorted(map(attempts, ids)) == [0, 0, 1]
    world.stripe.faults.clear()
    world.time += 200
    world.reconcile()
    assert {Event.find(stripe_id).state for stripe_id in ids} == {"applied"}


def test_one_customers_trouble_does_not_keep_the_others_from_being_tried(world: World) -> None:
    ids = three_in_doubt(world)
    world.stripe.faults.fail_next(1, status=404, match="GET /v1/customers/*")
    world.reconcile()
    assert sorted(Event.find(stripe_id).state for stripe_id in ids) == [
        "applied",
        "applied",
        "pending",
    ]


def test_without_time_nothing_is_claimed(world: World) -> None:
    ids = three_in_doubt(world)
    done = world.reconcile(remaining_seconds=29)
    assert done == {"swept": 0, "recovered": 0, "tried": 0}
    assert sorted(map(attempts, ids)) == [0, 0, 0]


def test_what_is_not_due_is_left_alone(world: World, customer: Customer) -> None:
    rename(world, customer, "Newest")
    world.deliver()
    assert world.reconcile()["tried"] == 0


def test_several_due_events_of_one_customer_cost_one_fetch(world: World) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    for number in range(5):
        rename(world, customer, f"Name {number}")
    world.deliver()
    world.time += 200
    with world.counting() as counts:
        assert world.reconcile()["tried"] == 6
    assert counts.stripe == 4
    assert StripeCustomer.get(USER).name == "Name 4"


def test_an_index_that_cant_be_read_is_told_and_the_next_run_goes_on(
    world: World, customer: Customer, log: Any
) -> None:
    rename(world, customer, "Newest")
    world.deliver()
    world.time += 200
    with world.failing_database("InternalServerError", operation="Query"):
        assert world.reconcile()["tried"] == 0
    assert "DatabaseUnavailableError" in log.getvalue()
    assert world.reconcile()["tried"] == 1


def test_nothing_that_the_schedule_does_deletes_anything(world: World, customer: Customer) -> None:
    lose(world, customer, 3)
    before = {(item["pk"], item["sk"]) for item in world.items()}
    for _ in range(3):
        world.time += 1000
        world.reconcile()
    assert {(item["pk"], item["sk"]) for item in world.items()} >= before
    assert world.time > START
