"""`StripeAccount.rebuild`: customers that Stripe has and a restored table lacks are stored."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.account.page import Page, Result
from stripe_integrations.actions.account.rebuild import rebuild_customers, restore_customer
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY, CustomerSnapshot
from stripe_integrations.actions.stripe_account import Progress
from stripe_integrations.context import current, use
from stripe_integrations.errors import (
    DatabaseRefusedError,
    OtherAccountError,
    RunInProgressError,
    StaleRecordError,
    StripeUnavailableError,
)
from stripe_integrations.models import Customer, Owner, Pointer, UserRecords
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.sweep_cursor import SweepCursor
from stripe_integrations.models.table import ConditionFailedError, transact
from tests import roles
from tests.stripe_integrations.actions.customers.helpers import (
    acquire_claim,
    crash_create,
    stored_claim,
)
from tests.world import EMAIL, USER, Json, World, database_client, hooked


def put_back(world: World, images: list[Json]) -> None:
    """Let the table have these items and no others, as a restore does."""
    client, table = database_client(), world.settings.table_name
    for image in world.images():
        client.delete_item(TableName=table, Key={name: image[name] for name in ("pk", "sk")})
    for image in images:
        client.put_item(TableName=table, Item=image)


def images_of(world: World, *keys: str) -> list[Json]:
    """The items whose sort key has one of these prefixes."""
    return [image for image in world.images() if image["sk"]["S"].startswith(keys)]


def forget(world: World, *keys: str) -> None:
    """Let the table lose the items whose sort key has one of these prefixes; by default all."""
    lost = images_of(world, *(keys or ("",)))
    put_back(world, [image for image in world.images() if image not in lost])


OF_RUNS = ("Run", "RunLock", "Window", "RateBudget", "LookupCursor")
"""The records that belong to the run, and not to the customers."""


def records(world: World) -> list[Json]:
    """The items of the table, but for those of runs."""
    return [image for image in world.images() if image["record_type"]["S"] not in OF_RUNS]


def report(world: World) -> dict[str, tuple[str, str]]:
    """What the reports of all runs have so far: result and reason by the customer's id."""
    lines = [json.loads(line) for part in world.reports.values() for line in part.splitlines()]
    return {line["stripe_id"]: (line["result"], line["reason"]) for line in lines}


def rebuild_here() -> list[Progress]:
    """Rebuild in this process, and return the progress after each page."""
    current().deadline = math.inf
    return list(StripeAccount.rebuild())


def create(world: World, user_id: str = "u-1", **fields: Any) -> str:
    """Create a customer ten seconds after the previous step; its id."""
    world.time += 10
    created = world.create(user_id, **fields)
    assert created["statusCode"] == 201
    return str(created["json"]["stripe_id"])


def customers(world: World) -> dict[str, bool]:
    """Return whether each customer of the first user is active, by its id."""
    records = UserRecords.read("u-1").customers.values()
    return {record.stripe_id: record.is_active for record in records}


def record_of(stripe_id: str) -> Customer:
    record = UserRecords.read("u-1").customer(stripe_id)
    assert record
    return record


def active(world: World, user_id: str = "u-1") -> str | None:
    customer = StripeCustomer.get(User(user_id))
    return customer.stripe_id if customer else None


def owner_of(stripe_id: str) -> str | None:
    owner = Pointer.find(stripe_id)
    return owner.user_id if owner else None


def delete_on_stripe(world: World, stripe_id: str) -> None:
    world.request("DELETE", f"/v1/customers/{stripe_id}")


def add_by_hand(world: World, user_id: str, token: str) -> str:
    world.time += 10
    metadata = {USER_KEY: user_id, TOKEN_KEY: token}
    created = world.request("POST", "/v1/customers", {"email": EMAIL, "metadata": metadata})
    return str(created["id"])


def token_of(world: World, stripe_id: str) -> str:
    return str(world.request("GET", f"/v1/customers/{stripe_id}")["metadata"][TOKEN_KEY])


