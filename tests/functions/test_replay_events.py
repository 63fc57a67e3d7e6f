"""Replay, by hand: events that have ended are applied again by what Stripe says now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.errors import EventNotFoundError, InvalidFieldError
from stripe_integrations.models import Customer, Event, Pointer, event_queue
from stripe_integrations.models.event import MAX_ATTEMPTS
from stripe_integrations.models.table import Record
from tests.world import World

USER = User("u-1")
EMAIL = "jane@example.com"
A_FETCH = 3


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL)


def rename(world: World, customer: Customer, name: str) -> str:
    world.time += 10
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": name})
    payload = world.payload("customer.updated")
    StripeEvent.receive(payload)
    return str(payload["id"])


def fail_for_good(stripe_id: str) -> None:
    """Let an event fail, as one does that was tried too often."""
    Event.find(stripe_id).update([Event.attempts.set(MAX_ATTEMPTS), Event.next_try.set(0)])
    StripeEvent.apply(stripe_id)
    assert Event.find(stripe_id).state == "failed"


def state(stripe_id: str) -> str | None:
    event = Event.find(stripe_id)
    assert event
    return event.state


# ---- one


def test_an_applied_event_is_applied_again_by_what_stripe_says_now(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer, "Then")
    StripeEvent.apply(stripe_id)
    world.time += 100
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Now"})
    with world.counting() as counts:
        done = world.replay({"event_id": stripe_id})
    assert done == {"replayed": 1, "resume_from": None}
    assert counts.stripe == A_FETCH
    event = Event.find(stripe_id)
    assert (event.state, event.attempts) == ("applied", 1)
    assert event.expires_at is not None
    assert StripeCustomer.get(USER).name == "Now"


def test_replaying_an_old_event_brings_no_old_payload_back(
    world: World, customer: Customer
) -> None:
    old = rename(world, customer, "Old")
    StripeEvent.apply(old)
    StripeEvent.apply(rename(world, customer, "Newest"))
    world.replay({"event_id": old})
    assert StripeCustomer.get(USER).name == "Newest"


def test_replaying_an_event_twice_is_replaying_it_once(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Newest")
    StripeEvent.apply(stripe_id)
    world.time += 100

    def standing() -> list[dict[str, Any]]:
        return [{**item, "version": 0} for item in world.items()]

    world.replay({"event_id": stripe_id})
    once = standing()
    world.replay({"event_id": stripe_id})
    assert standing() == once


def test_an_event_that_somebody_is_at_can_be_replayed(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Newest")
    Event.claim(stripe_id)
    world.replay({"event_id": stripe_id})
    assert (state(stripe_id), StripeCustomer.get(USER).name) == ("applied", "Newest")


def test_a_replayed_event_that_cant_be_applied_now_is_tried_again_by_the_schedule(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer, "Newest")
    fail_for_good(stripe_id)
    world.stripe.faults.fail_next(None, status=503)
    assert world.replay({"event_id": stripe_id})["replayed"] == 1
    assert state(stripe_id) == "pending"
    world.stripe.faults.clear()
    world.time += 300
    world.reconcile()
    assert (state(stripe_id), StripeCustomer.get(USER).name) == ("applied", "Newest")


@pytest.mark.parametrize("changes", [{"livemode": True}, {"account": "acct_1"}])
def test_a_replay_applies_no_event_of_the_other_mode_or_a_connected_account(
    world: World, customer: Customer, changes: dict[str, Any]
) -> None:
    rename(world, customer, "Newest")
    StripeEvent.receive({**world.payload("customer.updated"), "id": "evt_odd", **changes})
    before = Event.find("evt_odd")
    assert before.state == "ignored"
    with world.counting() as counts:
        world.replay({"event_id": "evt_odd"})
    event = Event.find("evt_odd")
    assert (event.state, event.reason) == ("ignored", before.reason)
    assert counts.stripe == 0
    assert StripeCustomer.get(USER).name is None


def test_a_replay_leaves_a_soft_deleted_record_as_it_is(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Newest")
    StripeCustomer.soft_delete(customer)
    before = world.items(record_type="Customer")
    world.replay({"event_id": stripe_id})
    assert state(stripe_id) == "ignored"
    assert world.items(record_type="Customer") == before


def test_an_event_that_names_no_customer_of_ours_may_wait_for_another_day(world: World) -> None:
    world.ask("POST", "/v1/customers", {"email": EMAIL})
    world.deliver()
    (item,) = world.items(record_type="Event")
    world.time += 2 * 86400
    StripeEvent.apply(item["stripe_id"])
    assert state(item["stripe_id"]) == "ignored"
    world.replay({"event_id": item["stripe_id"]})
    assert state(item["stripe_id"]) == "waiting"


def test_an_event_that_is_not_there_is_named_as_such_and_not_made(world: World) -> None:
    with pytest.raises(EventNotFoundError, match="evt_none"):
        world.replay({"event_id": "evt_none"})
    assert world.items() == []


# ---- the failed ones


def test_all_failed_events_are_replayed_and_no_other(world: World, customer: Customer) -> None:
    other = StripeCustomer.create(User("u-2"), EMAIL)
    failed = [
        rename(world, customer, "One"),
        rename(world, customer, "Two"),
        rename(world, other, "Three"),
    ]
    for stripe_id in failed:
        fail_for_good(stripe_id)
    pending = rename(world, other, "Four")

    assert world.replay({"failed": True}) == {"replayed": 3, "resume_from": None}

    assert {state(stripe_id) for stripe_id in failed} == {"applied"}
    assert state(pending) == "pending"
    assert (StripeCustomer.get(USER).name, StripeCustomer.get(User("u-2")).name) == ("Two", "Four")
    assert world.replay({"failed": True})["replayed"] == 0


def test_failed_events_of_one_customer_are_replayed_by_one_fetch(
    world: World, customer: Customer
) -> None:
    for number in range(4):
        fail_for_good(rename(world, customer, f"Name {number}"))
    with world.counting() as counts:
        world.replay({"failed": True})
    assert counts.stripe == A_FETCH


def test_what_a_replay_had_no_time_to_apply_is_applied_by_the_schedule(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer, "Newest")
    fail_for_good(stripe_id)
    assert world.replay({"failed": True}, remaining_seconds=40)["replayed"] == 1
    assert state(stripe_id) == "pending"
    world.reconcile()
    assert state(stripe_id) == "applied"


# ---- a range of time


def test_the_events_of_a_range_of_time_are_replayed_in_whatever_state_they_are(
    world: World, customer: Customer
) -> None:
    before = rename(world, customer, "Before")
    StripeEvent.apply(before)
    first = rename(world, customer, "First")
    StripeEvent.apply(first)
    begin = int(world.time)
    failed = rename(world, customer, "Failed")
    fail_for_good(failed)
    last = rename(world, customer, "Last")
    end = int(world.time)
    after = rename(world, customer, "After")

    done = world.replay({"created_from": begin, "created_to": end})

    assert done == {"replayed": 3, "resume_from": None}
    assert {state(stripe_id) for stripe_id in (first, failed, last)} == {"applied"}
    replayed = {
        item["stripe_id"] for item in world.items(record_type="Event") if "replayed_at" in item
    }
    assert replayed == {first, failed, last}
    assert (state(before), state(after)) == ("applied", "pending")
    assert StripeCustomer.get(USER).name == "After"


def test_a_replay_goes_on_where_an_earlier_one_has_stopped(
    world: World, customer: Customer
) -> None:
    for number in range(5):
        rename(world, customer, f"Name {number}")
    scanned = [image for image in world.images() if image["sk"]["S"] == "EVENT"]
    reached = {"pk": scanned[1]["pk"], "sk": scanned[1]["sk"]}
    # As it goes through JSON, by hand.
    event = json.loads(json.dumps({"created_from": 0, "created_to": 2**33, "resume_from": reached}))
    assert world.replay(event) == {"replayed": 3, "resume_from": None}
    replayed = {item["pk"] for item in world.items(record_type="Event") if "replayed_at" in item}
    assert replayed == {image["pk"]["S"] for image in scanned[2:]}


def test_a_range_of_very_many_events_is_looked_up_in_parts(
    world: World, customer: Customer
) -> None:
    payload = world.payload("customer.created")
    with Event.batch_write() as batch:
        for number in range(1010):
            batch.save(Event.received({**payload, "id": f"evt_{number}"}, valid=True))
    first, resume_from = event_queue.created_between(0, 2**33)
    rest, end = event_queue.created_between(0, 2**33, resume_from)
    assert resume_from
    assert end is None
    assert len({entry.stripe_id for entry in [*first, *rest]}) == 1010
    assert len(first) < 1010


def test_a_replay_of_a_range_passes_by_what_is_no_event(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Newest")
    with Pointer.batch_write() as batch:
        for number in range(50):
            batch.save(Pointer.to(f"cus_{number}", "u-2"))
    done = world.replay({"created_from": 0, "created_to": int(world.time)})
    assert done["replayed"] == 1
    assert state(stripe_id) == "applied"


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event_id": None},
        {"event_id": 7},
        {"failed": False},
        {"failed": "yes"},
        {"created_from": 1},
        {"created_from": "2027-01-01", "created_to": "2027-01-02"},
        {"created_from": 1.5, "created_to": 2.5},
    ],
)
def test_a_call_that_says_not_what_to_replay_is_refused(
    world: World, event: dict[str, Any]
) -> None:
    with world.counting() as counts, pytest.raises(InvalidFieldError, match="event_id"):
        world.replay(event)
    assert (counts.database, counts.stripe) == (0, 0)


@pytest.mark.parametrize("failing", ["Scan", "Query"])
def test_a_replay_that_cant_look_events_up_says_so(
    world: World, customer: Customer, failing: str
) -> None:
    rename(world, customer, "Newest")
    asked = {"created_from": 0, "created_to": 2**33} if failing == "Scan" else {"failed": True}
    with (
        world.failing_database("InternalServerError", operation=failing),
        pytest.raises(Exception, match="DynamoDB: InternalServerError"),
    ):
        world.replay(asked)


def test_a_replay_of_a_large_table_stops_in_time_and_says_where_to_go_on(world: World) -> None:
    StripeCustomer.create(USER, EMAIL)
    world.deliver()
    with Pointer.batch_write() as batch:
        for number in range(5000):
            batch.save(Pointer.to(f"cus_{number}", "u-2"))

    def take_long(request: Any, **_: Any) -> None:
        if "Scan" in str(request.headers["X-Amz-Target"]):
            world.time += 20  # a page of a large table

    events = Record.connection().client.meta.events
    events.register("before-send.dynamodb", take_long)
    began = world.time
    try:
        done = world.replay({"created_from": 0, "created_to": 2**33}, remaining_seconds=60)
    finally:
        events.unregister("before-send.dynamodb", take_long)

    assert world.time - began < 60
    assert done["resume_from"] is not None


@pytest.mark.parametrize(
    "odd",
    [
        7,
        [],
        {},
        {"x": 1},
        {"pk": {"S": "EVENT#evt_1"}},
        {"pk": {"S": "\ud800"}, "sk": {"S": "EVENT"}},
    ],
)
def test_a_place_to_go_on_from_that_nobody_gave_is_refused(world: World, odd: Any) -> None:
    with pytest.raises(InvalidFieldError, match="resume_from"):
        world.replay({"created_from": 1, "created_to": 2, "resume_from": odd})
