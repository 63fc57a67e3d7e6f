"""Finding events that are not final, by few calls."""

from __future__ import annotations

from itertools import islice

from stripe_integrations.actions import StripeEvent
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.models import Customer
from tests.stripe_changes import rename_later
from tests.world import World, exhaust


def test_events_that_failed_last_come_first(world: World, customer: Customer) -> None:
    received = []
    for name in ("first", "second", "third"):
        world.time += 10
        received.append(rename_later(world, customer, name))
        exhaust(received[-1])
        StripeEvent.apply(received[-1])
    assert [event.stripe_id for event in StripeEvent.find(state="failed")] == received[::-1]


def test_a_page_of_queued_events_takes_two_calls(world: World) -> None:
    world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
    for _ in range(150):
        world.request("POST", "/v1/customers", {"email": "foreign@example.com"})
    world.deliver()
    with world.counting() as counts:
        page = list(islice(StripeEvent.find(state="waiting"), 50))
    assert len(page) == 50
    assert counts.operations == ["Query", "BatchGetItem"]
