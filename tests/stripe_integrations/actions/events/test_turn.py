"""An event is written only by the worker that holds its turn, and is published once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.context import use
from stripe_integrations.models import Customer, Event, EventState, Pointer
from stripe_integrations.models.event import Event as StoredEvent
from tests.stripe_changes import rename_later
from tests.stripe_integrations.actions.events.custom_handlers import (
    NOTE,
    called,
    meanwhile,
    raising,
)
from tests.world import USER, World, stored_event


@pytest.fixture(autouse=True)
def bus(world: World) -> Iterator[None]:
    world.configure(event_bus_name="changes")
    yield


def effects(world: World) -> dict[str, list[str]]:
    """The effects that were published, by type of event."""
    found: dict[str, list[str]] = {}
    for detail in world.published:
        found.setdefault(detail["type"], []).append(detail["effect"])
    return found


class TestTurn:
    def test_slow_worker_neither_ends_nor_retries_event_claimed_by_another(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = rename_later(world, customer)
        slow = Event.claim(stripe_id)
        assert slow is not None
        world.time += 300
        assert Event.claim(stripe_id)
        claimed = stored_event(stripe_id).attribute_values

        assert slow.finish(EventState.IGNORED, "older") is False
        slow.schedule_retry(OSError())
        slow.fail("exhausted")
        assert stored_event(stripe_id).attribute_values == claimed

    def test_replay_ends_the_turn_of_a_worker(self, world: World, customer: Customer) -> None:
        stripe_id = rename_later(world, customer)
        slow = Event.claim(stripe_id)
        assert slow is not None
        StripeEvent.replay(stripe_id)
        ended = stored_event(stripe_id)
        assert ended.state == "applied"
        assert slow.holds_turn() is False

    def test_waiting_event_is_linked_by_one_worker(self, world: World, customer: Customer) -> None:
        payload = world.payload("customer.created")
        payload["data"]["object"]["metadata"] = {}
        payload["id"] = "evt_waiting"
        event = StoredEvent.received(payload, valid=True)
        event.wait()
        event.store()
        first = Event.claim("evt_waiting")
        assert first is not None
        assert Event.claim("evt_waiting") is None
        owner = Pointer.find(customer.stripe_id)
        assert owner is not None
        assert first.link_waiting(owner) is True
        assert stored_event("evt_waiting").state == "pending"

    def test_link_to_missing_record_is_replaced(self, world: World, customer: Customer) -> None:
        stripe_id = rename_later(world, customer)
        stored_event(stripe_id).update([Event.user_id.set("u-of-long-ago")])
        apply_events([stripe_id])
        event = stored_event(stripe_id)
        assert (event.state, event.user_id) == ("applied", "u-1")


class TestPublishedOnce:
    def test_slow_handlers_do_not_repeat_it(self, world: World, customer: Customer) -> None:
        world.configure(event_handlers={"customer.updated": NOTE})
        stripe_ids = []
        for name in ("Ada", "Bob", "Cy"):
            world.time += 60
            world.rename(customer.stripe_id, name)
            stripe_ids.append(world.receive())

        def outlast_claim() -> None:
            world.time += 200
            with use(world.new_context()):
                apply_events(stripe_ids)

        meanwhile.append(outlast_claim)
        apply_events(stripe_ids)
        assert sorted(d["event_id"] for d in world.published) == sorted(stripe_ids)

    def test_change_already_fetched_has_effect_older(
        self, world: World, customer: Customer
    ) -> None:
        subscription = world.subscribe(customer.stripe_id)
        world.deliver_and_apply()
        world.time += 60
        world.request("DELETE", f"/v1/subscriptions/{subscription}")
        world.time += 20
        world.sync()
        world.deliver_and_apply()
        assert effects(world)["customer.subscription.deleted"] == ["older"]

    @pytest.mark.parametrize("first", ["sync", "create"])
    def test_deletion_already_found_has_effect_older(
        self, world: World, customer: Customer, first: str
    ) -> None:
        world.deliver_and_apply()
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        getattr(world, first)()
        world.deliver_and_apply()
        assert effects(world)["customer.deleted"] == ["older"]
        (detail,) = (d for d in world.published if d["type"] == "customer.deleted")
        assert detail["customer_is_active"] is False

    def test_change_after_deletion_has_effect_frozen(
        self, world: World, customer: Customer
    ) -> None:
        world.deliver_and_apply()
        world.rename(customer.stripe_id, "New Name")
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        for kind in ("customer.deleted", "customer.updated"):
            world.receive(kind)
            world.stream()
        assert effects(world)["customer.updated"] == ["frozen"]

    def test_local_soft_delete_ends_publishing(self, world: World, customer: Customer) -> None:
        stripe_id = rename_later(world, customer)
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        apply_events([stripe_id])
        assert world.published == []

    def test_failing_handler_does_not_repeat_it(self, world: World, customer: Customer) -> None:
        world.configure(event_handlers={"customer.updated": NOTE})
        stripe_id = rename_later(world, customer)
        raising.extend([OSError(), OSError()])
        for _ in range(3):
            world.stream()
            world.time += 7200
            world.reconcile()
        assert stored_event(stripe_id).state == "applied"
        assert len(called) == 3
        assert effects(world)["customer.updated"] == ["applied"]

    def test_replay_repeats_it(self, world: World, customer: Customer) -> None:
        stripe_id = rename_later(world, customer)
        apply_events([stripe_id])
        StripeEvent.replay(stripe_id)
        assert effects(world)["customer.updated"] == ["applied", "applied"]