class TestOneCustomer:
    def test_is_stored_with_its_children(self, world: World) -> None:
        stripe_id = create(world, name="Jane", default_source="tok_visa")
        world.rename(stripe_id, "Jane Doe")
        before = StripeCustomer.require(USER)
        forget(world)
        world.time += 86_400

        assert world.rebuild() == {"stored": 1}

        customer = StripeCustomer.require(USER)
        assert customer.stripe_id == stripe_id
        assert (customer.name, customer.email) == ("Jane Doe", EMAIL)
        assert [card.last4 for card in customer.cards] == ["4242"]
        assert abs((customer.created_at - before.created_at).total_seconds()) < 1
        assert owner_of(stripe_id) == "u-1"
        assert world.create()["json"]["stripe_id"] == stripe_id
        assert len(world.stripe_customers()) == 1

        world.time += 60
        world.rename(stripe_id, "Later")
        world.deliver_and_apply()
        assert StripeCustomer.require(USER).name == "Later"

    def test_stored_is_unchanged(self, world: World) -> None:
        create(world)
        create(world, "u-2")
        world.delete("u-2")
        before = records(world)
        assert world.rebuild() == {"unchanged": 2}
        assert records(world) == before

    def test_token_has_deployment_name(self, world: World) -> None:
        world.configure(deployment_name="shop-prod")
        assert token_of(world, create(world)).startswith("shop-prod/")

    def test_of_other_deployment_is_skipped(self, world: World) -> None:
        world.request("POST", "/v1/customers", {"email": EMAIL})
        world.request("POST", "/v1/customers", {"email": EMAIL, "metadata": {USER_KEY: "u-1"}})
        for token in ("stripe-customers", "stripe-customers/", "stripe-customers-2/1", "a token"):
            add_by_hand(world, "u-1", token)
        add_by_hand(world, "", "stripe-customers/1")
        assert world.rebuild() == {"unassigned": 2, "foreign": 4, "conflict": 1}
        assert [item["record_type"]["S"] for item in records(world)] == ["Deployment"]

    def test_of_crashed_create_is_stored(self, world: World) -> None:
        crash_create(world, name="Jane", currency="eur")
        world.time += 30 * 86_400

        assert world.rebuild()["stored"] == 1

        (on_stripe,) = world.stripe_customers()
        customer = StripeCustomer.require(USER)
        assert (customer.stripe_id, customer.currency) == (on_stripe["id"], "eur")
        assert world.create()["statusCode"] == 200

    @pytest.mark.parametrize("lost", ["", "CLAIM"])
    def test_older_than_claim_is_soft_deleted(self, world: World, lost: str) -> None:
        old = create(world)
        forget(world, lost)
        world.time += 60
        claim = acquire_claim()

        world.rebuild()

        assert customers(world) == {old: False}
        assert stored_claim().token == claim.token
        assert create(world) != old


class TestSeveralCustomers:
    def test_newest_is_active(self, world: World) -> None:
        first = create(world)
        world.delete()
        second = create(world)
        world.delete()
        third = create(world, default_source="tok_visa")
        forget(world)

        assert world.rebuild()["stored"] == 3

        assert customers(world) == {first: False, second: False, third: True}
        assert active(world) == third
        assert [owner_of(each) for each in (first, second, third)] == ["u-1"] * 3
        world.rename(first, "late news")
        world.deliver_and_apply()
        assert record_of(first).name is None
        (late,) = world.items(kind="customer.updated", customer_id=first)
        assert late["state"] == "ignored"

    def test_of_one_second_are_compared_by_list(self, world: World) -> None:
        created = []
        for _ in range(5):
            created.append(world.create()["json"]["stripe_id"])
            world.delete()
        forget(world)
        world.rebuild()
        assert active(world) == created[-1]
        assert sum(customers(world).values()) == 1

        for stripe_id in created[:-1]:  # whichever of them the table has
            forget(world)
            world.stripe.account.deleted_customers.update(set(created) - {stripe_id})
            world.rebuild()
            assert active(world) == stripe_id
            world.stripe.account.deleted_customers.clear()
            world.rebuild()
            assert active(world) == created[-1]

    @pytest.mark.parametrize("is_deleted", [False, True])
    def test_newer_replaces_that_of_backup(self, world: World, is_deleted: bool) -> None:
        old = create(world, default_source="tok_visa")
        world.sync()
        backup = world.images()
        world.time += 60
        if is_deleted:
            delete_on_stripe(world, old)
        else:
            world.delete()
        new = create(world)
        put_back(world, backup)

        assert world.rebuild()["stored"] == 1

        assert customers(world) == {old: False, new: True}
        assert active(world) == new
        assert record_of(old).date_purged
        assert len(record_of(old).cards) == (0 if is_deleted else 1)

    def test_older_stays_deleted_when_newest_is_deleted(self, world: World) -> None:
        old = create(world)
        world.delete()
        new = create(world)
        forget(world)
        world.rebuild()
        forget(world, f"CUSTOMER#{old}")
        delete_on_stripe(world, new)
        world.deliver_and_apply()

        world.rebuild()

        assert customers(world) == {old: False, new: False}
        assert active(world) is None

    def test_unknown_to_stripe_is_compared_by_its_date(self, world: World) -> None:
        old, new = self.restore_older(world)
        world.stripe.faults.fail_next(
            None, status=404, code="resource_missing", match=f"GET /v1/customers/{old}"
        )
        world.rebuild()
        assert active(world) == new

    def test_refused_comparison_changes_nothing(self, world: World) -> None:
        old, new = self.restore_older(world)
        world.stripe.faults.fail_next(None, status=400, match=f"GET /v1/customers/{old}")
        world.rebuild()
        assert report(world) == {new: ("unreadable", "StripeRefusedError")}
        assert active(world) == old

    def restore_older(self, world: World) -> tuple[str, str]:
        old = create(world)
        create(world, "u-2")  # shows whose account it is
        backup = world.images()
        world.delete()
        new = create(world)
        put_back(world, backup)
        return old, new

    @pytest.mark.parametrize(("ahead", "passed"), [(0, 0), (4, 1)])
    def test_deleted_is_replaced_in_spite_of_clocks(
        self, world: World, ahead: int, passed: int
    ) -> None:
        with use(world.new_context()) as context:
            context.clock = lambda: world.time + ahead
            old = StripeCustomer.create(USER, EMAIL).stripe_id
        backup = world.images()
        world.time += passed
        delete_on_stripe(world, old)
        world.time += passed
        new = world.create()["json"]["stripe_id"]
        put_back(world, backup)
        world.rebuild()
        assert active(world) == new
        assert world.create()["json"]["stripe_id"] == new


