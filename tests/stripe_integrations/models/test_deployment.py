"""The deployment's name in its table: no process with another name, or with none, uses it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from stripe_integrations.actions import StripeAccount, StripeCustomer, StripeEvent, User
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY
from stripe_integrations.actions.events.stream import StreamRecord
from stripe_integrations.context import Context, current, use
from stripe_integrations.errors import ConfigurationError, DatabaseUnavailableError
from stripe_integrations.models import Customer, Event, Owner
from tests.world import EMAIL, USER, World, database_client, hooked, stripe_event

OTHER = User("u-2")
NAME = "stripe-customers"


def process(world: World, name: str | None) -> Context:
    """A new process with this DEPLOYMENT_NAME."""
    context = world.new_context()
    context.settings = replace(world.settings, deployment_name=name)
    return context


def names(world: World) -> list[str]:
    """The names that the table has."""
    return [item["name"] for item in world.items(record_type="Deployment")]


def create_as(world: World, name: str | None, user: User = USER) -> Customer:
    with use(process(world, name)):
        return StripeCustomer.create(user, EMAIL)


def rebuild(world: World) -> Mapping[str, int]:
    """Rebuild in this process; how many customers had each result."""
    world.time += 1  # a run lists what was created before the second in which it starts
    current().deadline = math.inf
    return list(StripeAccount.rebuild())[-1].results


Action = Callable[[World, Customer], object]
ACTIONS: dict[str, Action] = {
    "create": lambda *_: StripeCustomer.create(OTHER, EMAIL),
    "create existing": lambda *_: StripeCustomer.create(USER, EMAIL),
    "sync": lambda _, customer: StripeCustomer.sync(customer),
    "sync_from_stripe_data": lambda _, customer: StripeCustomer.sync_from_stripe_data(
        customer, {"id": customer.stripe_id, "name": "Jane"}
    ),
    "soft_delete": lambda _, customer: StripeCustomer.soft_delete(customer),
    "rebuild": lambda world, _: rebuild(world),
    "apply": lambda *_: StripeEvent.apply("evt_1"),
    "process_stream_records": lambda *_: list(
        StripeEvent.process_stream_records([StreamRecord(Event.key("evt_1"), "EVENT", None)])
    ),
    "reconcile": lambda *_: StripeEvent.reconcile(),
    "replay": lambda *_: StripeEvent.replay("evt_1"),
    "replay_failed": lambda *_: StripeEvent.replay_failed(),
    "replay_created_between": lambda *_: StripeEvent.replay_created_between(0, 2**33),
}


class TestName:
    def test_is_stored_by_first_create(self, world: World) -> None:
        create_as(world, "shop-prod")
        create_as(world, "shop-prod", OTHER)
        assert names(world) == ["shop-prod"]

    def test_is_read_once_per_process(self, world: World) -> None:
        create_as(world, NAME)
        with use(process(world, NAME)):
            with world.counting() as first:
                StripeCustomer.create(OTHER, EMAIL)
            with world.counting() as then:
                StripeCustomer.soft_delete(StripeCustomer.require(OTHER))
                StripeCustomer.create(OTHER, EMAIL)
        assert first.operations[0] == "GetItem"
        assert "GetItem" not in first.operations[1:] + then.operations

    @pytest.mark.parametrize("name", [NAME, "other", None])
    def test_is_not_read_by_get_and_receive(self, world: World, name: str | None) -> None:
        create_as(world, NAME)
        with use(process(world, name)), world.counting() as counts:
            assert StripeCustomer.get(USER)
            StripeEvent.receive({**stripe_event(), "data": {"object": {}}})
        assert counts.operations == ["Query", "PutItem"]

    def test_is_compared_again_after_failed_read(self, world: World) -> None:
        create_as(world, NAME)
        with use(process(world, "other")):
            with (
                world.failing_database("ThrottlingException", operation="GetItem"),
                pytest.raises(DatabaseUnavailableError),
            ):
                StripeCustomer.create(OTHER, EMAIL)
            with pytest.raises(ConfigurationError):
                StripeCustomer.create(OTHER, EMAIL)

    def test_rebuild_stores_name_in_empty_table(self, world: World) -> None:
        with use(process(world, NAME)):
            StripeCustomer.create(USER, EMAIL)
            for image in world.images():
                key = {part: image[part] for part in ("pk", "sk")}
                database_client().delete_item(TableName=world.settings.table_name, Key=key)
            rebuild(world)
        assert names(world) == [NAME]

    @pytest.mark.parametrize(("own", "customers"), [("second", 1), ("first", 2)])
    def test_is_that_of_first_of_concurrent_processes(
        self, world: World, own: str, customers: int
    ) -> None:
        client, write = database_client(), "before-send.dynamodb.TransactWriteItems"

        def create_first(**_: Any) -> None:
            client.meta.events.unregister(write, create_first)
            create_as(world, "first", OTHER)

        with hooked(client, write, create_first), suppress(ConfigurationError):
            create_as(world, own)

        assert names(world) == ["first"]
        assert len(world.stripe_customers()) == customers


@pytest.mark.parametrize("action", ACTIONS)
class TestOtherName:
    def test_is_refused_before_anything_is_written(self, world: World, action: str) -> None:
        customer = create_as(world, NAME)
        StripeEvent.receive(stripe_event())
        before = world.images()
        with (
            use(process(world, "other")),
            world.counting() as counts,
            pytest.raises(ConfigurationError, match="DEPLOYMENT_NAME"),
        ):
            ACTIONS[action](world, customer)
        assert (counts.operations, counts.stripe) == (["GetItem"], 0)
        assert world.images() == before


class TestNoName:
    def test_uses_stored_name(self, world: World) -> None:
        create_as(world, "shop-dev")
        create_as(world, None, OTHER)
        for customer in world.stripe_customers():
            assert customer["metadata"][TOKEN_KEY].startswith("shop-dev/")
        with use(process(world, None)):
            assert rebuild(world) == {"unchanged": 2}

    @pytest.mark.parametrize("action", ["create", "rebuild", "reconcile", "apply"])
    def test_is_refused_by_table_without_name(self, world: World, action: str) -> None:
        with use(process(world, None)), pytest.raises(ConfigurationError, match="DEPLOYMENT_NAME"):
            ACTIONS[action](world, Customer.new(Owner("u-1", "cus_1"), world.context.now()))
        assert world.images() == []
        assert not world.stripe.requests

    def test_customer_of_worker_is_rebuilt(self, world: World) -> None:
        """A worker beside a stack that has another name than the default of another stack."""
        create_as(world, "shop-dev", OTHER)
        stripe_id = create_as(world, None).stripe_id
        backup = [image for image in world.images() if "u-1" not in str(image)]
        for image in world.images():
            if image not in backup:
                key = {part: image[part] for part in ("pk", "sk")}
                database_client().delete_item(TableName=world.settings.table_name, Key=key)

        with use(process(world, "shop-dev")):
            rebuild(world)
            assert StripeCustomer.create(USER, EMAIL).stripe_id == stripe_id
        assert len(world.stripe_customers()) == 2


class TestTableWithoutName:
    """A webhook may arrive before the first create."""

    def test_event_is_applied(self, world: World) -> None:
        world.request("POST", "/v1/customers", {"email": EMAIL})
        with use(process(world, "shop-dev")):
            StripeEvent.apply(world.receive("customer.created"))
        assert names(world) == []
        create_as(world, "shop-dev")
        assert names(world) == ["shop-dev"]
