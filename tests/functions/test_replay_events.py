"""Replay, by an operator: finished events are applied again, as Stripe has their customer now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.actions.events import replay
from stripe_integrations.errors import (
    DatabaseUnavailableError,
    EventNotFoundError,
    InvalidFieldError,
)
from stripe_integrations.models import Customer, Event, Owner, Pointer, event_queue
from tests.stripe_changes import rename_later
from tests.world import (
    EMAIL,
    USER,
    World,
    database_client,
    exhaust,
    hooked,
    stored_event,
    stripe_event,
)

FETCH_CALLS = 3
OTHER = User("u-2")
COUNTERS = {"version", "turn", "fetch_requests", "fetch_requests_served"}
ALL_TIME = {"created_from": 0, "created_to": 2**33}
MALFORMED_KEYS: list[Any] = [
    7,
    [],
    {},
    {"x": 1},
    {"pk": {"S": "EVENT#evt_1"}},
    {"pk": {"S": "\ud800"}, "sk": {"S": "EVENT"}},
]


def applied(world: World, customer: Customer, name: str) -> str:
    stripe_id = rename_later(world, customer, name)
    StripeEvent.apply(stripe_id)
    return stripe_id


def failed(world: World, customer: Customer, name: str = "Newest") -> str:
    stripe_id = rename_later(world, customer, name)
    exhaust(stripe_id)
    StripeEvent.apply(stripe_id)
    assert stored_event(stripe_id).state == "failed"
    return stripe_id


def assert_applied(stripe_id: str, name: str = "Newest") -> None:
    assert stored_event(stripe_id).state == "applied"
    assert StripeCustomer.require(USER).name == name


def without_counters(world: World) -> list[dict[str, Any]]:
    """The stored items, without what every attempt and every fetch counts."""
    return [{name: item[name] for name in item.keys() - COUNTERS} for item in world.items()]


class TestReplayOne:
    def test_applies_what_stripe_has_now(self, world: World, customer: Customer) -> None:
        old = applied(world, customer, "Old")
        applied(world, customer, "Newer")
        world.time += 100
        world.rename(customer.stripe_id, "Newest")
        with world.counting() as counts:
            done = world.replay({"event_id": old})
        assert done == {"replayed": 1, "resume_from": None}
        assert counts.stripe == FETCH_CALLS
        assert_applied(old)
        assert stored_event(old).attempts == 1
        assert stored_event(old).expires_at is not None

    def test_second_replay_changes_nothing(self, world: World, customer: Customer) -> None:
        stripe_id = applied(world, customer, "Newest")
        world.time += 100
        world.replay({"event_id": stripe_id})
        once = without_counters(world)
        world.replay({"event_id": stripe_id})
        assert without_counters(world) == once

    def test_replays_event_claimed_by_another_worker(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = rename_later(world, customer)
        Event.claim(stripe_id)
        world.replay({"event_id": stripe_id})
        assert_applied(stripe_id)

    def test_schedule_retries_replay_that_failed(self, world: World, customer: Customer) -> None:
        stripe_id = failed(world, customer)
        world.stripe.faults.fail_next(None, status=503)
        assert world.replay({"event_id": stripe_id})["replayed"] == 1
        assert stored_event(stripe_id).state == "pending"
        world.stripe.faults.clear()
        world.time += 300
        world.reconcile()
        assert_applied(stripe_id)

    @pytest.mark.parametrize("changes", [{"livemode": True}, {"account": "acct_1"}])
    def test_event_of_other_mode_or_account_stays_ignored(
        self, world: World, customer: Customer, changes: dict[str, Any]
    ) -> None:
        rename_later(world, customer)
        StripeEvent.receive({**world.payload(), "id": "evt_odd", **changes})
        before = stored_event("evt_odd")
        with world.counting() as counts:
            world.replay({"event_id": "evt_odd"})
        event = stored_event("evt_odd")
        assert (event.state, event.reason) == ("ignored", before.reason)
        assert counts.stripe == 0
        assert StripeCustomer.require(USER).name is None

    def test_soft_deleted_record_stays_as_it_is(self, world: World, customer: Customer) -> None:
        stripe_id = rename_later(world, customer)
        StripeCustomer.soft_delete(customer)
        before = world.items(record_type="Customer")
        world.replay({"event_id": stripe_id})
        assert stored_event(stripe_id).state == "ignored"
        assert world.items(record_type="Customer") == before

    def test_event_of_unknown_customer_waits_again(self, world: World) -> None:
        StripeEvent.receive(stripe_event())
        world.time += 2 * 86400
        StripeEvent.apply("evt_1")
        assert stored_event("evt_1").state == "ignored"
        world.replay({"event_id": "evt_1"})
        assert stored_event("evt_1").state == "waiting"

    def test_missing_event_is_named_and_not_stored(self, world: World) -> None:
        with pytest.raises(EventNotFoundError, match="evt_none"):
            world.replay({"event_id": "evt_none"})
        assert world.items() == []


class TestReplayFailed:
    def test_replays_all_failed_events_and_no_other(self, world: World, customer: Customer) -> None:
        other = StripeCustomer.create(OTHER, EMAIL)
        ids = [
            failed(world, customer, "One"),
            failed(world, customer, "Two"),
            failed(world, other, "Three"),
        ]
        pending = rename_later(world, other, "Four")

        with world.counting() as counts:
            assert world.replay({"failed": True}) == {"replayed": 3, "resume_from": None}

        assert counts.stripe == 2 * FETCH_CALLS
        assert {stored_event(stripe_id).state for stripe_id in ids} == {"applied"}
        assert stored_event(pending).state == "pending"
        assert StripeCustomer.require(USER).name == "Two"
        assert StripeCustomer.require(OTHER).name == "Four"
        assert world.replay({"failed": True})["replayed"] == 0

    def test_schedule_applies_what_replay_had_no_time_for(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = failed(world, customer)
        assert world.replay({"failed": True}, remaining_seconds=40)["replayed"] == 1
        assert stored_event(stripe_id).state == "pending"
        world.reconcile()
        assert_applied(stripe_id)

    def test_resumes_with_the_remaining_events(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay, "_BATCH_EVENTS", 1)
        ids = [failed(world, customer, "One"), failed(world, customer, "Newest")]
        calls: list[dict[str, Any]] = []
        while not calls or calls[-1]["resume_from"]:
            event = {"failed": True, "resume_from": calls[-1]["resume_from"] if calls else None}
            calls.append(world.replay(json.loads(json.dumps(event)), remaining_seconds=40))
        assert [call["replayed"] for call in calls] == [1, 1]
        world.reconcile()
        for stripe_id in ids:
            assert_applied(stripe_id)

    def test_leaves_out_events_that_fail_again(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise a resumed replay would never end."""
        monkeypatch.setattr(replay, "_BATCH_EVENTS", 1)
        ids = [failed(world, customer, "One"), failed(world, customer, "Newest")]
        world.time += 10

        def fail(stripe_ids: list[str]) -> None:
            world.time += 1
            for stripe_id in stripe_ids:
                event = Event.claim(stripe_id)
                assert event
                event.fail("always")

        monkeypatch.setattr(replay, "apply_events", fail)
        assert world.replay({"failed": True})["replayed"] == len(ids)


