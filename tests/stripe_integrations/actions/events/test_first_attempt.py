"""The first attempt of an event: its receipt is the claim, so only its effect is written."""

from __future__ import annotations

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.models import Customer, Event
from tests.stripe_changes import rename, rename_later
from tests.stripe_integrations.actions.events.custom_handlers import NOTE, called, meanwhile
from tests.world import EMAIL, USER, World, stored_event
from tests.write_units import counting_write_units


def state(stripe_id: str) -> tuple[str, int]:
    event = stored_event(stripe_id)
    return event.state, event.attempts


class TestFirstAttempt:
    def test_writes_nothing_before_its_effect(self, world: World, customer: Customer) -> None:
        stripe_id = rename_later(world, customer)
        with world.counting() as counts:
            world.stream_events(stripe_id)
        operations = [operation for operation in counts.operations if operation != "Scan"]
        assert operations == ["BatchGetItem", "Query", "TransactWriteItems"]
        assert state(stripe_id) == ("applied", 1)

    def test_of_an_update_costs_at_most_eight_write_units(
        self, world: World, customer: Customer
    ) -> None:
        with counting_write_units() as units:
            world.stream_events(rename_later(world, customer))
        assert StripeCustomer.require(USER).name == "Newest"
        assert 0 < units.total <= 8

    def test_of_a_subscription_costs_at_most_twelve_write_units(
        self, world: World, customer: Customer
    ) -> None:
        subscription = world.subscribe(customer.stripe_id)
        world.stream_events(world.receive("customer.subscription.created"))
        world.time += 10
        world.request("POST", f"/v1/subscriptions/{subscription}", {"metadata": {"plan": "gold"}})
        with counting_write_units() as units:
            world.stream_events(world.receive("customer.subscription.updated"))
        (stored,) = StripeCustomer.require(USER).subscriptions
        assert stored.metadata == {"plan": "gold"}
        assert 0 < units.total <= 12

    def test_of_event_that_is_picked_up_late_is_claimed(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = rename(world, customer)
        world.time += 51  # the invocation may last longer than the receipt's claim
        during: list[tuple[str, int]] = []
        world.during_sleep = lambda: during.append(state(stripe_id))
        world.stream_events(stripe_id)
        assert during[0] == ("pending", 1)
        assert state(stripe_id) == ("applied", 1)

    def test_whose_process_dies_is_followed_by_a_claimed_one(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = rename(world, customer)
        world.stripe.faults.kill_client_after(1, match="GET /v1/customers/*")
        with pytest.raises(ClientKilledError):
            world.stream_events(stripe_id)
        assert state(stripe_id) == ("pending", 0)
        world.time += 121
        during: list[tuple[str, int]] = []
        world.during_sleep = lambda: during.append(state(stripe_id))
        world.reconcile()
        assert ("pending", 1) in during
        assert state(stripe_id) == ("applied", 1)

    def test_that_loses_its_event_to_another_worker_writes_nothing(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = rename(world, customer)
        claimed: list[Event | None] = []

        def claim() -> None:
            if not claimed:
                claimed.append(Event.claim(stripe_id))

        world.during_sleep = claim
        world.stream_events(stripe_id)
        assert claimed[0]
        assert state(stripe_id) == ("pending", 1)
        assert stored_event(stripe_id).turn == claimed[0].turn


class TestSideEffects:
    """Other workers may not run them at the same time: without a change, the event is claimed."""

    @pytest.fixture(autouse=True)
    def bus(self, world: World) -> None:
        world.configure(event_bus_name="changes", event_handlers={"customer.updated": NOTE})

    def test_of_an_older_event_are_claimed_first(self, world: World, customer: Customer) -> None:
        stripe_id = rename_later(world, customer)
        world.time += 10
        StripeCustomer.sync(customer)
        seen: list[tuple[str, int, bool]] = []

        def look() -> None:
            event = stored_event(stripe_id)
            seen.append((event.state, event.attempts, Event.claim(stripe_id) is None))

        meanwhile[:] = [look]
        world.stream_events(stripe_id)
        assert seen == [("pending", 1, True)]
        assert state(stripe_id) == ("applied", 1)

    def test_of_an_older_event_are_left_to_a_worker_that_has_claimed_it(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stripe_id = rename_later(world, customer)
        world.time += 10
        StripeCustomer.sync(customer)
        confirm = Event.confirm_claim

        def confirm_late(event: Event) -> bool:
            monkeypatch.setattr(Event, "confirm_claim", confirm)
            StripeEvent.replay(stripe_id)
            return confirm(event)

        monkeypatch.setattr(Event, "confirm_claim", confirm_late)
        world.stream_events(stripe_id)
        assert len(world.published) == len(called) == 1

    def test_of_an_applied_event_are_claimed_by_its_effect(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = rename_later(world, customer)
        seen: list[tuple[str, int, bool]] = []

        def look() -> None:
            event = stored_event(stripe_id)
            seen.append((event.state, event.attempts, Event.claim(stripe_id) is None))

        meanwhile[:] = [look]
        with world.counting() as counts:
            world.stream_events(stripe_id)
        assert seen == [("pending", 1, True)]
        assert counts.operations.index("TransactWriteItems") < counts.operations.index("UpdateItem")

    @pytest.mark.parametrize("is_handled", [False, True])
    def test_of_event_that_came_before_its_customer_was_stored_name_the_user(
        self, world: World, is_handled: bool
    ) -> None:
        handlers = {"customer.created": NOTE} if is_handled else {}
        world.configure(event_bus_name="changes", event_handlers=handlers)
        world.stripe.faults.kill_client_after(1, match="POST /v1/customers")
        with pytest.raises(ClientKilledError):
            StripeCustomer.create(USER, EMAIL)
        stripe_id = world.receive("customer.created")
        StripeCustomer.create(USER, EMAIL)
        world.stream_events(stripe_id)
        assert [detail["user_id"] for detail in world.published] == ["u-1"]
        assert stored_event(stripe_id).user_id == "u-1"
