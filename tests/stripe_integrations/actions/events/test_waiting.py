"""Events that arrive before their customer wait for it, however it becomes known."""

from __future__ import annotations

from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.errors import StripeRefusedError, StripeUnavailableError
from stripe_integrations.models import Card, CustomerClaim, Owner, Pointer
from tests.stripe_changes import detach_card
from tests.stripe_integrations.actions.events.custom_handlers import NOTE
from tests.world import EMAIL, USER, Json, World, stored_event, stripe_event

DAY = 86400


@pytest.fixture
def on_stripe(world: World) -> str:
    """A customer that a create of ours has made on Stripe, without getting the response."""
    world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    (customer,) = world.stripe_customers()
    return str(customer["id"])


@pytest.fixture
def card(world: World, on_stripe: str) -> str:
    """A card that was attached to the customer later."""
    world.time += 10
    return world.attach_card(on_stripe)


@pytest.fixture
def waiting(world: World, card: str) -> str:
    """The event of that card, received: its payload has no token."""
    stripe_id = world.receive("payment_method.attached")
    event = stored_event(stripe_id)
    assert (event.state, event.webhook_message) == ("waiting", None)
    return stripe_id


def receive_created(world: World, **changes: Any) -> str:
    return StripeEvent.receive({**world.payload("customer.created"), **changes}).stripe_id


def card_ids() -> list[str]:
    return [card.stripe_id for card in StripeCustomer.require(USER).cards]


