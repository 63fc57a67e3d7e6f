"""Events as the live log reads them from the table."""

from __future__ import annotations

from local.stored_events import BATCH, StoredEvent, StoredEvents
from stripe_integrations.actions import StripeEvent
from stripe_integrations.models import Customer
from tests.world import World, database_client, stored_event, stripe_event


def find(world: World, *stripe_ids: str) -> dict[str, StoredEvent]:
    table = world.settings.table_name
    return StoredEvents(database_client(), table, lambda: world.time).find(stripe_ids)


def test_event_has_type_user_and_next_attempt(world: World, customer: Customer) -> None:
    world.deliver()
    stripe_id = world.receive("customer.created")
    due = stored_event(stripe_id).next_attempt
    assert due
    expected = StoredEvent("customer.created", str(customer.user_id), int(due - world.time))
    assert find(world, stripe_id, stripe_id, "evt_unknown") == {stripe_id: expected}
    world.time = due + 5
    assert find(world, stripe_id)[stripe_id].retry_seconds == 0


def test_ended_event_has_no_next_attempt(world: World, customer: Customer) -> None:
    world.deliver_and_apply()
    stripe_id = world.receive("customer.created")
    assert find(world, stripe_id)[stripe_id].retry_seconds is None
    assert customer.is_new


def test_more_events_than_a_batch_are_found(world: World) -> None:
    ids = [f"evt_{number}" for number in range(BATCH + 1)]
    for stripe_id in ids:
        StripeEvent.receive(stripe_event(id=stripe_id))
    with world.counting() as counts:
        assert find(world, *ids).keys() == {*ids}
        assert find(world) == {}
    assert counts.operations == ["BatchGetItem"] * 2
