"""The record of a customer that Stripe has deleted, however the deletion is discovered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY
from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.models import Customer, Event, UserRecords
from tests.world import USER, Json, World, stored_event

DELETED = "the customer is deleted"


@pytest.fixture
def subscription(world: World, customer: Customer) -> str:
    """A subscription of a customer with a default card."""
    world.time += 10
    path = f"/v1/customers/{customer.stripe_id}/sources"
    world.request("POST", path, {"source": "tok_visa"})
    stripe_id = world.subscribe(customer.stripe_id)
    world.deliver_and_apply()
    world.time += 10
    return stripe_id


def delete(world: World, customer: Customer) -> None:
    world.request("DELETE", f"/v1/customers/{customer.stripe_id}")


def stored(customer: Customer) -> Customer:
    record = UserRecords.read("u-1").customer(customer.stripe_id)
    assert record is not None
    return record


def by_event(world: World, customer: Customer) -> None:
    apply_events([world.receive("customer.deleted")])


def by_sync(world: World, customer: Customer) -> None:
    world.sync()


def by_create(world: World, customer: Customer) -> None:
    world.create()


def by_given_object(world: World, customer: Customer) -> None:
    StripeCustomer.sync_from_stripe_data(
        StripeCustomer.require(USER), {"id": customer.stripe_id, "deleted": True}
    )


def by_fetch_for_an_event(world: World, customer: Customer) -> None:
    update = {**world.payload("customer.updated"), "api_version": "2020-01-01", "id": "evt_old"}
    StripeEvent.receive(update)
    apply_events(["evt_old"])


def by_rebuild(world: World, customer: Customer) -> None:
    world.stripe.request("POST", "/v1/customers", another_customer(customer), AUTHORIZATION)
    world.rebuild()


AUTHORIZATION = {"Authorization": "Bearer sk_test_double"}


def another_customer(customer: Customer) -> Json:
    """The parameters of a later customer of the same user."""
    metadata = {**customer.metadata, TOKEN_KEY: customer.metadata[TOKEN_KEY] + "2"}
    return {"email": "jane@example.com", "metadata": metadata}


PATHS = [by_event, by_sync, by_create, by_given_object, by_fetch_for_an_event, by_rebuild]


class TestDeletedCustomer:
    @pytest.mark.parametrize("path", PATHS)
    def test_has_nothing_active(
        self,
        world: World,
        customer: Customer,
        subscription: str,
        path: Callable[[World, Customer], None],
    ) -> None:
        delete(world, customer)
        path(world, customer)
        record = stored(customer)
        assert (record.is_active, record.deleted) == (False, True)
        assert [(s.stripe_id, s.status) for s in record.subscriptions] == [
            (subscription, "canceled")
        ]
        assert record.cards == []
        assert record.default_payment_id is None

    def test_end_time_is_from_stripes_event_only(
        self, world: World, customer: Customer, subscription: str
    ) -> None:
        delete(world, customer)
        world.sync()
        (record,) = stored(customer).subscriptions
        assert (record.ended_at, record.canceled_at) == (None, None)

        stripe_id = world.receive("customer.subscription.deleted")
        apply_events([stripe_id])
        assert stored_event(stripe_id).state == "applied"
        (record,) = stored(customer).subscriptions
        on_stripe = world.stripe.account.subscriptions[subscription]
        assert (record.ended_at, record.canceled_at) == (
            on_stripe["ended_at"],
            on_stripe["canceled_at"],
        )

    def test_last_event_without_a_final_status_changes_nothing(
        self, world: World, customer: Customer, subscription: str
    ) -> None:
        delete(world, customer)
        world.sync()
        payload = world.payload("customer.subscription.deleted")
        del payload["data"]["object"]["status"]
        StripeEvent.receive(payload)
        apply_events([payload["id"]])
        assert stored(customer).subscriptions[0].status == "canceled"

    def test_deletion_without_stored_payload_is_applied(
        self, world: World, customer: Customer, subscription: str
    ) -> None:
        delete(world, customer)
        event = Event.received(world.payload("customer.deleted"), valid=True)
        event.drop_payload()
        event.store()
        apply_events([event.stripe_id])
        assert stored_event(event.stripe_id).state == "applied"
        assert stored(customer).deleted

    def test_replay_of_its_events_changes_nothing(
        self, world: World, customer: Customer, subscription: str
    ) -> None:
        delete(world, customer)
        world.deliver_and_apply()
        before = stored(customer).subscriptions[0].attribute_values
        for kind in ("customer.updated", "customer.deleted", "customer.subscription.created"):
            StripeEvent.replay(world.payload(kind)["id"])
        assert stored(customer).subscriptions[0].attribute_values == before


class TestBatchWithDeletion:
    def test_each_event_takes_effect_or_has_a_reason(
        self, world: World, customer: Customer, subscription: str
    ) -> None:
        world.rename(customer.stripe_id, "Last Name")
        renamed = world.receive()
        world.time += 5
        world.stripe.subscriptions.set_status(subscription, "past_due")
        delete(world, customer)
        ended = world.receive("customer.subscription.deleted")
        removed = world.receive("customer.source.deleted")
        deleted = world.receive("customer.deleted")
        with world.counting() as counts:
            apply_events([renamed, ended, removed, deleted])
        assert counts.stripe == 0
        record = stored(customer)
        assert record.name == "Last Name"
        assert stored_event(renamed).state == "applied"
        assert stored_event(deleted).state == "applied"
        assert stored_event(ended).state == "applied"
        assert (stored_event(removed).state, stored_event(removed).reason) == ("ignored", DELETED)
        assert record.subscriptions[0].ended_at is not None

    def test_later_update_is_ignored_with_reason(
        self, world: World, customer: Customer, subscription: str
    ) -> None:
        world.rename(customer.stripe_id, "Last Name")
        delete(world, customer)
        world.receive("customer.deleted")
        apply_events([world.payload("customer.deleted")["id"]])
        late = world.receive("customer.updated")
        apply_events([late])
        assert (stored_event(late).state, stored_event(late).reason) == ("ignored", DELETED)


def test_local_soft_delete_freezes_subscriptions(
    world: World, customer: Customer, subscription: str
) -> None:
    world.delete()
    delete(world, customer)
    world.deliver_and_apply()
    record = stored(customer)
    assert record.deleted is None
    assert record.subscriptions[0].status == "active"
