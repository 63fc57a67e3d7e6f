"""A child that is too large for an item is stored with its main fields, and blocks no other."""

from __future__ import annotations

import pytest

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.models import Customer, UserRecords
from tests.world import USER, World

DISCOUNTS = [f"di_{number:024}" for number in range(20_000)]
"""More than 500 KB of JSON."""


@pytest.fixture
def subscriptions(world: World, customer: Customer) -> tuple[str, str]:
    """A subscription that is too large, and a small one."""
    world.deliver_and_apply()
    world.time += 60
    large, small = world.subscribe(customer.stripe_id), world.subscribe(customer.stripe_id)
    world.deliver_and_apply()
    world.time += 60
    world.stripe.subscriptions.set_fields(large, discounts=DISCOUNTS)
    world.deliver_and_apply()
    return large, small


def statuses() -> dict[str, str | None]:
    return {s.stripe_id: s.status for s in StripeCustomer.require(USER).subscriptions}


class TestOversizedSubscription:
    def test_is_stored_with_its_main_fields(
        self, world: World, subscriptions: tuple[str, str]
    ) -> None:
        large, small = subscriptions
        body = world.sync()["json"]
        found = {s["stripe_id"]: s for s in body["subscriptions"]}
        assert body["is_incomplete"] is True
        assert found[large]["is_incomplete"] is True
        assert found[large]["status"] == "active"
        assert found[large]["current_period_end"]
        assert found[large]["discounts"] is None
        assert found[small]["is_incomplete"] is False

    def test_does_not_block_the_small_one(
        self, world: World, customer: Customer, subscriptions: tuple[str, str]
    ) -> None:
        large, small = subscriptions
        world.time += 60
        world.request("DELETE", f"/v1/subscriptions/{small}")
        world.deliver_and_apply()
        assert world.sync()["statusCode"] == 200
        assert statuses() == {large: "active", small: "canceled"}

    def test_is_not_removed_by_the_next_refresh(
        self, world: World, subscriptions: tuple[str, str]
    ) -> None:
        for _ in range(2):
            world.time += 60
            world.sync()
        assert statuses().keys() == set(subscriptions)

    def test_is_not_written_again_when_unchanged(
        self, world: World, subscriptions: tuple[str, str]
    ) -> None:
        world.sync()
        world.time += 60
        with world.counting() as counts:
            world.sync()
        (write,) = (body for body in counts.bodies if "TransactItems" in body)
        assert len(write["TransactItems"]) == 1

    def test_is_complete_when_it_fits_again(
        self, world: World, subscriptions: tuple[str, str]
    ) -> None:
        large, _ = subscriptions
        world.time += 60
        world.stripe.subscriptions.set_fields(large, discounts=[])
        world.deliver_and_apply()
        world.sync()
        assert StripeCustomer.require(USER).is_incomplete is False


class TestRefusedChild:
    def test_is_reduced_when_dynamodb_refuses_it(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.deliver_and_apply()
        monkeypatch.setattr("stripe_integrations.models.child.MAX_BYTES", 10_000_000)
        large, small = world.subscribe(customer.stripe_id), world.subscribe(customer.stripe_id)
        world.stripe.subscriptions.set_fields(large, discounts=DISCOUNTS)
        assert world.sync()["statusCode"] == 200
        found = {s.stripe_id: s.is_incomplete for s in StripeCustomer.require(USER).subscriptions}
        assert found == {large: True, small: False}

    def test_is_reduced_when_its_customer_is_deleted(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        large, small = world.subscribe(customer.stripe_id), world.subscribe(customer.stripe_id)
        world.deliver_and_apply()
        monkeypatch.setattr("stripe_integrations.models.child.MAX_BYTES", 10_000_000)
        world.time += 60
        world.stripe.subscriptions.set_fields(large, discounts=DISCOUNTS)
        world.time += 60
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        world.deliver_and_apply()
        record = UserRecords.read(str(USER.id)).customer(customer.stripe_id)
        assert record is not None and not record.is_active
        found = {s.stripe_id: (s.status, s.is_incomplete) for s in record.subscriptions}
        assert found == {large: ("canceled", True), small: ("canceled", False)}


def test_response_stays_within_lambdas_limit(
    world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.deliver_and_apply()
    monkeypatch.setattr("stripe_integrations.entrypoints.serialization._MAX_RESPONSE_BYTES", 60_000)
    monkeypatch.setattr("stripe_integrations.entrypoints.serialization.MAX_BYTES", 30_000)
    ids = {world.subscribe(customer.stripe_id) for _ in range(4)}
    for stripe_id in ids:
        world.stripe.subscriptions.set_fields(stripe_id, discounts=DISCOUNTS[:700])
    response = world.sync()
    assert len(response["body"]) < 60_000
    assert response["json"]["is_incomplete"] is True
    found = response["json"]["subscriptions"]
    assert {s["stripe_id"] for s in found} == ids
    assert {(s["status"], s["is_incomplete"]) for s in found} == {("active", True)}
    assert not StripeCustomer.require(USER).is_incomplete
