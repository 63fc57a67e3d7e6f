"""Unassigned customers whose metadata names their user: adopted by the events that change them."""

from __future__ import annotations

from unittest import mock

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.actions.customers.adopt import adopt_by_metadata
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.actions.events import side_effects
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import use
from stripe_integrations.errors import DatabaseUnavailableError, SideEffectFailedError
from stripe_integrations.models import CustomerClaim, Owner, Pointer, read_customer
from stripe_integrations.models.erasure import SECOND_PASS_SECONDS
from stripe_integrations.models.event import ERASED
from tests.roles import acting_freely
from tests.stripe_integrations.actions.events import custom_handlers
from tests.stripe_integrations.actions.events.custom_handlers import NOTE
from tests.world import EMAIL, USER, World, stored_event

KEY = "app_user"
OTHER = User("u-2")


@pytest.fixture(autouse=True)
def _adopts_from_metadata(world: World) -> None:
    world.configure(unassigned_customers=UnassignedCustomers.STORE, adopt_from=KEY)


def on_stripe(world: World, user_id: str | None = None) -> str:
    """A customer that was created on Stripe with this metadata, whose events are applied."""
    metadata = {} if user_id is None else {KEY: user_id}
    created = world.request("POST", "/v1/customers", {"email": EMAIL, "metadata": metadata})
    world.deliver_and_apply()
    return str(created["id"])


def name_user(world: World, stripe_id: str, user_id: str) -> None:
    world.time += 60
    world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": {KEY: user_id}})


def reasons(world: World) -> list[str]:
    return [item["reason"] for item in world.items(record_type="Event") if "reason" in item]


