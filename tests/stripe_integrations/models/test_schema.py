"""The shape in which records are stored, and what becomes of one that a later release has written.

`schema_1.json` holds the shape of version 1. What it names must stay as it is: an attribute or a
record may be added, but one that is taken away, renamed or stored as another type is another shape,
with a `SCHEMA_VERSION` and a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
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
from stripe_integrations.models.table import KNOWN_SCHEMA_VERSION, SCHEMA_VERSION, Record
from tests.stripe_integrations.actions.test_events import event
from tests.world import World
from tools.template import table_properties

Json = dict[str, Any]

SHAPE = Path(__file__).parent / f"schema_{SCHEMA_VERSION}.json"
RECORDS = (CustomerClaim, Customer, *KINDS, Event, Pointer, SweepCursor)
USER = User("u-1")


def shape() -> Json:
    """How the code stores its records: attributes with DynamoDB's types, and the indexes' keys."""
    shapes: Json = {
        model.__name__: {a.attr_name: a.attr_type for a in model.get_attributes().values()}
        for model in RECORDS
    }
    for index in table_properties()["GlobalSecondaryIndexes"]:
        shapes[index["IndexName"]] = {
            key["AttributeName"]: key["KeyType"] for key in index["KeySchema"]
        }
    return shapes


def keys(world: World) -> dict[str, set[str]]:
    """The keys of what stands in the table, by record, with the ids left out."""
    ids = [
        item[name] for item in world.items() for name in ("stripe_id", "user_id") if name in item
    ]
    found: dict[str, set[str]] = {}
    for item in world.items():
        key = f"{item['pk']} {item['sk']}"
        for known in {*ids, "u-1"}:
            key = key.replace(known, "*")
        found.setdefault(item["record_type"], set()).add(key)
    return found


@pytest.fixture
def world(table_name: str) -> Iterator[World]:
    world = World(table_name, stored_records=frozenset(kind.__name__ for kind in KINDS))
    with use(world.context):
        yield world


@pytest.fixture
def lived(world: World) -> World:
    """A deployment with a record of every kind."""
    stripe_id = world.create(default_source="tok_visa")["json"]["stripe_id"]
    product = world.ask("POST", "/v1/products", {"name": "Plan"})["id"]
    price = {"currency": "eur", "unit_amount": 500, "recurring": {"interval": "month"}}
    price_id = world.ask("POST", "/v1/prices", {**price, "product": product})["id"]
    items = {"customer": stripe_id, "items": [{"price": price_id}]}
    world.ask("POST", "/v1/subscriptions", items)
    tax_id = {"type": "eu_vat", "value": "DE123456789"}
    world.ask("POST", f"/v1/customers/{stripe_id}/tax_ids", tax_id)
    method = world.ask(
        "POST", "/v1/payment_methods", {"type": "card", "card": {"token": "tok_mastercard"}}
    )
    world.ask("POST", f"/v1/payment_methods/{method['id']}/attach", {"customer": stripe_id})
    world.settle()
    world.sync()
    world.reconcile()
    return world


def test_what_is_stored_keeps_its_shape_for_as_long_as_its_version() -> None:
    kept = json.loads(SHAPE.read_text())["attributes"]
    stored = shape()
    assert {name: {a: stored[name].get(a) for a in kept[name]} for name in kept} == kept


def test_what_is_stored_keeps_its_keys_for_as_long_as_its_version(lived: World) -> None:
    kept = json.loads(SHAPE.read_text())["keys"]
    stored = keys(lived)
    assert {name: sorted(stored[name]) for name in kept} == kept


def test_what_is_written_is_known() -> None:
    assert SCHEMA_VERSION <= KNOWN_SCHEMA_VERSION


def test_every_new_item_carries_the_version(lived: World) -> None:
    assert {item["record_type"] for item in lived.items()} == {m.__name__ for m in RECORDS}
    assert {item.get("schema_version") for item in lived.items()} == {SCHEMA_VERSION}


def write_version(world: World, number: int | None, *sort_keys: str) -> list[Json]:
    """Let items be of another version, those whose sort key begins so; as they stand then."""
    client, table = Record.connection().client, world.settings.table_name
    for image in world.images():
        if image["sk"]["S"].startswith(sort_keys):
            image.pop("schema_version", None)
            version = {"schema_version": {"N": str(number)}} if number else {}
            client.put_item(TableName=table, Item={**image, **version})
    return standing(world, *sort_keys)


def standing(world: World, *sort_keys: str) -> list[Json]:
    return [image for image in world.images() if image["sk"]["S"].startswith(sort_keys)]


def know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later release takes over."""
    monkeypatch.setattr(table, "KNOWN_SCHEMA_VERSION", KNOWN_SCHEMA_VERSION + 1)


def newer(world: World, *sort_keys: str) -> list[Json]:
    return write_version(world, KNOWN_SCHEMA_VERSION + 1, *sort_keys)


def test_an_item_without_a_version_is_of_the_first(lived: World) -> None:
    write_version(lived, None, "")
    stripe_id = lived.get()["json"]["stripe_id"]
    lived.time += 60
    lived.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    lived.settle()
    assert lived.get()["json"]["name"] == "Jane"
    assert lived.sync()["statusCode"] == 200
    assert lived.reconcile()["swept"]
    assert lived.delete()["statusCode"] == 204


