"""PUBLISH_TYPES: events that change no record are published too, of our customers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.config import matches_pattern
from stripe_integrations.context import use
from stripe_integrations.errors import MessageNotSentError, SideEffectFailedError
from stripe_integrations.models import Customer
from stripe_integrations.models.event import TOO_OLD, UNKNOWN_CUSTOMER
from tests.stripe_changes import rename_later
from tests.stripe_integrations.actions.events.custom_handlers import (
    NOTE,
    called,
    meanwhile,
    raising,
)
from tests.world import START, USER, World, stored_event, stripe_event

DAY = 86_400


@pytest.fixture(autouse=True)
def _publish_types(world: World) -> None:
    world.configure(event_bus_name="changes", publish_types=("invoice.*", "payout.paid"))


def receive(customer_id: str | None, kind: str = "invoice.paid", **changes: Any) -> str:
    """Receive an event that changes no record, and return its id."""
    invoice = {"object": "invoice", "customer": customer_id, "customer_email": "jane@example.com"}
    event = stripe_event(kind, data={"object": invoice})
    return StripeEvent.receive({**event, **changes}).stripe_id


def published(world: World) -> list[tuple[str, str, str | None, bool]]:
    """Return event, effect, customer and `customer_is_active` of each published message."""
    return [
        (d["event_id"], d["effect"], d["customer_id"], d["customer_is_active"])
        for d in world.published
    ]


def ended(stripe_id: str) -> tuple[str, str | None]:
    event = stored_event(stripe_id)
    return event.state, event.reason


class TestPattern:
    @pytest.mark.parametrize(
        ("kind", "pattern", "is_match"),
        [
            ("invoice.paid", "invoice.paid", True),
            ("invoice.paid", "invoice.*", True),
            ("invoice.paid", "*", True),
            ("invoice.payment.overpaid", "invoice.*", True),
            ("invoice.payment_failed", "invoice.paid", False),
            ("invoice.paid.late", "invoice.paid", False),
            ("invoiceitem.created", "invoice.*", False),
            ("customer.subscription.updated", "customer.subscription.*", True),
            ("customer.subscription_schedule.updated", "customer.subscription.*", False),
            ("customer.updated", "customer.subscription.*", False),
        ],
    )
    def test_matches_exact_type_or_family(self, kind: str, pattern: str, is_match: bool) -> None:
        assert matches_pattern(kind, pattern) is is_match


class TestPublished:
    def test_event_that_changes_no_record_is_published(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = receive(customer.stripe_id)
        assert stored_event(stripe_id).state == "pending"
        world.stream()
        assert world.published == [
            {
                "event_id": stripe_id,
                "type": "invoice.paid",
                "created": int(START),
                "customer_id": customer.stripe_id,
                "user_id": "u-1",
                "livemode": False,
                "effect": "none",
                "customer_is_active": True,
            }
        ]
        assert ended(stripe_id) == ("ignored", "changes no record of ours")

    def test_publishing_makes_no_call_to_stripe(self, world: World, customer: Customer) -> None:
        receive(customer.stripe_id, api_version="2020-08-27")
        with world.counting() as counts:
            world.stream()
        assert (counts.stripe, len(world.published)) == (0, 1)

    def test_event_that_changes_records_is_published_with_its_effect(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(publish_types=("*",))
        stripe_id = rename_later(world, customer)
        StripeEvent.apply(stripe_id)
        assert published(world) == [(stripe_id, "applied", customer.stripe_id, True)]

    def test_event_that_names_no_customer_is_published(self, world: World) -> None:
        stripe_id = receive(None, "payout.paid")
        world.stream()
        assert published(world) == [(stripe_id, "none", None, False)]

    def test_event_of_customer_deleted_on_stripe_is_published(
        self, world: World, customer: Customer
    ) -> None:
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        StripeEvent.apply(world.receive("customer.deleted"))
        world.published.clear()
        stripe_id = receive(customer.stripe_id)
        world.stream()
        assert published(world) == [(stripe_id, "none", customer.stripe_id, False)]

    def test_event_that_arrives_before_its_customer_is_published(self, world: World) -> None:
        world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
        world.create()
        (on_stripe,) = world.stripe_customers()
        stripe_id = receive(on_stripe["id"])
        assert stored_event(stripe_id).state == "waiting"
        world.create()
        world.stream(("USER#u-1", f"CUSTOMER#{on_stripe['id']}"))
        assert published(world) == [(stripe_id, "none", on_stripe["id"], True)]

    def test_event_of_kind_that_is_not_stored_is_published(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(publish_types=("customer.tax_id.*",))
        tax_id = {"object": "tax_id", "id": "txi_1", "customer": customer.stripe_id}
        event = stripe_event("customer.tax_id.created", data={"object": tax_id})
        stripe_id = StripeEvent.receive(event).stripe_id
        world.stream()
        assert published(world) == [(stripe_id, "none", customer.stripe_id, True)]

    def test_event_is_published_together_with_change_of_its_customer(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id, renamed = receive(customer.stripe_id), rename_later(world, customer)
        world.stream()
        assert sorted(published(world)) == sorted(
            [
                (stripe_id, "none", customer.stripe_id, True),
                (renamed, "applied", customer.stripe_id, True),
            ]
        )
        assert StripeCustomer.require(USER).name == "Newest"

    def test_event_that_was_never_delivered_is_published(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(publish_types=("product.created",))
        world.stripe.webhooks.drop_next(2)
        product = {"product_data": {"name": "Plan"}}
        world.request("POST", "/v1/prices", {"currency": "usd", "unit_amount": 500, **product})
        world.reconcile()
        world.stream()
        assert [d["type"] for d in world.published if d["effect"] == "none"] == ["product.created"]
        assert "price.created" not in {i["kind"] for i in world.items(record_type="Event")}


class TestPublishedOnce:
    def test_second_delivery_is_not_published_again(self, world: World, customer: Customer) -> None:
        for _ in range(2):
            stripe_id = receive(customer.stripe_id)
            world.stream()
            world.time += 7200
            world.reconcile()
        assert [event_id for event_id, *_ in published(world)].count(stripe_id) == 1

    def test_event_is_not_published_again_if_its_handler_fails(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(event_handlers={"invoice.paid": NOTE})
        stripe_id = receive(customer.stripe_id)
        raising.append(OSError())
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(stripe_id)
        world.time = stored_event(stripe_id).next_attempt or 0
        world.reconcile()
        assert len(published(world)) == 1
        assert len(called) == 2
        assert ended(stripe_id) == ("applied", None)

    def test_event_is_not_published_again_if_handlers_outlast_the_claim(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(event_handlers={"invoice.*": NOTE})
        ids = [receive(customer.stripe_id, id=f"evt_{number}") for number in range(3)]

        def take_long() -> None:
            world.time += 200
            with use(world.new_context()):
                apply_events(ids)

        meanwhile.append(take_long)
        apply_events(ids)
        assert sorted(event_id for event_id, *_ in published(world)) == ids

    def test_event_that_the_bus_refused_is_published_later(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = receive(customer.stripe_id)
        take = world.context.publish

        def refuse(_: Mapping[str, Any]) -> None:
            raise MessageNotSentError("events: it is full")

        world.context.publish = refuse
        world.stream()
        event = stored_event(stripe_id)
        assert (event.state, event.last_error) == ("pending", "MessageNotSentError")
        world.context.publish = take
        world.time = event.next_attempt or 0
        world.reconcile()
        assert published(world) == [(stripe_id, "none", customer.stripe_id, True)]

    def test_replay_publishes_event_again(self, world: World, customer: Customer) -> None:
        stripe_id = receive(customer.stripe_id)
        world.stream()
        world.replay({"event_id": stripe_id})
        assert [event_id for event_id, *_ in published(world)] == [stripe_id] * 2

    def test_replay_publishes_event_whose_type_was_added_later(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = receive(customer.stripe_id, "charge.succeeded")
        assert ended(stripe_id) == ("ignored", "changes no record of ours")
        world.configure(publish_types=("charge.*",))
        world.replay({"event_id": stripe_id})
        assert published(world) == [(stripe_id, "none", customer.stripe_id, True)]


class TestNotPublished:
    @pytest.mark.parametrize("kind", ["invoiceitem.created", "payout.failed", "charge.succeeded"])
    def test_event_of_other_type_is_not_published(
        self, world: World, customer: Customer, kind: str
    ) -> None:
        assert stored_event(receive(customer.stripe_id, kind)).state == "ignored"
        world.stream()
        assert world.published == []

    @pytest.mark.parametrize("handlers", [{}, {"invoice.*": NOTE}])
    def test_event_of_foreign_customer_is_not_published(
        self, world: World, handlers: dict[str, str]
    ) -> None:
        world.configure(event_handlers=handlers)
        stripe_id = receive("cus_foreign")
        for seconds in (300, 600, DAY):
            world.time += seconds
            world.reconcile()
        assert stored_event(stripe_id).reason == UNKNOWN_CUSTOMER
        assert world.published == []
        assert not [request for request in world.stripe.requests if "cus_foreign" in str(request)]

    def test_event_of_soft_deleted_customer_is_not_published(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = receive(customer.stripe_id)
        StripeCustomer.soft_delete(customer)
        world.stream()
        assert ended(stripe_id) == ("ignored", "the customer is soft-deleted")
        assert world.published == []

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"livemode": True}, "of the other mode"),
            ({"account": "acct_1"}, "of a connected account"),
            ({"object": "v2.core.event"}, "not an event of Stripe's API v1"),
            ({"created": int(START) - 100 * DAY}, TOO_OLD),
        ],
    )
    def test_ignored_event_is_not_published(
        self, world: World, customer: Customer, changes: dict[str, Any], reason: str
    ) -> None:
        stripe_id = receive(customer.stripe_id, **changes)
        world.stream()
        assert ended(stripe_id) == ("ignored", reason)
        assert world.published == []

    def test_event_is_not_published_without_event_bus(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(event_bus_name=None)
        stripe_id = receive(customer.stripe_id)
        world.stream()
        assert ended(stripe_id) == ("ignored", "changes no record of ours")
        assert world.published == []


class TestPersonalData:
    @pytest.mark.parametrize("customer_id", ["cus_foreign", None])
    def test_is_not_stored_unless_customer_is_ours(
        self, world: World, customer_id: str | None
    ) -> None:
        receive(customer_id)
        assert "jane@example.com" not in str(world.items(record_type="Event"))

    def test_is_not_published(self, world: World, customer: Customer) -> None:
        receive(customer.stripe_id)
        world.stream()
        assert "jane@example.com" not in str(world.published)
