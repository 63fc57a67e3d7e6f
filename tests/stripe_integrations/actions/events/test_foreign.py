"""Events of foreign customers, which this deployment did not create: they cost little and delay
no event of ours.
"""

from __future__ import annotations

from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.events.reconcile import Reconciliation, look_up_waiting
from stripe_integrations.models import Customer, Event, event_queue
from stripe_integrations.models.event import TOO_OLD, UNKNOWN_CUSTOMER
from tests.world import START, USER, World, stored_event, stripe_event
from tests.write_units import counting_write_units

DAY = 86_400


def receive(world: World, number: int = 1, **changes: Any) -> str:
    customer = {"id": f"cus_{number}", "object": "customer", "email": "eve@example.com"}
    event = {**stripe_event(number=number), "data": {"object": customer}, **changes}
    return StripeEvent.receive(event).stripe_id


class TestForeignEvent:
    @pytest.mark.parametrize(
        ("kind", "publish_types"), [("customer.updated", ()), ("invoice.paid", ("invoice.*",))]
    )
    def test_costs_at_most_six_write_units(
        self, world: World, kind: str, publish_types: tuple[str, ...]
    ) -> None:
        world.configure(event_bus_name="changes", publish_types=publish_types)
        with counting_write_units("EVENT#") as units:
            receive(world, type=kind)
            for seconds in (150, 450, 900, DAY):
                world.time += seconds
                look_up_waiting(Reconciliation())
        event = stored_event("evt_1")
        assert (event.state, event.reason) == ("ignored", UNKNOWN_CUSTOMER)
        assert 0 < units.total <= 6

    def test_never_calls_stripe(self, world: World) -> None:
        token = {"stripe_integrations_token": "other/1"}
        customer = {"id": "cus_1", "object": "customer", "metadata": token}
        receive(world, type="customer.created", api_version="2020-01-01", data={"object": customer})
        world.stream()
        for seconds in (300, 600, DAY):
            world.time += seconds
            world.reconcile()
        assert not [request for request in world.stripe.requests if "cus_1" in str(request)]
        assert stored_event("evt_1").state == "ignored"

    @pytest.mark.parametrize(
        ("kind", "state"),
        [
            ("customer.updated", "waiting"),
            ("invoice.paid", "ignored"),
            ("charge.succeeded", "ignored"),
        ],
    )
    def test_leaves_no_personal_data(self, world: World, kind: str, state: str) -> None:
        receive(world, type=kind)
        (item,) = world.items(record_type="Event")
        assert "eve@example.com" not in str(item)
        assert (item["state"], item["customer_id"], item["kind"]) == (state, "cus_1", kind)

    def test_without_customer_leaves_no_personal_data(self, world: World) -> None:
        charge = {"object": "charge", "id": "ch_1", "receipt_email": "eve@example.com"}
        receive(world, type="charge.succeeded", data={"object": charge})
        assert "eve@example.com" not in str(world.items(record_type="Event"))

    @pytest.mark.parametrize("seconds", [180, 900])
    def test_first_lookup_writes_nothing_to_it(self, world: World, seconds: int) -> None:
        receive(world)
        before = world.items(record_type="Event")
        world.time += seconds
        world.reconcile()
        assert world.items(record_type="Event") == before

    def test_claim_of_dead_process_does_not_end_it(self, world: World) -> None:
        stripe_id = receive(world)
        assert Event.claim(stripe_id)
        world.time += 600
        world.reconcile()
        assert stored_event(stripe_id).state == "waiting"
        world.time += DAY
        world.reconcile()
        assert stored_event(stripe_id).state == "ignored"

    def test_is_stored_when_the_deployment_has_no_name(self, world: World) -> None:
        world.configure(deployment_name=None)
        token = {"stripe_integrations_token": "other/1"}
        customer = {"id": "cus_1", "object": "customer", "metadata": token}
        assert stored_event(receive(world, data={"object": customer})).state == "pending"

    def test_failed_lookup_leaves_it_waiting(self, world: World) -> None:
        stripe_id = receive(world)
        world.time += DAY + 60
        with world.failing_database("ProvisionedThroughputExceededException", 1000, "BatchGetItem"):
            world.reconcile()
        assert stored_event(stripe_id).state == "waiting"
        world.reconcile()
        assert stored_event(stripe_id).state == "ignored"