class TestWaitingEvent:
    @pytest.mark.parametrize("is_retry", [False, True])
    def test_is_applied_when_customer_is_stored(
        self, world: World, on_stripe: str, card: str, waiting: str, is_retry: bool
    ) -> None:
        if is_retry:
            StripeEvent.apply(waiting)
            assert (stored_event(waiting).next_attempt or 0) > world.time
        StripeCustomer.create(USER, EMAIL)
        world.stream(("USER#u-1", f"CUSTOMER#{on_stripe}"))
        event = stored_event(waiting)
        assert (event.state, event.user_id, event.customer_id) == ("applied", "u-1", on_stripe)
        assert event.attempts == 1 + is_retry
        assert card_ids() == [card]

    def test_is_applied_by_schedule(self, world: World, card: str, waiting: str) -> None:
        StripeCustomer.create(USER, EMAIL)
        world.time += 200
        assert world.reconcile()["attempted"] == 1
        event = stored_event(waiting)
        assert (event.state, event.user_id) == ("applied", "u-1")
        assert card_ids() == [card]

    def test_is_applied_after_customer_created(
        self, world: World, on_stripe: str, card: str, waiting: str
    ) -> None:
        created = receive_created(world)
        world.stream()
        assert stored_event(created).state == "applied"
        world.stream(("USER#u-1", f"CUSTOMER#{on_stripe}"))
        assert stored_event(waiting).state == "applied"
        assert card_ids() == [card]

    def test_with_our_token_is_applied_in_the_batch_of_customer_created(
        self, world: World, on_stripe: str
    ) -> None:
        world.time += 10
        world.rename(on_stripe, "Newest")
        renamed = world.receive()
        event = stored_event(renamed)
        assert event.state == "pending"
        assert event.webhook_message
        created = receive_created(world)
        world.stream()
        assert stored_event(created).state == stored_event(renamed).state == "applied"
        assert StripeCustomer.require(USER).name == "Newest"

    def test_is_looked_up_without_a_write_and_does_not_expire(self, world: World) -> None:
        StripeEvent.receive(stripe_event())
        before = world.items(record_type="Event")
        for seconds in (60, 300, 600, DAY // 2):
            world.time += seconds
            assert world.reconcile()["attempted"] == 0
            assert world.items(record_type="Event") == before
        assert before[0]["attempts"] == 0
        assert "expires_at" not in before[0]
        assert world.dead_letters == []

    def test_keeps_payload_for_its_handler(self, world: World) -> None:
        world.configure(event_handlers={"customer.updated": NOTE})
        StripeEvent.receive(stripe_event())
        event = stored_event("evt_1")
        assert event.state == "waiting"
        assert event.webhook_message == stripe_event()

    def test_is_ignored_when_customer_is_unknown_for_a_day(self, world: World) -> None:
        StripeEvent.receive(stripe_event())
        world.time += DAY - 1
        world.reconcile()
        assert stored_event("evt_1").state == "waiting"
        world.time = stored_event("evt_1").next_attempt or 0
        world.reconcile()
        event = stored_event("evt_1")
        assert (event.state, event.reason) == ("ignored", "not a customer of ours")
        assert event.webhook_message is None
        assert event.expires_at.timestamp() == world.time + 90 * DAY

    def test_is_retried_until_customer_is_visible(
        self, world: World, waiting: str, on_stripe: str
    ) -> None:
        Pointer.to(Owner("u-1", on_stripe)).save()
        world.time += 200
        world.reconcile()
        event = stored_event(waiting)
        assert (event.state, event.last_error) == ("pending", "ConflictError")


class TestCustomerCreated:
    @pytest.mark.parametrize("api_version", ["2025-02-24.acacia", None])
    def test_completes_create_with_what_stripe_has_now(
        self, world: World, on_stripe: str, api_version: str | None
    ) -> None:
        world.time += 10
        world.rename(on_stripe, "Newest")
        created = receive_created(world, api_version=api_version)
        StripeEvent.apply(created)
        customer = StripeCustomer.require(USER)
        assert (customer.stripe_id, customer.name) == (on_stripe, "Newest")
        assert stored_event(created).state == "applied"

    def test_completes_create_without_time_of_creation(self, world: World, on_stripe: str) -> None:
        payload = world.payload("customer.created")
        del payload["data"]["object"]["created"]
        StripeEvent.receive(payload)
        StripeEvent.apply(payload["id"])
        assert StripeCustomer.require(USER).stripe_id == on_stripe

    def test_waits_when_stripe_has_deleted_customer(self, world: World, on_stripe: str) -> None:
        created = receive_created(world, api_version=None)
        world.request("DELETE", f"/v1/customers/{on_stripe}")
        StripeEvent.apply(created)
        assert stored_event(created).state == "waiting"
        assert StripeCustomer.get(USER) is None

    @pytest.mark.parametrize(("is_deleted", "state"), [(True, "waiting"), (False, "applied")])
    def test_adopts_customer_of_former_token_unless_deleted(
        self, world: World, on_stripe: str, is_deleted: bool, state: str
    ) -> None:
        created = receive_created(world)
        claim = CustomerClaim.read("u-1")
        assert claim
        claim.renew_token()
        if is_deleted:
            world.stripe.account.deleted_customers.add(on_stripe)
        StripeEvent.apply(created)
        assert stored_event(created).state == state
        assert (StripeCustomer.get(USER) is None) is is_deleted

    def test_404_is_no_deletion_of_unknown_customer(self, world: World, on_stripe: str) -> None:
        created = receive_created(world, api_version=None)
        world.stripe.faults.fail_next(None, status=404, code="resource_missing")
        with pytest.raises(StripeRefusedError):
            StripeEvent.apply(created)
        assert stored_event(created).state == "pending"
        world.stripe.faults.clear()
        world.time = stored_event(created).next_attempt or 0
        world.reconcile()
        assert stored_event(created).state == "applied"

    def test_of_older_claim_adopts_nothing(self, world: World, on_stripe: str) -> None:
        old = world.payload("customer.created")
        StripeCustomer.soft_delete(StripeCustomer.create(USER, EMAIL))
        Pointer(f"STRIPE#{on_stripe}", "POINTER").delete()
        new = StripeCustomer.create(USER, EMAIL)
        StripeEvent.receive(old)
        StripeEvent.apply(old["id"])
        assert stored_event(old["id"]).state == "waiting"
        assert StripeCustomer.require(USER).stripe_id == new.stripe_id


class TestDetachedCardWithoutCustomer:
    @pytest.fixture
    def stripe_id(self, world: World) -> str:
        return StripeCustomer.create(USER, EMAIL).stripe_id

    @pytest.fixture
    def method(self, world: World, stripe_id: str) -> str:
        """A card, attached after the create."""
        world.time += 10
        return world.attach_card(stripe_id)

    @pytest.fixture
    def detached(self, world: World, stripe_id: str, method: str) -> Json:
        """The event of its removal, without what was before."""
        world.time += 10
        detach_card(world, method)
        payload = world.payload("payment_method.detached")
        del payload["data"]["previous_attributes"]
        return payload

    def test_is_found_by_pointer(self, world: World, stripe_id: str, detached: Json) -> None:
        StripeEvent.apply(world.receive("payment_method.attached"))

        received = StripeEvent.receive(detached)
        assert (received.user_id, received.customer_id) == ("u-1", stripe_id)
        StripeEvent.apply(detached["id"])

        assert stored_event(detached["id"]).state == "applied"
        assert StripeCustomer.require(USER).cards == []

    def test_waits_for_attachment(
        self, world: World, stripe_id: str, method: str, detached: Json
    ) -> None:
        assert StripeEvent.receive(detached).state == "waiting"
        StripeEvent.apply(detached["id"])
        StripeEvent.apply(world.receive("payment_method.attached"))
        world.time = stored_event(detached["id"]).next_attempt or 0
        world.reconcile()

        assert stored_event(detached["id"]).state == "applied"
        assert StripeCustomer.require(USER).cards == []
        (card,) = world.items(record_type="Card")
        assert card["sk"] == Card.key_under(stripe_id, method)
