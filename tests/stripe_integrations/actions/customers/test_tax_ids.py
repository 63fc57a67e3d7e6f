"""Tax ids: an optional kind, from Stripe's events, a fetch and in responses."""

from __future__ import annotations

from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.models import Customer
from stripe_integrations.models.tax_id import TaxId
from tests.world import USER, World

EU_VAT = {"type": "eu_vat", "value": "DE123456789"}
KINDS = frozenset({"Card", "Subscription", "TaxId"})


@pytest.fixture(autouse=True)
def tax_ids_are_stored(world: World) -> None:
    world.configure(stored_records=KINDS)


def stored() -> list[tuple[str, str | None]]:
    tax_ids = StripeCustomer.require(USER).tax_ids
    return [(tax_id.stripe_id, tax_id.verification["status"]) for tax_id in tax_ids]


def add(world: World, customer: Customer, params: dict[str, str] = EU_VAT) -> dict[str, Any]:
    """Add a tax id on Stripe."""
    return world.request("POST", f"/v1/customers/{customer.stripe_id}/tax_ids", params)


class TestEvents:
    def test_life_of_a_tax_id_needs_no_fetch(self, world: World, customer: Customer) -> None:
        world.deliver_and_apply()
        world.time += 60
        requests = len(world.stripe.requests)
        tax_id = add(world, customer)["id"]
        world.deliver_and_apply()
        assert stored() == [(tax_id, "pending")]

        world.time += 60
        world.stripe.tax_ids.verify(customer.stripe_id, tax_id, "verified")
        world.deliver_and_apply()
        assert stored() == [(tax_id, "verified")]

        world.time += 60
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}/tax_ids/{tax_id}")
        world.deliver_and_apply()
        assert stored() == []
        assert len(world.stripe.requests) - requests == 2  # this test's own

    def test_late_event_does_not_restore_a_removed_tax_id(
        self, world: World, customer: Customer
    ) -> None:
        world.deliver_and_apply()
        world.time += 60
        tax_id = add(world, customer)["id"]
        world.time += 60
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}/tax_ids/{tax_id}")
        for delivery in reversed(world.stripe.webhooks.due()):
            world.webhook(delivery.body, delivery.headers)
            world.stream()
        assert stored() == []

    def test_deletion_of_customer_leaves_tombstone(self, world: World, customer: Customer) -> None:
        add(world, customer)
        world.deliver_and_apply()
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        world.deliver_and_apply()
        (tombstone,) = world.items(record_type="TaxId")
        assert "removed_at" in tombstone
        assert "value" not in tombstone


class TestFetch:
    def test_sync_lists_all_of_them(self, world: World, customer: Customer) -> None:
        ids = {add(world, customer)["id"], add(world, customer, {**EU_VAT, "value": "FR1"})["id"]}
        StripeCustomer.sync(StripeCustomer.require(USER))
        assert {stripe_id for stripe_id, _ in stored()} == ids

    def test_fields_are_stripes(self, world: World, customer: Customer) -> None:
        add(world, customer)
        (tax_id,) = StripeCustomer.sync(StripeCustomer.require(USER)).tax_ids
        assert isinstance(tax_id, TaxId)
        assert (tax_id.type, tax_id.value, tax_id.country) == ("eu_vat", "DE123456789", "DE")
        assert tax_id.livemode is False


class TestResponses:
    def test_customer_has_tax_ids(self, world: World, customer: Customer) -> None:
        tax_id = add(world, customer)["id"]
        response = world.sync()["json"]
        assert [entry["stripe_id"] for entry in response["tax_ids"]] == [tax_id]

    def test_default_deployment_neither_stores_nor_returns_them(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(stored_records=frozenset({"Card", "Subscription"}))
        add(world, customer)
        world.deliver_and_apply()
        assert "tax_ids" not in world.sync()["json"]
        assert StripeCustomer.require(USER).tax_ids == []
        assert world.event_states()["customer.tax_id.created"] == "ignored"