class TestManyForeignEvents:
    def test_delay_no_event_of_ours(self, world: World, customer: Customer) -> None:
        for number in range(200):
            receive(world, number)
        world.time += DAY + 60
        world.rename(customer.stripe_id, "New Name")
        ours = world.receive()
        world.time += 200
        world.reconcile(remaining_seconds=31)
        assert stored_event(ours).state == "applied"

    def test_do_not_hide_the_age_of_an_event_of_ours(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_queue, "_PAGE_ITEMS", 10)
        for number in range(100):
            receive(world, number)
        world.rename(customer.stripe_id, "New Name")
        world.receive()
        world.time += 5 * 3600
        assert event_queue.oldest_pending_seconds() == 5 * 3600


class TestCustomerThatBecomesOurs:
    def test_gets_events_that_were_ignored_before(self, world: World) -> None:
        world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
        world.create()
        (on_stripe,) = world.stripe_customers()
        world.time += 10
        card = world.attach_card(on_stripe["id"])
        ended = world.receive("payment_method.attached")
        world.time += DAY + 60
        world.reconcile()
        assert stored_event(ended).reason == UNKNOWN_CUSTOMER

        world.create()
        world.stream(("USER#u-1", f"CUSTOMER#{on_stripe['id']}"))
        assert stored_event(ended).state == "applied"
        assert [c.stripe_id for c in StripeCustomer.require(USER).cards] == [card]

    @pytest.mark.parametrize("pause", [300, 3600])
    def test_gets_event_that_its_insert_missed(
        self, world: World, customer: Customer, pause: int
    ) -> None:
        world.rename(customer.stripe_id, "New Name")
        event = Event.received(world.payload(), valid=True)
        event.wait()
        event.store()
        world.time += pause
        world.reconcile()
        assert stored_event(event.stripe_id).state == "applied"

    @pytest.mark.parametrize("stored", [frozenset({"Card", "Subscription"}), frozenset[str]()])
    def test_is_current_when_stored_late(self, world: World, stored: frozenset[str]) -> None:
        world.configure(stored_records=stored)
        world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
        world.create()
        (on_stripe,) = world.stripe_customers()
        world.rename(on_stripe["id"], "New Name")
        world.time += 20 * 3600
        world.create()
        world.stream(("USER#u-1", f"CUSTOMER#{on_stripe['id']}"))
        assert StripeCustomer.require(USER).name == "New Name"

    def test_is_fetched_when_stored_late(self, world: World) -> None:
        world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
        world.create()
        (on_stripe,) = world.stripe_customers()
        card = world.attach_card(on_stripe["id"])
        world.rename(on_stripe["id"], "New Name")
        world.time += 20 * 3600
        world.create()
        world.stream(("USER#u-1", f"CUSTOMER#{on_stripe['id']}"))
        customer = StripeCustomer.require(USER)
        assert customer.name == "New Name"
        assert [c.stripe_id for c in customer.cards] == [card]


def test_event_older_than_the_retention_is_ignored(world: World, customer: Customer) -> None:
    world.time += 100 * DAY
    world.rename(customer.stripe_id, "New Name")
    payload = {**world.payload(), "created": int(START) + 5}
    stripe_id = StripeEvent.receive(payload).stripe_id
    event = stored_event(stripe_id)
    assert (event.state, event.reason, event.webhook_message) == ("ignored", TOO_OLD, None)


def test_event_of_a_test_clock_in_the_past_is_applied(world: World, customer: Customer) -> None:
    world.rename(customer.stripe_id, "New Name")
    payload = world.payload()
    payload["created"] -= 200 * DAY
    payload["data"]["object"]["test_clock"] = "clock_1"
    stripe_id = StripeEvent.receive(payload).stripe_id
    StripeEvent.apply(stripe_id)
    assert stored_event(stripe_id).state == "applied"