def adopt_by_hand(world: World, stripe_id: str) -> None:
    """Give a customer the metadata that an adoption gives it, a minute after the previous step."""
    world.time += 60
    token = f"stripe-customers/{int(world.time)}-adopted"
    metadata = {USER_KEY: "u-1", TOKEN_KEY: token}
    world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": metadata})


class TestAdopted:
    """A customer that Stripe created before its user got it."""

    @pytest.fixture
    def existing(self, world: World) -> str:
        return add_by_hand(world, "", "")

    @pytest.mark.parametrize("lost", ["", "CUSTOMER", "POINTER", "nothing"])
    def test_last_assigned_is_active(self, world: World, existing: str, lost: str) -> None:
        created = create(world)
        world.delete()
        adopt_by_hand(world, existing)
        forget(world, lost)

        world.rebuild()

        assert customers(world) == {created: False, existing: True}
        assert "stored" not in world.rebuild()

    def test_abandoned_is_soft_deleted(self, world: World, existing: str) -> None:
        adopt_by_hand(world, existing)
        world.rebuild()
        assert active(world) == existing
        world.delete()
        world.time += 60
        created = create(world)
        forget(world)
        world.rebuild()
        assert customers(world) == {created: True, existing: False}

    def test_is_newer_than_stored_without_pointer(self, world: World, existing: str) -> None:
        created = create(world)
        forget(world, "CLAIM", "POINTER")
        adopt_by_hand(world, existing)
        world.rebuild()
        assert customers(world) == {created: False, existing: True}

    def test_stored_is_newer_than_created(self, world: World, existing: str) -> None:
        created = create(world)
        world.delete()
        adopt_by_hand(world, existing)
        forget(world)
        world.stripe.account.deleted_customers.add(created)
        world.rebuild()
        world.stripe.account.deleted_customers.clear()
        for forgotten in (("CLAIM",), ("POINTER",), ("CLAIM", "POINTER")):
            forget(world, *forgotten)
            world.rebuild()
            assert customers(world) == {created: False, existing: True}

    def test_unknown_to_stripe_is_compared_by_its_date(self, world: World, existing: str) -> None:
        adopt_by_hand(world, existing)
        world.rebuild()
        backup = world.images()
        world.delete()
        world.time += 60
        created = create(world)
        put_back(world, backup)
        delete_on_stripe(world, existing)
        world.rebuild()
        assert customers(world) == {created: True, existing: False}

    def test_requested_after_it_is_superseded_by_claim(self, world: World, existing: str) -> None:
        world.time += 60
        acquire_claim()
        adopt_by_hand(world, existing)
        world.rebuild()
        assert active(world) == existing
        forget(world)
        world.time += 60
        claim = acquire_claim()
        world.rebuild()
        assert customers(world) == {existing: False}
        assert stored_claim().token == claim.token


