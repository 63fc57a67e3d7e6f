"""What an odd event or setting must not do to the other events, or to Stripe."""

from __future__ import annotations

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.errors import ConfigurationError
from stripe_integrations.models import Customer
from stripe_integrations.models.table import KNOWN_SCHEMA_VERSION
from tests.world import EMAIL, World, database_client, stored_event


class TestUnknownState:
    def test_does_not_stop_the_queue(self, world: World, customer: Customer) -> None:
        world.rename(customer.stripe_id, "Zoe")
        newer, due = world.receive("customer.created"), world.receive("customer.updated")
        for image in world.images():
            if image["pk"]["S"] == f"EVENT#{newer}":
                later = {"N": str(KNOWN_SCHEMA_VERSION + 1)}
                item = {**image, "state": {"S": "paused"}, "schema_version": later}
                database_client().put_item(TableName=world.settings.table_name, Item=item)
        world.time += 600
        world.reconcile()
        assert stored_event(due).state == "applied"


class TestUnknownKind:
    def test_create_writes_nothing(self, world: World) -> None:
        world.configure(stored_records=frozenset({"Invoice"}))
        with pytest.raises(ConfigurationError, match="STORED_RECORDS"):
            StripeCustomer.create(User("u-9"), EMAIL)
        assert world.items() == []
        assert world.stripe_customers() == []


class TestUnrelatedCustomer:
    @pytest.mark.parametrize("odd", [{"test_clock": "clock_1"}, {"created": 1}])
    def test_its_creation_waits_without_a_call(self, world: World, odd: dict[str, object]) -> None:
        world.request("POST", "/v1/customers", {"email": EMAIL})
        payload = world.payload("customer.created")
        payload["data"]["object"].update(odd)
        payload["created"] += 20
        StripeEvent.receive(payload)
        with world.counting() as counts:
            StripeEvent.apply(payload["id"])
        assert counts.stripe == 0
        assert stored_event(payload["id"]).state == "waiting"
