"""The index of active customers by when Stripe created them."""

from __future__ import annotations

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.models import UserRecords
from stripe_integrations.models.customer import CREATED_SHARDS, CreatedEntry, created_between
from tests.world import EMAIL, START, USER, World


def ids(earliest: int | None = None, latest: int = int(START) * 2) -> list[str]:
    return [entry.stripe_id for entry in created_between(earliest, latest)]


def create(world: World, number: int) -> str:
    return StripeCustomer.create(User(f"u-{number}"), EMAIL).stripe_id


class TestCreatedBetween:
    def test_is_newest_first_over_all_shards(self, world: World) -> None:
        made = []
        for number in range(40):
            made.append(create(world, number))
            world.time += 1
        assert ids() == made[::-1]
        assert {item["created_shard"] for item in world.items(record_type="Customer")} == set(
            CREATED_SHARDS
        )

    def test_includes_both_bounds(self, world: World) -> None:
        made = []
        for number in range(4):
            made.append(create(world, number))
            world.time += 10
        first = int(START)
        assert ids(first + 10, first + 20) == [made[2], made[1]]
        assert ids(None, first) == [made[0]]

    def test_has_partition_and_creation(self, world: World) -> None:
        stripe_id = create(world, 1)
        assert list(created_between(None, int(world.time))) == [
            CreatedEntry("USER#u-1", stripe_id, int(START))
        ]


class TestRecord:
    def test_leaves_index_when_soft_deleted(self, world: World) -> None:
        create(world, 1)
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        assert ids() == []

    def test_leaves_index_when_stripe_deletes_it(self, world: World) -> None:
        stripe_id = create(world, 1)
        world.time += 60
        world.request("DELETE", f"/v1/customers/{stripe_id}")
        world.deliver_and_apply()
        assert not UserRecords.read("u-1").customer(stripe_id).is_active  # type: ignore[union-attr]
        assert ids() == []

    def test_stays_in_index_when_it_moves(self, world: World) -> None:
        stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
        StripeCustomer.adopt(USER, stripe_id)
        assert [entry.pk for entry in created_between(None, int(world.time))] == ["USER#u-1"]

    def test_update_writes_no_index_entry(self, world: World) -> None:
        stripe_id = create(world, 1)
        world.time += 60
        world.rename(stripe_id, "Jane")
        before = entry(world)
        world.deliver_and_apply()
        assert entry(world) == before


def entry(world: World) -> dict[str, object]:
    """What of a record the index has: DynamoDB writes it again only where that changes."""
    (item,) = world.items(record_type="Customer")
    return {name: item[name] for name in ("pk", "sk", "record_type", "created", "created_shard")}
