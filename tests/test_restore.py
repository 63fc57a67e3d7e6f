"""The runbook's order after a restore: closed, put back, rebuilt from Stripe, opened, swept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.actions.customers.snapshot import USER_KEY
from tests.stripe_integrations.actions.test_rebuild import EMAIL, POST, forget
from tests.world import World
from tools.copy_table import copy_table
from tools.template import table_properties

Json = dict[str, Any]

BACKUP = "customers-restored"
BEFORE = [f"before-{number}" for number in range(6)]
AFTER = ["after", "after-twice", "after-crashed"]
USERS = [*BEFORE, "crashed", *AFTER]


@pytest.fixture
def lived(world: World, dynamodb: Any) -> Iterator[World]:
    """A deployment that went on after its backup was made; the backup is a table of its own."""
    dynamodb.create_table(TableName=BACKUP, **table_properties())
    live_until_the_backup(world)
    copy_table(dynamodb, world.settings.table_name, BACKUP)
    live_on(world)
    yield world
    dynamodb.delete_table(TableName=BACKUP)


def live_until_the_backup(world: World) -> None:
    for user_id in BEFORE:
        assert world.create(user_id, default_source="tok_visa")["statusCode"] == 201
    world.settle()
    world.delete(BEFORE[5])
    crash_a_create(world, "crashed")
    world.reconcile()
    world.time += 3600


def live_on(world: World) -> None:
    """Everything that may happen to a user: two unharmed ones, and each case by itself."""
    made = {user_id: world.get(user_id)["json"]["stripe_id"] for user_id in BEFORE[:5]}
    world.ask("POST", f"/v1/customers/{made[BEFORE[1]]}", {"name": "changed since"})
    world.ask("POST", f"/v1/customers/{made[BEFORE[1]]}/sources", {"source": "tok_mastercard"})
    tick(world)
    world.delete(BEFORE[2])  # and comes back
    world.create(BEFORE[2], name="the second")
    world.ask("DELETE", f"/v1/customers/{made[BEFORE[3]]}")
    tick(world)
    world.create(BEFORE[3], name="instead of one that was deleted")
    world.delete(BEFORE[4])  # and stays away
    world.create(BEFORE[5], name="back again")
    world.create("after", default_source="tok_visa")
    world.create("after-twice")
    world.delete("after-twice")
    tick(world)
    world.create("after-twice", name="the second")
    world.create("crashed")
    crash_a_create(world, "after-crashed")
    tick(world)


def crash_a_create(world: World, user_id: str) -> None:
    world.stripe.faults.time_out(None, match=POST, when="after", should_retry=False)
    assert world.create(user_id)["statusCode"] == 503
    world.stripe.faults.clear()


def tick(world: World) -> None:
    world.settle()
    world.time += 600


def restore(world: World, dynamodb: Any) -> None:
    copy_table(dynamodb, BACKUP, world.settings.table_name, empty_target=True)


def lose(world: World, _: Any) -> None:
    forget(world)


def rebuild(world: World) -> None:
    """As the runbook has it: until there is nothing to go on from."""
    done = world.rebuild({}, remaining_seconds=59)
    while done["resume_from"] is not None:
        done = world.rebuild({"resume_from": done["resume_from"]}, remaining_seconds=59)


def sweep(world: World) -> None:
    for _ in range(3):
        done = world.reconcile()
        world.stream()
        world.time += 300
    assert done["recovered"] == 0


def everybody_creates(world: World) -> None:
    for user_id in USERS:
        assert world.create(user_id, name="once more")["statusCode"] in (200, 201)


ORDERS = pytest.mark.parametrize(
    "then",
    [(sweep, everybody_creates), (everybody_creates, sweep)],
    ids=["swept and opened", "opened and swept"],
)


@ORDERS
@pytest.mark.parametrize("happens", [restore, lose])
def test_after_a_restore_and_a_rebuild_nobody_gets_a_second_customer(
    lived: World,
    dynamodb: Any,
    happens: Callable[[World, Any], None],
    then: list[Callable[[World], None]],
) -> None:
    before = lived.stripe_customers()
    newest: dict[str, str] = {}
    for made in before:
        newest.setdefault(made["metadata"][USER_KEY], made["id"])
    happens(lived, dynamodb)

    rebuild(lived)
    for step in then:
        step(lived)

    assert [made["id"] for made in lived.stripe_customers()] == [made["id"] for made in before]
    assert newest.keys() == set(USERS)
    for user_id, stripe_id in newest.items():
        assert_equals_stripe(lived, user_id, stripe_id)
    states = {item["state"] for item in lived.items(record_type="Event")}
    assert states <= {"applied", "ignored"}
    assert not lived.dead_letters


def assert_equals_stripe(world: World, user_id: str, stripe_id: str) -> None:
    on_stripe = world.ask("GET", f"/v1/customers/{stripe_id}")
    cards = world.ask("GET", f"/v1/customers/{stripe_id}/payment_methods", {"type": "card"})
    record = StripeCustomer.get(User(user_id))
    assert record.stripe_id == stripe_id
    assert (record.email, record.name) == (EMAIL, on_stripe["name"])
    assert record.metadata == on_stripe["metadata"]
    assert sorted(card.last4 for card in record.cards) == sorted(
        card["card"]["last4"] for card in cards["data"]
    )
    one_active = [
        item["stripe_id"]
        for item in world.items(record_type="Customer", user_id=user_id)
        if item["is_active"]
    ]
    assert one_active == [stripe_id]


@pytest.mark.parametrize("happens", [restore, lose])
def test_opened_without_a_rebuild_users_get_a_second_customer(
    lived: World, dynamodb: Any, happens: Callable[[World, Any], None]
) -> None:
    before = len(lived.stripe_customers())
    happens(lived, dynamodb)
    sweep(lived)
    everybody_creates(lived)
    assert len(lived.stripe_customers()) > before
