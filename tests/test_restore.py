"""The runbook's order after a restore: close, copy back, rebuild from Stripe, open, sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.actions.customers.snapshot import USER_KEY
from tests.world import EMAIL, World
from tools.copy_table import copy_table
from tools.template import table_properties

pytestmark = pytest.mark.exhaustive

Step = Callable[[World], None]

BACKUP = "customers-restored"
BEFORE = [f"before-{number}" for number in range(6)]
AFTER = ["after", "after-twice", "after-crashed"]
USERS = [*BEFORE, "crashed", *AFTER]


@pytest.fixture
def changed(world: World, dynamodb: Any) -> Iterator[World]:
    """A deployment that was used after its backup was made; the backup is a table of its own."""
    dynamodb.create_table(TableName=BACKUP, **table_properties())
    use_until_backup(world)
    copy_table(dynamodb, world.settings.table_name, BACKUP)
    use_after_backup(world)
    yield world
    dynamodb.delete_table(TableName=BACKUP)


def use_until_backup(world: World) -> None:
    for user_id in BEFORE:
        assert world.create(user_id, default_source="tok_visa")["statusCode"] == 201
    world.deliver_and_apply()
    world.delete(BEFORE[5])
    crash_create(world, "crashed")
    world.reconcile()
    world.time += 3600


def use_after_backup(world: World) -> None:
    """Everything that may happen to a user: two unharmed ones, and each case by itself."""
    ids = {user_id: world.get(user_id)["json"]["stripe_id"] for user_id in BEFORE[:5]}
    world.rename(ids[BEFORE[1]], "changed since")
    world.request("POST", f"/v1/customers/{ids[BEFORE[1]]}/sources", {"source": "tok_mastercard"})
    process_events(world)
    world.delete(BEFORE[2])  # and comes back
    world.create(BEFORE[2], name="the second")
    world.request("DELETE", f"/v1/customers/{ids[BEFORE[3]]}")
    process_events(world)
    world.create(BEFORE[3], name="instead of one that was deleted")
    world.delete(BEFORE[4])  # and stays away
    world.create(BEFORE[5], name="back again")
    world.create("after", default_source="tok_visa")
    world.create("after-twice")
    world.delete("after-twice")
    process_events(world)
    world.create("after-twice", name="the second")
    world.create("crashed")
    crash_create(world, "after-crashed")
    process_events(world)


def crash_create(world: World, user_id: str) -> None:
    world.stripe.faults.time_out(None, match="POST /v1/customers", when="after", should_retry=False)
    assert world.create(user_id)["statusCode"] == 503
    world.stripe.faults.clear()


def process_events(world: World) -> None:
    world.deliver_and_apply()
    world.time += 600


def restore(world: World, dynamodb: Any) -> None:
    copy_table(dynamodb, BACKUP, world.settings.table_name, empty_target=True)


def lose_table(world: World, dynamodb: Any) -> None:
    for image in world.images():
        key = {name: image[name] for name in ("pk", "sk")}
        dynamodb.delete_item(TableName=world.settings.table_name, Key=key)


def sweep(world: World) -> None:
    for _ in range(3):
        done = world.reconcile()
        world.stream()
        world.time += 300
    assert done["recovered"] == 0


def create_all(world: World) -> None:
    for user_id in USERS:
        assert world.create(user_id, name="once more")["statusCode"] in (200, 201)


@pytest.mark.parametrize("happen", [restore, lose_table])
class TestRestore:
    @pytest.mark.parametrize(
        "then",
        [(sweep, create_all), (create_all, sweep)],
        ids=["swept and opened", "opened and swept"],
    )
    def test_no_user_has_second_customer_after_rebuild(
        self,
        changed: World,
        dynamodb: Any,
        happen: Callable[[World, Any], None],
        then: tuple[Step, Step],
    ) -> None:
        before = changed.stripe_customers()
        newest: dict[str, str] = {}
        for created in before:
            newest.setdefault(created["metadata"][USER_KEY], created["id"])
        happen(changed, dynamodb)

        changed.rebuild()
        for step in then:
            step(changed)

        after = changed.stripe_customers()
        assert [each["id"] for each in after] == [each["id"] for each in before]
        assert newest.keys() == set(USERS)
        for user_id, stripe_id in newest.items():
            assert_equals_stripe(changed, user_id, stripe_id)
        states = {item["state"] for item in changed.items(record_type="Event")}
        assert states <= {"applied", "ignored"}
        assert not changed.dead_letters
        assert changed.items(record_type="Deployment", name=changed.settings.deployment_name)

    def test_users_have_second_customer_without_rebuild(
        self, changed: World, dynamodb: Any, happen: Callable[[World, Any], None]
    ) -> None:
        before = len(changed.stripe_customers())
        happen(changed, dynamodb)
        sweep(changed)
        create_all(changed)
        assert len(changed.stripe_customers()) > before


def assert_equals_stripe(world: World, user_id: str, stripe_id: str) -> None:
    on_stripe = world.request("GET", f"/v1/customers/{stripe_id}")
    cards = world.request("GET", f"/v1/customers/{stripe_id}/payment_methods", {"type": "card"})
    record = StripeCustomer.require(User(user_id))
    assert record.stripe_id == stripe_id
    assert (record.email, record.name) == (EMAIL, on_stripe["name"])
    assert record.metadata == on_stripe["metadata"]
    assert sorted(str(card.last4) for card in record.cards) == sorted(
        card["card"]["last4"] for card in cards["data"]
    )
    active = world.items(record_type="Customer", user_id=user_id, is_active=True)
    assert [item["stripe_id"] for item in active] == [stripe_id]
