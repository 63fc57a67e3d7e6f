"""The schema of stored records, and how an item of a later schema version is treated.

`schema_1.json` has the schema of version 1. What it names must stay as it is: an attribute or a
record may be added, but removing, renaming or retyping one takes another `SCHEMA_VERSION` and a
file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.errors import EventNotFoundError, NewerSchemaError, StaleRecordError
from stripe_integrations.models import (
    KINDS,
    Customer,
    CustomerClaim,
    Event,
    EventState,
    Pointer,
    SweepCursor,
    UserRecords,
    table,
)
from stripe_integrations.models.deployment import Deployment
from stripe_integrations.models.pointer import Owner
from stripe_integrations.models.table import KNOWN_SCHEMA_VERSION, SCHEMA_VERSION, Record
from tests.world import EMAIL, USER, Json, World, database_client, stored_event, stripe_event
from tools.template import table_properties

SCHEMA = json.loads((Path(__file__).parent / f"schema_{SCHEMA_VERSION}.json").read_text())
RECORDS: tuple[type[Record], ...] = (
    CustomerClaim,
    Customer,
    *KINDS,
    Deployment,
    Event,
    Pointer,
    SweepCursor,
)


@pytest.fixture
def populated(world: World) -> World:
    """A deployment with a record of every kind."""
    world.configure(stored_records=frozenset(kind.__name__ for kind in KINDS))
    stripe_id = world.create(default_source="tok_visa")["json"]["stripe_id"]
    world.subscribe(stripe_id)
    tax_id = {"type": "eu_vat", "value": "DE123456789"}
    world.request("POST", f"/v1/customers/{stripe_id}/tax_ids", tax_id)
    world.attach_card(stripe_id, "tok_mastercard")
    method = {"customer": stripe_id}
    world.request("POST", "/v1/payment_methods/pm_usBankAccount/attach", method)
    world.stripe.entitlements.grant(stripe_id, "seats")
    world.deliver_and_apply()
    world.sync()
    world.reconcile()
    return world


def stored(world: World, *sort_keys: str) -> list[Json]:
    """The items whose sort key begins so."""
    return [image for image in world.images() if image["sk"]["S"].startswith(sort_keys)]


def set_version(world: World, number: int | None, *sort_keys: str) -> list[Json]:
    """Give items, whose sort key begins so, another schema version; the items."""
    for image in stored(world, *sort_keys):
        image.pop("schema_version", None)
        version = {"schema_version": {"N": str(number)}} if number else {}
        database_client().put_item(TableName=world.settings.table_name, Item=image | version)
    return stored(world, *sort_keys)


def make_newer(world: World, *sort_keys: str) -> list[Json]:
    return set_version(world, KNOWN_SCHEMA_VERSION + 1, *sort_keys)


def deploy_later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "KNOWN_SCHEMA_VERSION", KNOWN_SCHEMA_VERSION + 1)


class TestSchema:
    def test_attributes_are_those_of_the_version(self) -> None:
        actual = {
            model.__name__: {a.attr_name: a.attr_type for a in model.get_attributes().values()}
            for model in RECORDS
        }
        for index in table_properties()["GlobalSecondaryIndexes"]:
            actual[index["IndexName"]] = {
                key["AttributeName"]: key["KeyType"] for key in index["KeySchema"]
            }
        for name, attributes in SCHEMA["attributes"].items():
            assert {each: actual[name].get(each) for each in attributes} == attributes, name

    def test_keys_are_those_of_the_version(self, populated: World) -> None:
        populated.configure(unassigned_customers=UnassignedCustomers.STORE)
        unassigned = populated.request("POST", "/v1/customers", {"email": EMAIL})
        populated.deliver_and_apply()
        populated.attach_card(unassigned["id"])
        populated.deliver_and_apply()
        items = populated.items()
        ids = {item[name] for item in items for name in ("stripe_id", "user_id") if name in item}
        keys: dict[str, set[str]] = {}
        for item in items:
            key = f"{item['pk']} {item['sk']}"
            for known in {*ids, "u-1"}:
                key = key.replace(known, "*")
            keys.setdefault(item["record_type"], set()).add(key)
        assert {name: sorted(keys[name]) for name in SCHEMA["keys"]} == SCHEMA["keys"]

    def test_written_version_is_known(self) -> None:
        assert SCHEMA_VERSION <= KNOWN_SCHEMA_VERSION

    def test_every_item_has_the_version(self, populated: World) -> None:
        assert {item["record_type"] for item in populated.items()} == {m.__name__ for m in RECORDS}
        assert {item.get("schema_version") for item in populated.items()} == {SCHEMA_VERSION}

    def test_item_without_version_is_of_the_first(self, populated: World) -> None:
        set_version(populated, None, "")
        populated.time += 60
        populated.rename(populated.get()["json"]["stripe_id"], "Jane")
        populated.deliver_and_apply()
        assert populated.get()["json"]["name"] == "Jane"
        assert populated.sync()["statusCode"] == 200
        assert populated.reconcile()["swept"]
        assert populated.delete()["statusCode"] == 204

    def test_version_costs_no_call(self, world: World) -> None:
        StripeCustomer.create(User("u-2"), EMAIL)  # the process has the deployment's name now
        with world.counting() as counts:
            StripeCustomer.create(USER, EMAIL)
            UserRecords.read("u-1")
        assert counts.operations == ["TransactWriteItems", "TransactWriteItems", "Query"]


class TestNewerRecord:
    @pytest.mark.parametrize("key", ["CLAIM", "CUSTOMER#"])
    def test_api_returns_503_and_leaves_newer_record(self, populated: World, key: str) -> None:
        before = make_newer(populated, key)
        for response in (populated.create(), populated.get(), populated.sync(), populated.delete()):
            assert response["statusCode"] == 503
            assert response["json"]["type"] == "urn:stripe-integrations:problem:newer-schema"
            assert response["headers"]["retry-after"]
        assert populated.rebuild()["unreadable"] == 1
        assert stored(populated, key) == before

    @pytest.mark.parametrize("key", ["CLAIM", "CUSTOMER#", "POINTER"])
    def test_event_of_newer_record_is_retried_until_release_knows_it(
        self, populated: World, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stripe_id = populated.get()["json"]["stripe_id"]
        before = make_newer(populated, key)
        populated.time += 60
        populated.rename(stripe_id, "Jane")
        assert [response["statusCode"] for response in populated.deliver()] == [200]
        assert populated.stream() == {"batchItemFailures": []}
        for _ in range(3):
            populated.time += 3600
            populated.reconcile()
        (event,) = populated.items(kind="customer.updated", attempts=4)
        assert event["state"] in ("pending", "waiting")
        assert event["last_error"] == "NewerSchemaError"
        assert stored(populated, key) == before

        deploy_later_release(monkeypatch)
        populated.time += 2 * 3600
        populated.reconcile()
        assert StripeCustomer.require(USER).name == "Jane"

    @pytest.mark.parametrize("key", ["CUSTOMER#", "POINTER", "CLAIM"])
    def test_earlier_read_permits_no_write(self, populated: World, key: str) -> None:
        customer = StripeCustomer.require(USER)
        before = make_newer(populated, key)
        card = customer.cards[0]
        assert card.observation
        tombstone = card.tombstone(card.observation)
        writes: list[Callable[[], object]] = [
            lambda: table.transact(lambda t: t.save(Pointer.to(Owner("u-2", customer.stripe_id)))),
            lambda: customer.update_with({"name": "Jane"}, [tombstone]),
            customer.soft_delete,
        ]
        for write in writes:
            with suppress(table.ConditionFailedError, StaleRecordError, NewerSchemaError):
                write()
        assert stored(populated, key) == before

    @pytest.mark.parametrize(
        "write",
        [
            lambda claim: claim.release(),
            lambda claim: claim.renew_token(),
            lambda claim: table.transact(lambda t: claim.completed("cus_1", claim.token).add_to(t)),
            lambda claim: table.transact(
                lambda t: CustomerClaim.assigned("u-1", "cus_1", "token", claim).add_to(t)
            ),
            lambda _: CustomerClaim.acquire("u-1", {}),
            lambda _: CustomerClaim.read("u-1"),
        ],
    )
    def test_earlier_claim_permits_no_write(
        self, world: World, write: Callable[[CustomerClaim], object]
    ) -> None:
        claim, _ = CustomerClaim.acquire("u-1", {"a": 1})
        before = make_newer(world, "CLAIM")
        with suppress(NewerSchemaError, table.ConditionFailedError):
            write(claim)
        assert stored(world, "CLAIM") == before

    def test_newer_cursor_is_not_moved(self, populated: World) -> None:
        before = make_newer(populated, "CURSOR")
        populated.reconcile()
        with pytest.raises(NewerSchemaError):
            SweepCursor.read()
        assert stored(populated, "CURSOR") == before


class TestNewerEvent:
    def test_is_left_to_later_release(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.create()
        world.deliver()
        (stripe_id,) = [image["stripe_id"]["S"] for image in stored(world, "EVENT")]
        read_before = stored_event(stripe_id)
        before = make_newer(world, "EVENT")
        assert world.stream() == {"batchItemFailures": []}
        world.time += 3600
        world.reconcile()
        assert Event.claim(stripe_id) is None
        assert Event.requeue(stripe_id) is False
        with pytest.raises(EventNotFoundError):
            world.replay({"event_id": stripe_id})
        read_before.finish(EventState.APPLIED)
        read_before.fail("a reason")
        read_before.schedule_retry(ValueError())
        read_before.continue_waiting()
        read_before.note_publication()
        read_before.link_waiting(Owner("u-2", "cus_2"))
        Event.finish_waiting(stripe_id)
        with pytest.raises(NewerSchemaError):
            Event.find(stripe_id)
        assert stored(world, "EVENT") == before

        deploy_later_release(monkeypatch)
        world.reconcile()
        assert world.event_states() == {"customer.created": "applied"}

    def test_repeated_delivery_leaves_it(self, world: World) -> None:
        StripeEvent.receive(stripe_event())
        before = make_newer(world, "EVENT")
        assert StripeEvent.receive(stripe_event()).stripe_id == "evt_1"
        assert stored(world, "EVENT") == before