def move_metadata(world: World, stripe_id: str, copy: str | None = None) -> str:
    """Copy a customer's metadata to another, new by default, and remove it; the other's id."""
    metadata = {USER_KEY: "u-1", TOKEN_KEY: token_of(world, stripe_id)}
    if copy:
        world.request("POST", f"/v1/customers/{copy}", {"metadata": metadata})
    else:
        copy = add_by_hand(world, "u-1", metadata[TOKEN_KEY])
    world.time += 10
    world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": ""})
    world.deliver_and_apply()
    assert record_of(stripe_id).metadata == {}
    return copy


class TestCopy:
    """A customer that was made by hand, with the metadata of another."""

    def test_never_replaces_original(self, world: World) -> None:
        add_by_hand(world, "u-1", token_of(world, create(world)))
        before = records(world)
        assert world.rebuild() == {"unchanged": 1, "conflict": 1}
        assert records(world) == before

    def test_does_not_restore_soft_deleted_original(self, world: World) -> None:
        add_by_hand(world, "u-1", token_of(world, create(world)))
        world.delete()
        assert "stored" not in world.rebuild()
        assert active(world) is None

    def test_is_reported(self, world: World) -> None:
        stripe_id = create(world)
        copy = add_by_hand(world, "u-1", token_of(world, stripe_id))
        forget(world)
        assert world.rebuild()["stored"] == 1
        assert active(world) == copy
        assert report(world) == {stripe_id: ("conflict", f"its token is of {copy}")}

    @pytest.mark.parametrize("lost", [(), ("CLAIM",), ("POINTER",), ("CUSTOMER",)])
    @pytest.mark.parametrize("is_older", [False, True])
    def test_never_replaces_original_without_metadata(
        self, world: World, is_older: bool, lost: tuple[str, ...]
    ) -> None:
        copy = add_by_hand(world, "", "") if is_older else None
        original = create(world)
        subscription = world.subscribe(original)
        copy = move_metadata(world, original, copy)
        if lost:
            forget(world, *lost)

        world.rebuild()

        assert (active(world), owner_of(copy)) == (original, None)
        assert report(world) == {copy: ("conflict", f"its token is of {original}")}
        assert world.create()["json"]["stripe_id"] == original
        assert customers(world) == {original: True}
        world.sync()
        assert [s.stripe_id for s in StripeCustomer.require(USER).subscriptions] == [subscription]
        assert "stored" not in world.rebuild()

    @pytest.mark.parametrize("is_applied", [False, True])
    @pytest.mark.parametrize("is_stripped", [False, True])
    def test_is_not_taken_when_original_is_deleted(
        self, world: World, is_stripped: bool, is_applied: bool
    ) -> None:
        original = create(world)
        if is_stripped:
            copy = move_metadata(world, original)
        else:
            copy = add_by_hand(world, "u-1", token_of(world, original))
        delete_on_stripe(world, original)
        if is_applied:
            world.deliver_and_apply()
        world.rebuild()
        assert customers(world) == {original: False}
        assert create(world) not in (original, copy)

    @pytest.mark.parametrize("lost", [(), ("CLAIM",)])
    def test_of_soft_deleted_replaces_no_other(self, world: World, lost: tuple[str, ...]) -> None:
        former = create(world)
        copy = move_metadata(world, former)
        world.delete()
        original = create(world)
        for stripe_id in (copy, add_by_hand(world, "u-1", token_of(world, copy))):
            if lost:
                forget(world, *lost)
            world.rebuild()
            assert customers(world) == {former: False, original: True}
            assert active(world) == original
            assert owner_of(stripe_id) is None

    def test_is_recognized_by_former_token(self, world: World) -> None:
        claim = acquire_claim()
        original = add_by_hand(world, "u-1", claim.token)
        assert claim.renew_token()
        world.deliver_and_apply()
        assert active(world) == original
        move_metadata(world, original)
        forget(world, "POINTER")
        assert sum(world.rebuild().values()) == 2
        assert active(world) == original

    def test_is_recognized_after_create_has_completed_pointer(self, world: World) -> None:
        original = create(world)
        copy = move_metadata(world, original)
        put_back(world, images_of(world, "CLAIM"))
        assert world.create()["json"]["stripe_id"] == original
        world.rebuild()
        assert active(world) == original
        assert owner_of(copy) is None

    def test_other_user_in_metadata_changes_nothing(self, world: World) -> None:
        stripe_id = create(world)
        world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": {USER_KEY: "u-2"}})
        assert "stored" not in world.rebuild()
        assert (active(world), active(world, "u-2")) == (stripe_id, None)