class TestAdopts:
    def test_customer_that_is_created_with_the_metadata(self, world: World) -> None:
        stripe_id = on_stripe(world, "u-1")
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        assert read_customer(Owner(None, stripe_id)) is None
        claim = CustomerClaim.read("u-1")
        assert claim
        metadata = world.request("GET", f"/v1/customers/{stripe_id}")["metadata"]
        assert metadata == {KEY: "u-1", USER_KEY: "u-1", TOKEN_KEY: claim.token}

    def test_customer_that_gets_the_metadata(self, world: World) -> None:
        stripe_id = on_stripe(world)
        world.attach_card(stripe_id)
        name_user(world, stripe_id, "u-1")
        world.deliver_and_apply()
        assert len(StripeCustomer.require(USER).cards) == 1

    def test_once(self, world: World) -> None:
        stripe_id = on_stripe(world, "u-1")
        world.deliver_and_apply()  # the event of the metadata that the adoption has written
        assert world.stripe.webhooks.due() == []
        assert set(world.event_states().values()) == {"applied"}
        assert StripeCustomer.require(USER).stripe_id == stripe_id

    def test_by_the_record_and_not_by_an_older_event(self, world: World) -> None:
        stripe_id = on_stripe(world)
        name_user(world, stripe_id, "u-1")
        name_user(world, stripe_id, "u-2")
        older, newer = world.stripe.webhooks.due()
        for delivery in (newer, older):
            world.webhook(delivery.body, delivery.headers)
            world.stream()
        assert StripeCustomer.get(USER) is None
        assert StripeCustomer.require(OTHER).stripe_id == stripe_id

    def test_after_process_died_between_commit_and_adoption(self, world: World) -> None:
        stripe_id = on_stripe(world)
        name_user(world, stripe_id, "u-1")
        world.deliver()
        event_id = world.payload("customer.updated")["id"]
        target = "stripe_integrations.actions.events.side_effects.adopt_by_metadata"
        with mock.patch(target, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            StripeEvent.apply(event_id)
        record = read_customer(Owner(None, stripe_id))
        assert record
        assert record.metadata == {KEY: "u-1"}
        world.time += 700
        with use(world.new_context()):
            world.reconcile()
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        assert stored_event(event_id).state == "applied"

    def test_after_database_failed(self, world: World) -> None:
        stripe_id = on_stripe(world)
        name_user(world, stripe_id, "u-1")
        world.deliver()
        event_id = world.payload("customer.updated")["id"]
        target = "stripe_integrations.actions.events.side_effects.adopt_by_metadata"
        error = DatabaseUnavailableError("down")
        with mock.patch(target, side_effect=error), pytest.raises(SideEffectFailedError):
            StripeEvent.apply(event_id)
        assert stored_event(event_id).last_error == "DatabaseUnavailableError"
        world.time += 700
        with use(world.new_context()):
            world.reconcile()
        assert StripeCustomer.require(USER).stripe_id == stripe_id

    def test_while_stripe_is_down(self, world: World) -> None:
        stripe_id = on_stripe(world)
        name_user(world, stripe_id, "u-1")
        world.stripe.faults.fail_next(None, match="POST *", status=503)
        world.deliver_and_apply()
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        world.stripe.faults.clear()
        world.time += 700
        with use(world.new_context()):
            world.reconcile()
        metadata = world.request("GET", f"/v1/customers/{stripe_id}")["metadata"]
        assert metadata[USER_KEY] == "u-1"

    def test_and_calls_custom_handlers(self, world: World) -> None:
        custom_handlers.called.clear()
        world.configure(event_handlers={"customer.created": NOTE})
        stripe_id = on_stripe(world, "u-1")
        assert [user_id for _, user_id in custom_handlers.called] == [None]
        assert StripeCustomer.require(USER).stripe_id == stripe_id


class TestDoesNotAdopt:
    @pytest.mark.parametrize("user_id", ["", "a\x07b", "x\x85y"])
    def test_for_invalid_user(self, world: World, user_id: str) -> None:
        stripe_id = on_stripe(world, user_id)
        assert Pointer.find(stripe_id) == (None, stripe_id)

    def test_without_setting(self, world: World) -> None:
        world.configure(adopt_from=None)
        stripe_id = on_stripe(world, "u-1")
        assert Pointer.find(stripe_id) == (None, stripe_id)

    def test_for_user_with_customer(self, world: World) -> None:
        own = StripeCustomer.create(USER, EMAIL).stripe_id
        stripe_id = on_stripe(world, "u-1")
        assert Pointer.find(stripe_id) == (None, stripe_id)
        assert StripeCustomer.require(USER).stripe_id == own
        assert reasons(world) == ["not adopted: this user has another customer"]

    def test_for_user_whose_customer_is_being_created(self, world: World) -> None:
        CustomerClaim.acquire("u-1", {"stripe": {"email": EMAIL}, "local": {}})
        stripe_id = on_stripe(world, "u-1")
        assert Pointer.find(stripe_id) == (None, stripe_id)
        assert reasons(world) == ["not adopted: the customer of this user is being created"]

    def test_second_customer_of_user(self, world: World) -> None:
        first, second = on_stripe(world, "u-1"), on_stripe(world, "u-1")
        assert StripeCustomer.require(USER).stripe_id == first
        assert Pointer.find(second) == (None, second)

    def test_customer_of_user(self, world: World) -> None:
        stripe_id = on_stripe(world, "u-1")
        name_user(world, stripe_id, "u-2")
        world.deliver_and_apply()
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        assert StripeCustomer.get(OTHER) is None

    def test_customer_that_was_erased(self, world: World) -> None:
        stripe_id = on_stripe(world)
        StripeCustomer.erase_stripe_customer(stripe_id)
        name_user(world, stripe_id, "u-1")
        world.deliver_and_apply()
        assert StripeCustomer.get(USER) is None
        assert set(reasons(world)) == {ERASED}

    def test_customer_that_is_erased_before_its_adoption(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stripe_id = on_stripe(world)
        name_user(world, stripe_id, "u-1")

        def erase_and_adopt(stripe_id: str) -> str | None:
            with acting_freely():
                StripeCustomer.erase_stripe_customer(stripe_id)
            return adopt_by_metadata(stripe_id)

        monkeypatch.setattr(side_effects, "adopt_by_metadata", erase_and_adopt)
        world.deliver_and_apply()
        assert StripeCustomer.get(USER) is None
        assert CustomerClaim.read("u-1") is None
        world.time += SECOND_PASS_SECONDS + 1
        world.reconcile()
        assert set(world.event_states().values()) <= {"applied", "ignored"}
        assert set(reasons(world)) == {ERASED}

    def test_soft_deleted_customer(self, world: World) -> None:
        stripe_id = on_stripe(world, "u-1")
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        name_user(world, stripe_id, "u-2")
        world.deliver_and_apply()
        assert StripeCustomer.get(OTHER) is None

    def test_customer_that_stripe_has_deleted(self, world: World) -> None:
        stripe_id = on_stripe(world)
        name_user(world, stripe_id, "u-1")
        world.request("DELETE", f"/v1/customers/{stripe_id}")
        world.deliver_and_apply()
        assert StripeCustomer.get(USER) is None
        assert CustomerClaim.read("u-1") is None

    def test_customer_of_another_deployment(self, world: World) -> None:
        stripe_id = on_stripe(world)
        world.time += 60
        metadata = {KEY: "u-1", USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"}
        world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": metadata})
        world.deliver_and_apply()
        assert StripeCustomer.get(USER) is None
        (reason,) = reasons(world)
        assert reason.startswith("not adopted: the metadata")

    def test_for_user_from_whom_it_was_released(self, world: World) -> None:
        stripe_id = on_stripe(world, "u-1")
        world.deliver_and_apply()
        StripeCustomer.release(USER)
        world.time += 60
        world.rename(stripe_id, "Janet")
        world.deliver_and_apply()
        record = read_customer(Owner(None, stripe_id))
        assert record
        assert record.name == "Janet"
        name_user(world, stripe_id, "u-2")
        world.deliver_and_apply()
        assert StripeCustomer.require(OTHER).stripe_id == stripe_id