class TestReplayRange:
    def test_replays_events_in_any_state(self, world: World, customer: Customer) -> None:
        before = applied(world, customer, "Before")
        first = applied(world, customer, "First")
        begin = int(world.time)
        ids = [first, failed(world, customer, "Failed"), rename_later(world, customer, "Last")]
        end = int(world.time)
        after = rename_later(world, customer, "After")

        done = world.replay({"created_from": begin, "created_to": end})

        assert done == {"replayed": 3, "resume_from": None}
        assert {stored_event(stripe_id).state for stripe_id in ids} == {"applied"}
        events = world.items(record_type="Event")
        assert {e["stripe_id"] for e in events if "replayed_at" in e} == set(ids)
        assert stored_event(before).state == "applied"
        assert stored_event(after).state == "pending"
        assert StripeCustomer.require(USER).name == "After"

    def test_resumes_from_returned_key(self, world: World, customer: Customer) -> None:
        for number in range(5):
            rename_later(world, customer, f"Name {number}")
        scanned = [image for image in world.images() if image["sk"]["S"] == "EVENT"]
        reached = {"pk": scanned[1]["pk"], "sk": scanned[1]["sk"]}
        # An operator copies it as JSON.
        event = json.loads(json.dumps({**ALL_TIME, "resume_from": reached}))
        assert world.replay(event) == {"replayed": 3, "resume_from": None}
        replayed = {item["pk"] for item in world.items() if "replayed_at" in item}
        assert replayed == {image["pk"]["S"] for image in scanned[2:]}

    def test_many_events_are_read_in_parts(self, world: World) -> None:
        with Event.batch_write() as batch:
            for number in range(1010):
                batch.save(Event.received(stripe_event(number=number), valid=True))
        first, resume_from = event_queue.created_between(0, 2**33)
        rest, end = event_queue.created_between(0, 2**33, resume_from)
        assert resume_from
        assert end is None
        assert len({entry.stripe_id for entry in [*first, *rest]}) == 1010
        assert len(first) < 1010

    def test_stops_in_time(self, world: World) -> None:
        with Pointer.batch_write() as batch:
            for number in range(5000):
                batch.save(Pointer.to(Owner("u-2", f"cus_{number}")))

        def take_long(request: Any, **_: Any) -> None:
            if "Scan" in str(request.headers["X-Amz-Target"]):
                world.time += 20  # a page of a large table

        began = world.time
        with hooked(database_client(), "before-send.dynamodb", take_long):
            done = world.replay(ALL_TIME, remaining_seconds=60)
        assert world.time - began < 60
        assert done["resume_from"] is not None


class TestInput:
    @pytest.mark.parametrize(
        ("event", "named"),
        [
            ({}, "event_id"),
            ({"event_id": None}, "event_id"),
            ({"event_id": 7}, "event_id"),
            ({"failed": False}, "event_id"),
            ({"failed": "yes"}, "event_id"),
            ({"created_from": 1}, "event_id"),
            ({"created_from": "2027-01-01", "created_to": "2027-01-02"}, "event_id"),
            ({"created_from": 1.5, "created_to": 2.5}, "event_id"),
            *(({**ALL_TIME, "resume_from": key}, "resume_from") for key in MALFORMED_KEYS),
            *(({"failed": True, "resume_from": key}, "resume_from") for key in MALFORMED_KEYS),
        ],
    )
    def test_malformed_event_is_refused(
        self, world: World, event: dict[str, Any], named: str
    ) -> None:
        with world.counting() as counts, pytest.raises(InvalidFieldError, match=named):
            world.replay(event)
        assert set(counts.operations) <= {"GetItem"}  # of the deployment's name
        assert counts.stripe == 0

    @pytest.mark.parametrize(
        ("event", "operation"), [(ALL_TIME, "Scan"), ({"failed": True}, "Query")]
    )
    def test_failed_read_is_raised(
        self, world: World, event: dict[str, Any], operation: str
    ) -> None:
        with (
            world.failing_database("InternalServerError", operation=operation),
            pytest.raises(DatabaseUnavailableError, match="DynamoDB: InternalServerError"),
        ):
            world.replay(event)