class TestOfAnotherUser:
    """A customer whose pointer names another user than its metadata."""

    @pytest.mark.parametrize("lost", [("CLAIM",), ("CUSTOMER",), ("CLAIM", "CUSTOMER")])
    def test_is_reported(self, world: World, lost: tuple[str, ...]) -> None:
        stripe_id = create(world)
        forget(world, *lost)
        Pointer.to(Owner("u-2", stripe_id)).save()
        before = records(world)
        assert world.rebuild() == {"conflict": 1}
        assert records(world) == before
        assert report(world) == {stripe_id: ("conflict", "another user has the customer")}

    @pytest.mark.parametrize("lost", ["CLAIM", "CUSTOMER", ""])
    def test_is_skipped_if_it_is_taken_during_run(self, world: World, lost: str) -> None:
        stripe_id = create(world)
        forget(world, lost, "POINTER")
        backup = world.images()
        calls = count_calls(world)
        for number in range(1, calls + 1):
            put_back(world, backup)
            with at_call(world, number, lambda: take(stripe_id)):
                world.rebuild()
            # Whichever of the two came first has it.
            assert owner_of(stripe_id) == "u-2" or active(world) == stripe_id


def take(stripe_id: str) -> None:
    """Store the pointer of a customer for another user, if it has none."""
    with roles.acting_freely(), suppress(ConditionFailedError):
        transact(Pointer.to(Owner("u-2", stripe_id)).add_to)


def half_activate(world: World) -> str:
    """Create a customer of which the backup has all but its claim, which is as before."""
    world.time += 10
    crash_create(world)
    claim = images_of(world, "CLAIM")
    stripe_id = str(world.create()["json"]["stripe_id"])
    forget(world, "CLAIM")
    put_back(world, world.images() + claim)
    return stripe_id


class TestHalfTransaction:
    """A backup that has a part of a transaction."""

    @pytest.mark.parametrize("lost", ["CLAIM", "CUSTOMER", "POINTER"])
    def test_of_create_is_completed(self, world: World, lost: str) -> None:
        stripe_id = create(world)
        forget(world, lost)

        assert world.rebuild()["stored"] == 1

        assert active(world) == stripe_id
        assert owner_of(stripe_id) == "u-1"
        assert world.create()["json"]["stripe_id"] == stripe_id
        assert "stored" not in world.rebuild()

    def test_of_soft_delete_is_completed(self, world: World) -> None:
        old = create(world)
        pointer = images_of(world, "CLAIM")
        world.delete()
        put_back(world, world.images() + pointer)
        assert world.rebuild()["stored"] == 1
        assert create(world) != old

    @pytest.mark.parametrize("ahead", [0, 60])
    def test_claim_points_to_stored_customer(self, world: World, ahead: int) -> None:
        stripe_id = half_activate(world)
        (claim,) = images_of(world, "CLAIM")
        forget(world, "CLAIM")
        claimed_at = float(claim["claimed_at"]["N"]) + ahead  # by a clock ahead of Stripe's
        claim["claimed_at"]["N"] = str(claimed_at)
        put_back(world, [*world.images(), claim])
        assert world.rebuild()["stored"] == 1
        assert active(world) == stripe_id
        assert "stored" not in world.rebuild()

    def test_is_completed_by_create(self, world: World) -> None:
        stripe_id = half_activate(world)
        forget(world, "POINTER")
        again = world.create()
        assert (again["statusCode"], again["json"]["stripe_id"]) == (200, stripe_id)
        assert active(world) == stripe_id
        assert owner_of(stripe_id) == "u-1"

    def test_claim_of_soft_deleted_customer_is_replaced(self, world: World) -> None:
        old = half_activate(world)
        claim = images_of(world, "CLAIM")
        forget(world, "CLAIM")
        StripeCustomer.soft_delete(record_of(old))
        put_back(world, world.images() + claim)
        assert create(world) != old
        assert customers(world)[old] is False

    @pytest.mark.parametrize("is_there", [True, False])
    def test_pointer_to_deleted_customer_is_replaced(self, world: World, is_there: bool) -> None:
        old = create(world)
        pointer = images_of(world, "CLAIM")
        delete_on_stripe(world, old)
        world.deliver_and_apply()
        put_back(world, (world.images() if is_there else []) + pointer)
        world.rebuild()
        new = create(world)
        assert new != old
        assert active(world) == new

    def test_pointer_alone_is_completed_by_create(self, world: World) -> None:
        stripe_id = create(world)
        put_back(world, images_of(world, "CLAIM"))
        assert world.create()["json"]["stripe_id"] == stripe_id
        assert active(world) == stripe_id
        assert owner_of(stripe_id) == "u-1"


