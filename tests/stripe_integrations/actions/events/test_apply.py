"""Applying events: the record has what Stripe has, and no event fails because of another."""

from __future__ import annotations

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.errors import (
    ApplyFailedError,
    SideEffectFailedError,
    StripeUnavailableError,
    UnprocessableEventError,
)
from stripe_integrations.models import Customer, CustomerClaim
from tests.stripe_changes import detach_card, rename, rename_often
from tests.stripe_integrations.actions.events import custom_handlers
from tests.world import EMAIL, USER, World, stored_event


class TestChange:
    def test_record_has_what_stripe_has(self, world: World, customer: Customer) -> None:
        world.rename(customer.stripe_id, "Newest")
        card = world.attach_card(customer.stripe_id)
        world.deliver_and_apply()

        record = StripeCustomer.require(USER)
        assert record.name == "Newest"
        assert [card.stripe_id for card in record.cards] == [card]

        detach_card(world, card)
        world.deliver_and_apply()

        assert StripeCustomer.require(USER).cards == []
        assert set(world.event_states().values()) <= {"applied", "ignored"}

    def test_soft_deleted_record_does_not_change(self, world: World, customer: Customer) -> None:
        StripeCustomer.soft_delete(customer)
        before = world.items(record_type="Customer")
        stripe_id = rename(world, customer)
        StripeEvent.apply(stripe_id)
        assert world.items(record_type="Customer") == before
        event = stored_event(stripe_id)
        assert (event.state, event.reason) == ("ignored", "the customer is soft-deleted")

    @pytest.mark.parametrize(
        "stored", [frozenset(), frozenset({"Card"}), frozenset({"Subscription"})]
    )
    def test_kinds_that_are_not_stored(self, world: World, stored: frozenset[str]) -> None:
        world.configure(stored_records=stored)
        path = f"/v1/customers/{StripeCustomer.create(USER, EMAIL).stripe_id}"
        world.request("POST", f"{path}/sources", {"source": "tok_visa"})
        world.request("POST", path, {"name": "Newest"})
        world.deliver_and_apply()
        record = StripeCustomer.require(USER)
        assert record.name == "Newest"
        assert len(record.cards) == ("Card" in stored)

    def test_missing_event_is_left_out(self, world: World) -> None:
        StripeEvent.apply("evt_none")
        assert world.items() == []


class TestCreate:
    def test_customer_created_completes_create(self, world: World) -> None:
        world.stripe.faults.time_out(None, match="POST /v1/customers", when="after")
        with pytest.raises(StripeUnavailableError):
            StripeCustomer.create(USER, EMAIL, currency="eur")
        world.stripe.faults.clear()

        world.deliver_and_apply()

        (on_stripe,) = world.stripe_customers()
        customer = StripeCustomer.require(USER)
        assert (customer.stripe_id, customer.currency) == (on_stripe["id"], "eur")
        (record,) = world.items(record_type="Event")
        assert (record["kind"], record["state"]) == ("customer.created", "applied")
        assert (record["customer_id"], record["user_id"]) == (on_stripe["id"], "u-1")
        assert StripeCustomer.create(USER, EMAIL).stripe_id == on_stripe["id"]

    def test_customer_of_another_creator_is_not_adopted(self, world: World) -> None:
        CustomerClaim.acquire("u-1", {"stripe": {"email": EMAIL}, "local": {}})
        for metadata in ({}, {"stripe_integrations_user_id": "u-1"}):
            world.request("POST", "/v1/customers", {"email": EMAIL, "metadata": metadata})
        world.deliver_and_apply()
        assert StripeCustomer.get(USER) is None
        assert set(world.event_states().values()) == {"waiting"}


class TestBatch:
    def test_all_failures_are_raised(self, world: World, customer: Customer) -> None:
        world.configure(event_handlers={"customer.updated": custom_handlers.NOTE})
        custom_handlers.raising += [KeyError(), ValueError()]
        stripe_ids = rename_often(world, customer, 3)

        with pytest.raises(ApplyFailedError) as raised:
            apply_events(stripe_ids)

        failures = raised.value.exceptions
        assert [type(failure) for failure in failures] == [SideEffectFailedError] * 2
        assert [type(failure.__cause__) for failure in failures] == [KeyError, ValueError]
        *failed, applied = map(stored_event, stripe_ids)
        assert [event.last_error for event in failed] == ["KeyError", "ValueError"]
        for event in failed:
            assert (event.state, event.attempts) == ("pending", 1)
            assert (event.next_attempt or 0) > world.time
        assert (applied.state, applied.last_error) == ("applied", None)

    @pytest.mark.parametrize(
        ("error", "state"), [(KeyError(), "pending"), (UnprocessableEventError(), "failed")]
    )
    def test_failing_handler_fails_its_event_only(
        self, world: World, customer: Customer, error: Exception, state: str
    ) -> None:
        world.configure(event_handlers={"customer.updated": custom_handlers.NOTE})
        custom_handlers.raising.append(error)
        stripe_ids = rename_often(world, customer, 3)

        with pytest.raises(ApplyFailedError) as raised:
            apply_events(stripe_ids)

        assert [failure.__cause__ for failure in raised.value.exceptions] == [error]
        states = [stored_event(stripe_id).state for stripe_id in stripe_ids]
        assert states == [state, "applied", "applied"]
        assert StripeCustomer.require(USER).name == "Name 2"

    def test_refused_write_fails_its_event_only(self, world: World, customer: Customer) -> None:
        (stripe_id,) = rename_often(world, customer, 1)
        world.time += 10
        payload = world.payload()
        renamed = payload["data"]["object"]
        # It does not fit into an item, and a customer, unlike a child, is never reduced.
        subject = {**renamed, "name": "Refused", "metadata": {"text": "x" * 450_000}}
        refused = {"id": "evt_refused", "created": int(world.time), "data": {"object": subject}}
        StripeEvent.receive({**payload, **refused})

        with pytest.raises(ApplyFailedError):
            apply_events([stripe_id, "evt_refused"])

        assert stored_event("evt_refused").state == "failed"
        assert stored_event(stripe_id).state == "applied"
        assert StripeCustomer.require(USER).name == "Name 0"