@pytest.mark.parametrize("kind", ["CLAIM", "CUSTOMER#"])
def test_a_newer_record_is_refused_for_now_and_stays_as_it_is(lived: World, kind: str) -> None:
    before = newer(lived, kind)
    for answer in (lived.create(), lived.get(), lived.sync(), lived.delete()):
        assert answer["statusCode"] == 503
        assert answer["json"]["type"] == "urn:stripe-integrations:problem:newer-schema"
        assert answer["headers"]["retry-after"]
    assert lived.rebuild()["unreadable"] == 1
    assert standing(lived, kind) == before


@pytest.mark.parametrize("kind", ["CLAIM", "CUSTOMER#", "POINTER"])
def test_an_event_of_a_newer_record_is_put_off_until_it_is_known(
    lived: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripe_id = lived.get()["json"]["stripe_id"]
    before = newer(lived, kind)
    lived.time += 60
    lived.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    assert [answer["statusCode"] for answer in lived.deliver()] == [200]
    assert lived.stream() == {"batchItemFailures": []}
    for _ in range(3):
        lived.time += 3600
        lived.reconcile()
    (put_off,) = lived.items(kind="customer.updated", attempts=4)
    assert put_off["state"] in ("pending", "waiting")
    assert put_off["last_error"] == "NewerSchemaError"
    assert standing(lived, kind) == before

    know_it(monkeypatch)
    lived.time += 2 * 3600
    lived.reconcile()
    assert StripeCustomer.get(USER).name == "Jane"


def test_a_newer_event_is_left_to_those_who_know_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create()
    world.deliver()
    before = newer(world, "EVENT")
    (stripe_id,) = [image["stripe_id"]["S"] for image in before]
    assert world.stream() == {"batchItemFailures": []}
    world.time += 3600
    world.reconcile()
    assert Event.claim(stripe_id) is None
    assert Event.requeue(stripe_id) is False
    with pytest.raises(EventNotFoundError):
        world.replay({"event_id": stripe_id})
    read_before = Event(Event.key(stripe_id), Event.SORT_KEY, attempts=0)
    read_before.finish(EventState.APPLIED)
    read_before.fail("a reason")
    read_before.schedule_retry(ValueError())
    read_before.continue_waiting()
    with pytest.raises(NewerSchemaError):
        Event.find(stripe_id)
    assert standing(world, "EVENT") == before

    know_it(monkeypatch)
    world.reconcile()
    assert world.event_states() == {"customer.created": "applied"}


def test_a_newer_event_that_comes_again_is_safe_already_and_stays_as_it_is(world: World) -> None:
    StripeEvent.receive(event())
    before = newer(world, "EVENT")
    assert StripeEvent.receive(event()).stripe_id == "evt_1"
    assert standing(world, "EVENT") == before


@pytest.mark.parametrize(
    "write",
    [
        lambda claim: claim.release(),
        lambda claim: claim.renew_token(),
        lambda claim: table.transact(lambda t: claim.completed("cus_1").add_to(t)),
        lambda claim: table.transact(
            lambda t: CustomerClaim.assigned("u-1", "cus_1", "token", claim).add_to(t)
        ),
        lambda _: CustomerClaim.acquire("u-1", {}),
        lambda _: CustomerClaim.read("u-1"),
    ],
)
def test_a_claim_that_has_become_a_newer_one_is_changed_by_nobody_who_read_it_before(
    world: World, write: Callable[[CustomerClaim], object]
) -> None:
    claim, _ = CustomerClaim.acquire("u-1", {"a": 1})
    before = newer(world, "CLAIM")
    with suppress(NewerSchemaError, table.ConditionFailedError):
        write(claim)
    assert standing(world, "CLAIM") == before


@pytest.mark.parametrize("kind", ["CUSTOMER#", "POINTER", "CLAIM"])
def test_a_record_that_has_become_a_newer_one_is_not_changed_by_who_read_it_before(
    lived: World, kind: str
) -> None:
    customer = StripeCustomer.get(USER)
    before = newer(lived, kind)
    card = customer.cards[0]
    for write in (
        lambda: table.transact(lambda t: t.save(Pointer.to(customer.stripe_id, "u-2"))),
        lambda: customer.update_with({"name": "Jane"}, [card.tombstone(card.observation)]),
        customer.soft_delete,
    ):
        with suppress(table.ConditionFailedError, StaleRecordError, NewerSchemaError):
            write()
    assert standing(lived, kind) == before


def test_a_newer_cursor_of_the_sweep_stays_where_it_is(lived: World) -> None:
    before = newer(lived, "CURSOR")
    lived.reconcile()
    with pytest.raises(NewerSchemaError):
        SweepCursor.read()
    assert standing(lived, "CURSOR") == before


def test_the_budget_of_calls_is_the_same_with_the_version(world: World) -> None:
    with world.counting() as counts:
        StripeCustomer.create(USER, "jane@example.com")
        UserRecords.read("u-1")
    assert counts.operations == ["TransactWriteItems", "TransactWriteItems", "Query"]