def two_active(world: World) -> tuple[str, str]:
    """The older has the pointer, the newer a record."""
    old = create(world)
    before = world.images()
    world.delete()
    new = create(world)
    put_back(world, [*before, *images_of(world, f"CUSTOMER#{new}", "POINTER")])
    assert customers(world) == {old: True, new: True}
    return old, new


class TestTwoActive:
    @pytest.mark.parametrize("is_deleted", [True, False])
    def test_older_is_soft_deleted(self, world: World, is_deleted: bool) -> None:
        old, new = two_active(world)
        if is_deleted:
            delete_on_stripe(world, old)
        world.rebuild()
        assert customers(world) == {old: False, new: True}
        assert active(world) == new
        assert world.create()["json"]["stripe_id"] == new

    def test_older_is_soft_deleted_before_newer_is_read(self, world: World) -> None:
        old, new = two_active(world)
        stripe_customer = world.request("GET", f"/v1/customers/{old}")
        assert restore_customer(CustomerSnapshot.from_fetch(stripe_customer)) is Result.STORED
        assert customers(world) == {old: False, new: True}
        world.rebuild()
        assert active(world) == new

    def test_deleted_is_soft_deleted_beside_crashed_create(self, world: World) -> None:
        old = create(world)
        record = images_of(world, "CUSTOMER")
        world.delete()
        world.time += 10
        crash_create(world)
        put_back(world, record + images_of(world, "CLAIM"))
        delete_on_stripe(world, old)
        world.rebuild()
        (new,) = (each["id"] for each in world.stripe_customers())
        assert customers(world) == {old: False, new: True}

    @pytest.mark.parametrize("is_deleted", [True, False])
    @pytest.mark.parametrize("copied", [("CLAIM",), ("CUSTOMER",), ()])
    def test_without_pointer_is_soft_deleted(
        self, world: World, copied: tuple[str, ...], is_deleted: bool
    ) -> None:
        old = create(world)
        backup = images_of(world, "CUSTOMER", "POINTER")
        world.delete()
        new = create(world)
        newer = [image for image in images_of(world, *copied) if old not in str(image)]
        put_back(world, backup + newer)
        if is_deleted:
            delete_on_stripe(world, old)
        world.rebuild()
        assert customers(world) == {old: False, new: True}
        assert active(world) == new

    def test_soft_delete_leaves_pointer_to_other(self, world: World) -> None:
        pointed_to, other = two_active(world)
        StripeCustomer.soft_delete(record_of(other))
        assert customers(world) == {pointed_to: True, other: False}
        assert active(world) == pointed_to

    def test_event_of_deletion_leaves_pointer_to_other(self, world: World) -> None:
        pointed_to, other = two_active(world)
        delete_on_stripe(world, other)
        world.deliver_and_apply()
        assert customers(world) == {pointed_to: True, other: False}
        assert active(world) == pointed_to
        (event,) = world.items(kind="customer.deleted")
        assert event["state"] == "applied"

    def test_soft_delete_of_changed_record_is_refused(self, world: World) -> None:
        stripe_id = create(world)
        stale = record_of(stripe_id)
        world.sync()
        with pytest.raises(StaleRecordError):
            stale.soft_delete()
        assert active(world) == stripe_id


