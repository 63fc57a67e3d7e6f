"""`StripeCustomer.export`: every stored attribute of a user, and nothing of another user."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models import KINDS, Event
from stripe_integrations.models.metadata_update import MetadataUpdate
from tests.marked import marks_in, user_id
from tests.marked_world import MarkedWorld
from tests.stripe_integrations.actions.customers.helpers import acquire_claim
from tests.stripe_integrations.actions.customers.test_erase import ANN, marked, marks
from tests.stripe_integrations.actions.customers.test_rebuild import put_back
from tests.world import EMAIL, USER, World, database_client, stripe_event

__all__ = ["marked"]


def exported(user: User = USER) -> list[dict[str, Any]]:
    """The exported items, as they are read from JSON lines."""
    return [json.loads(json.dumps(item)) for item in StripeCustomer.export(user)]


def keys(items: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(item["pk"], item["sk"]) for item in items}


@pytest.fixture
def stripe_id(world: World) -> str:
    """A user's customer with a child of every kind, a soft-deleted one, and another user's."""
    world.configure(stored_records=frozenset(kind.__name__ for kind in KINDS))
    StripeCustomer.soft_delete(StripeCustomer.create(USER, EMAIL))
    StripeCustomer.create(User("u-2"), EMAIL)
    world.deliver_and_apply()
    world.time += 60
    stripe_id = str(world.create(default_source="tok_visa")["json"]["stripe_id"])
    world.subscribe(stripe_id)
    world.attach_card(stripe_id)
    tax_id = {"type": "eu_vat", "value": "DE123456789"}
    world.request("POST", f"/v1/customers/{stripe_id}/tax_ids", tax_id)
    world.request("POST", "/v1/payment_methods/pm_usBankAccount/attach", {"customer": stripe_id})
    world.stripe.entitlements.grant(stripe_id, "seats")
    world.deliver_and_apply()
    world.sync()
    assert MetadataUpdate.acquire(stripe_id)
    return stripe_id


class TestExported:
    def test_has_every_item_of_the_user(self, world: World, stripe_id: str) -> None:
        ids = {item["stripe_id"] for item in world.items(record_type="Customer", user_id="u-1")}
        methods = {
            item["pk"] for item in world.items(record_type="Pointer") if "customer_id" in item
        }
        assert (len(ids), len(methods)) == (2, 2)
        partitions = {"USER#u-1", *(f"STRIPE#{each}" for each in ids), *methods}
        expected = [
            item
            for item in world.items()
            if item["pk"] in partitions or item.get("customer_id") in ids
        ]
        assert keys(exported()) == keys(expected)
        types = {item["record_type"] for item in exported()}
        assert types == {
            "CustomerClaim",
            "Customer",
            *(kind.__name__ for kind in KINDS),
            "Pointer",
            "MetadataUpdate",
            "Event",
        }

    def test_has_every_attribute(self, world: World, stripe_id: str) -> None:
        stored = {(item["pk"], item["sk"]): item for item in world.items()}
        for item in exported():
            assert item.keys() == stored[item["pk"], item["sk"]].keys()

    def test_has_every_marked_value(self, marked: MarkedWorld) -> None:
        text = json.dumps(list(StripeCustomer.export(ANN)))
        assert set(marks_in(text)) == marks(marked)

    def test_decodes_documents_and_payloads(self, world: World, stripe_id: str) -> None:
        items = exported()
        (customer,) = (item for item in items if item["sk"] == f"CUSTOMER#{stripe_id}")
        assert customer["metadata"]["stripe_integrations_user_id"] == "u-1"
        events = [item for item in items if item["record_type"] == "Event"]
        created = [item for item in events if item["kind"] == "customer.created"]
        assert {item["webhook_message"]["type"] for item in created} == {"customer.created"}

    def test_has_kinds_that_are_stored_no_longer(self, world: World, stripe_id: str) -> None:
        before = keys(exported())
        world.configure(stored_records=frozenset())
        assert keys(exported()) == before

    def test_has_children_of_half_a_release(self, world: World, stripe_id: str) -> None:
        kept = [
            image
            for image in world.images()
            if image["sk"]["S"] not in ("CLAIM", f"CUSTOMER#{stripe_id}")
        ]
        put_back(world, kept)
        types = {item["record_type"] for item in exported()}
        assert {"Card", "Subscription", "TaxId"} <= types

    def test_has_claim_of_create_in_progress(self, world: World) -> None:
        acquire_claim(name="Jane")
        (claim,) = exported()
        assert claim["parameters"]["stripe"]["name"] == "Jane"

    def test_has_failed_event_of_payment_method_alone(self, world: World, stripe_id: str) -> None:
        method = next(
            item["stripe_id"]
            for item in world.items(record_type="Card", customer_id=stripe_id)
            if item["stripe_id"].startswith("pm_")
        )
        data = {"object": {"id": method, "object": "payment_method"}}
        payload = stripe_event("payment_method.automatically_updated", data=data)
        event = Event.received(payload, valid=True)
        event.store()
        event.fail("Error")
        assert "EVENT#evt_1" in {item["pk"] for item in exported()}

    def test_has_attributes_and_records_of_a_later_release(
        self, world: World, stripe_id: str
    ) -> None:
        later = {
            "pk": {"S": "USER#u-1"},
            "sk": {"S": "LATER"},
            "record_type": {"S": "Later"},
            "values": {"M": {"flags": {"L": [{"BOOL": True}, {"NULL": True}, {"N": "1.5"}]}}},
            "content": {"B": b"Jane"},
        }
        database_client().put_item(TableName=world.settings.table_name, Item=later)
        (item,) = (item for item in exported() if item["sk"] == "LATER")
        assert item["values"] == {"flags": [True, None, 1.5]}
        assert item["content"] == "SmFuZQ=="

    def test_of_unknown_user_is_empty(self, world: World, stripe_id: str) -> None:
        assert exported(User(user_id("nobody"))) == []

    def test_after_erasure_is_empty(self, world: World, stripe_id: str) -> None:
        world.time += 200
        world.erase({"user_id": "u-1"})
        assert exported() == []

    def test_of_no_user_is_refused(self, world: World) -> None:
        with pytest.raises(InvalidFieldError):
            StripeCustomer.export(User(""))