class TestRun:
    def test_continues_after_a_customer_that_took_long(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stripe_integrations.actions.account.page._SECONDS", -1)
        created = [create(world, f"u-{number}") for number in range(5)]
        forget(world)
        world.time += 1
        pages = [progress.objects for progress in rebuild_here()]
        assert pages == [1, 2, 3, 4, 5, 5]
        assert [active(world, f"u-{number}") for number in range(5)] == created

    def test_is_resumed_after_failure_on_later_page(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stripe_integrations.adapters.stripe_gateway._PAGE", 2)
        created = [add_by_hand(world, f"u-{n}", f"stripe-customers/{n}") for n in range(5)]
        world.stripe.faults.fail_next(None, match=f"GET /v1/customers/{created[1]}", status=500)
        with pytest.raises(StripeUnavailableError):
            world.rebuild()
        assert len(world.items(record_type="CustomerClaim")) == 3
        assert StripeAccount.progress().objects == 2
        world.stripe.faults.clear()
        assert world.rebuild()["stored"] == 4  # one was stored before the failure
        assert len(world.items(record_type="CustomerClaim")) == 5

    def test_needs_no_sweep(self, world: World) -> None:
        create(world)
        forget(world)
        assert not SweepCursor.is_stored()
        assert world.rebuild() == {"stored": 1}

    def test_with_the_key_of_another_account_is_refused(self, world: World) -> None:
        stripe_id = create(world)
        world.stripe.account.customers.clear()
        with pytest.raises(OtherAccountError):
            world.rebuild()
        assert active(world) == stripe_id

    def test_that_was_running_at_the_backup_is_stopped_first(self, world: World) -> None:
        world.reconcile()
        earlier = StripeAccount.start().run_id
        backup = world.images()
        stripe_id = create(world)
        put_back(world, backup)
        world.time += 60
        with pytest.raises(RunInProgressError):
            rebuild_here()
        StripeAccount.stop(earlier)
        assert rebuild_here()[-1].results == {"stored": 1}
        assert active(world) == stripe_id

    @pytest.mark.parametrize("is_newer_first", [False, True])
    def test_order_of_the_windows_does_not_matter(self, world: World, is_newer_first: bool) -> None:
        old = create(world)
        world.delete()
        new = create(world, default_source="tok_visa")
        forget(world)
        listed = world.stripe_customers()
        assert [each["id"] for each in listed] == [new, old]
        observation = Observation.of_fetch(world.time, received=world.time)
        for stripe_customer in listed if is_newer_first else listed[::-1]:
            rebuild_customers(Page([stripe_customer], observation))
        assert customers(world) == {old: False, new: True}
        assert active(world) == new

    def test_failure_of_one_customer_is_raised(self, world: World) -> None:
        create(world)
        stripe_id = create(world, "u-2")
        forget(world)
        world.stripe.faults.fail_next(None, status=503, match="GET /v1/subscriptions")
        with pytest.raises(StripeUnavailableError):
            world.rebuild()
        assert active(world, "u-2") == stripe_id

        world.stripe.faults.clear()
        assert world.rebuild() == {"stored": 2}
        assert {each["id"] for each in world.stripe_customers()} == {active(world), stripe_id}

    def test_continues_after_children_are_refused(
        self, world: World, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
    ) -> None:
        created = [create(world), create(world, "u-2")]
        forget(world)

        def refuse(customer: Customer) -> None:
            raise DatabaseRefusedError("DynamoDB: ValidationException")

        refresh = "stripe_integrations.actions.account.rebuild.refresh_from_stripe"
        monkeypatch.setattr(refresh, refuse)
        assert world.rebuild()["stored"] == 2
        assert [active(world), active(world, "u-2")] == created
        assert log.getvalue().count("not refreshed") == 2

    @pytest.mark.parametrize("newer", ["CLAIM", "CUSTOMER"])
    def test_continues_after_record_of_later_release(self, world: World, newer: str) -> None:
        lost = create(world)
        unreadable = create(world, "u-2")
        create(world, "u-3")
        backup = [image for image in world.images() if "u-1" not in str(image)]
        for image in backup:
            if image["pk"]["S"] == "USER#u-2" and image["sk"]["S"].startswith(newer):
                image["schema_version"] = {"N": "2"}
        put_back(world, backup)

        assert world.rebuild() == {"stored": 1, "unreadable": 1, "unchanged": 1}

        assert active(world) == lost
        assert report(world) == {unreadable: ("unreadable", "NewerSchemaError")}

    @pytest.mark.parametrize("kinds", [set(), {"Card"}])
    def test_stores_kinds_of_deployment(self, world: World, kinds: set[str]) -> None:
        world.configure(stored_records=frozenset(kinds))
        create(world, default_source="tok_visa")
        forget(world)
        assert world.rebuild()["stored"] == 1
        assert len(world.items(record_type="Card")) == len(kinds)
        assert "stored" not in world.rebuild()


# ---- interrupted, repeated, concurrent


def one_customer(world: World) -> list[Json]:
    create(world, default_source="tok_visa")
    return []


def second_customer(world: World) -> list[Json]:
    create(world)
    backup = world.images()
    world.delete()
    create(world, default_source="tok_visa")
    return backup


def two_customers(world: World) -> list[Json]:
    second_customer(world)
    return []


def deleted_customer_replaced(world: World) -> list[Json]:
    backup = second_customer(world)
    delete_on_stripe(world, world.stripe_customers()[-1]["id"])
    return backup


def crashed_create(world: World) -> list[Json]:
    crash_create(world, default_source="tok_visa")
    world.time += 60
    return world.images()


def overtaken_claim(world: World) -> list[Json]:
    acquire_claim()
    backup = world.images()
    forget(world)
    create(world, default_source="tok_visa")
    return backup


def half_of_create(world: World) -> list[Json]:
    create(world, default_source="tok_visa")
    return [image for image in world.images() if image["sk"]["S"] != "CLAIM"]


def moved_metadata(world: World) -> list[Json]:
    move_metadata(world, create(world, default_source="tok_visa"))
    return [image for image in world.images() if image["sk"]["S"] != "CLAIM"]


Loss = Callable[[World], list[Json]]
LOSSES: list[Loss] = [
    one_customer,
    second_customer,
    two_customers,
    deleted_customer_replaced,
    crashed_create,
    overtaken_claim,
    half_of_create,
]


def outcome(world: World) -> set[tuple[str, ...]]:
    """What the table has, but for when and how often it was written."""
    return {
        (
            item["pk"],
            item["sk"],
            str(item.get("is_active")),
            str(item.get("stripe_id")),
            str(item.get("token")),
            str(item.get("removed_at") is None),
            str("cards_observed_to" in item),
        )
        for item in world.items()
        if item["record_type"] not in OF_RUNS
    }


@contextmanager
def at_call(world: World, number: int, action: Callable[[], None]) -> Iterator[list[str]]:
    """Run an action once, before the nth call to DynamoDB or Stripe."""
    calls: list[str] = []

    def record(name: str) -> None:
        calls.append(name)
        if len(calls) == number:
            action()

    request_of = world.stripe.request

    def request(*args: Any, **kwargs: Any) -> Any:
        record("stripe")
        return request_of(*args, **kwargs)

    database = hooked(database_client(), "before-send.dynamodb", lambda **_: record("database"))
    with database, patch.object(world.stripe, "request", request):
        yield calls


def count_calls(world: World) -> int:
    """Run a rebuild; its calls to DynamoDB and Stripe."""
    with at_call(world, 0, die) as calls:
        world.rebuild()
    assert {"database", "stripe"} <= set(calls)
    return len(calls)


def die() -> None:
    raise ClientKilledError("here")


class TestInterruption:
    @pytest.mark.parametrize("loss", LOSSES)
    def test_newest_customer_is_active_after_loss(self, world: World, loss: Loss) -> None:
        put_back(world, loss(world))
        newest = world.stripe_customers()[0]["id"]

        world.rebuild()

        assert active(world) == newest
        expected = outcome(world)
        assert "stored" not in world.rebuild()
        assert outcome(world) == expected
        assert world.create()["json"]["stripe_id"] == newest

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("interruption", ["death", "another run"])
    @pytest.mark.parametrize("loss", [*LOSSES, moved_metadata])
    def test_interrupted_run_has_same_outcome(
        self, world: World, loss: Loss, interruption: str
    ) -> None:
        backup = loss(world)
        put_back(world, backup)
        calls = count_calls(world)
        expected = outcome(world)

        def run_another() -> None:
            """Another worker reads the same page: the lease of its window has expired."""
            with use(world.new_context()), roles.acting_freely():
                for stripe_customer in world.stripe_customers():
                    restore_customer(CustomerSnapshot.from_fetch(stripe_customer))

        for number in range(1, calls + 1):
            put_back(world, backup)
            if interruption == "death":
                with at_call(world, number, die), pytest.raises(ClientKilledError):
                    world.rebuild()
                world.rebuild()
            else:
                with at_call(world, number, run_another):
                    world.rebuild()
            assert outcome(world) == expected, number

    @pytest.mark.parametrize("loss", [one_customer, overtaken_claim])
    def test_concurrent_create_leaves_one_active(self, world: World, loss: Loss) -> None:
        """The API should be closed. If it is not, a user still has one active customer here."""
        backup = loss(world)
        put_back(world, backup)
        calls = count_calls(world)

        def create_concurrently() -> None:
            with use(world.new_context()):
                StripeCustomer.create(USER, EMAIL)

        # From the end: what such a create makes on Stripe stays there, and the next run lists it.
        for number in range(calls, 0, -1):
            put_back(world, backup)
            with at_call(world, number, create_concurrently):
                world.rebuild()
            of_user = customers(world).items()
            assert [stripe_id for stripe_id, is_active in of_user if is_active] == [
                active(world)
            ], number
