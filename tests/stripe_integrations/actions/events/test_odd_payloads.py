"""Signed payloads that are not what their types promise: none damages a record."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from local.stripe_double import sign
from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.events import apply
from stripe_integrations.actions.events.event_types import changes_records
from stripe_integrations.models import Customer, Event
from tests.world import EMAIL, START, USER, WEBHOOK_SECRET, Json, World, stored_event, stripe_event


@pytest.fixture
def customer(world: World) -> Customer:
    customer = StripeCustomer.create(USER, EMAIL, name="Jane")
    world.deliver_and_apply()
    world.time += 60
    return customer


def event(world: World, kind: str, subject: Any, **changes: Any) -> Json:
    """An event of now, with an object."""
    payload = stripe_event(kind, created=int(world.time), data={"object": subject})
    return {**payload, "id": f"evt_{kind.replace('.', '_')}", **changes}


def on_stripe(world: World, customer: Customer) -> Json:
    return world.request("GET", f"/v1/customers/{customer.stripe_id}")


def apply_payload(world: World, payload: Json) -> str:
    """Receive an event and let the stream report it; the state that it ends in."""
    StripeEvent.receive(payload)
    world.stream_events(payload["id"])
    return stored_event(payload["id"]).state


SUBSCRIPTION = {"id": "sub_9", "object": "subscription", "items": {"data": [], "has_more": False}}
CARD = {
    "id": "pm_9",
    "object": "payment_method",
    "type": "card",
    "billing_details": {},
    "card": {"last4": "4242"},
    "livemode": False,
}

NOT_WHAT_IT_SEEMS: dict[str, Callable[[Json], tuple[str, Json]]] = {
    "a subscription for a customer": lambda c: (
        "customer.updated",
        {**SUBSCRIPTION, "customer": c["id"]},
    ),
    "a subscription for a deleted customer": lambda c: (
        "customer.deleted",
        {**SUBSCRIPTION, "customer": c["id"]},
    ),
    "a customer for a subscription": lambda c: (
        "customer.subscription.updated",
        {**c, "items": {"data": [], "has_more": False}},
    ),
    "an id that is none": lambda c: (
        "customer.subscription.updated",
        {**SUBSCRIPTION, "id": [1], "customer": c["id"]},
    ),
    "a live customer": lambda c: ("customer.updated", {**c, "livemode": True, "name": "Live"}),
    "a live deletion": lambda c: ("customer.deleted", {**c, "livemode": True}),
    "a live card": lambda c: (
        "payment_method.attached",
        {**CARD, "livemode": True, "customer": c["id"]},
    ),
    "a bank account": lambda c: (
        "payment_method.attached",
        {**CARD, "object": "card", "type": "us_bank_account", "customer": c["id"]},
    ),
    "a list for settings": lambda c: ("customer.updated", {**c, "invoice_settings": [1]}),
    "half a quantity": lambda c: (
        "customer.subscription.created",
        {
            **SUBSCRIPTION,
            "customer": c["id"],
            "items": {"data": [{"id": "si_1", "quantity": 1.5}, None], "has_more": False},
        },
    ),
    "items that are none": lambda c: (
        "customer.subscription.created",
        {**SUBSCRIPTION, "customer": c["id"], "items": {"data": [None], "has_more": False}},
    ),
}


class TestOddPayload:
    @pytest.mark.parametrize("name", NOT_WHAT_IT_SEEMS)
    def test_leaves_record_that_can_be_read_and_synced(
        self, world: World, customer: Customer, name: str
    ) -> None:
        kind, subject = NOT_WHAT_IT_SEEMS[name](on_stripe(world, customer))

        assert apply_payload(world, event(world, kind, subject)) in ("applied", "ignored")

        response = world.get()
        assert response["statusCode"] == 200
        assert response["json"]["stripe_id"] == customer.stripe_id
        assert response["json"]["name"] == "Jane"
        assert response["json"]["cards"] == []
        assert response["json"]["livemode"] is False
        assert world.sync()["statusCode"] == 200
        assert world.sync()["json"]["subscriptions"] == []

    @pytest.mark.parametrize(
        ("name", "odd", "state"),
        [
            *(
                ("account", odd, "ignored")
                for odd in ("acct_1", ["acct_1"], {"id": "acct_1"}, {"odd": 1}, 7)
            ),
            *(("created", odd, "applied") for odd in ("garbage", 0, -1, START + 60.5, None)),
            ("created", 1.5, "ignored"),
        ],
    )
    def test_any_account_is_another_one_and_no_time_is_fetched(
        self, world: World, customer: Customer, name: str, odd: object, state: str
    ) -> None:
        subject = {**on_stripe(world, customer), "name": "Theirs"}
        payload = event(world, "customer.updated", subject, **{name: odd})
        assert apply_payload(world, payload) == state
        assert StripeCustomer.require(USER).name == "Jane"

    def test_card_without_customer_is_fetched(self, world: World, customer: Customer) -> None:
        attached = {**CARD, "customer": customer.stripe_id}
        apply_payload(world, event(world, "payment_method.attached", attached))
        assert len(StripeCustomer.require(USER).cards) == 1
        world.time += 60
        without_customer = {**CARD, "customer": None}
        apply_payload(world, event(world, "payment_method.updated", without_customer))
        # It was fetched from Stripe, which never had it.
        assert StripeCustomer.require(USER).cards == []

    def test_unreadable_event_fails_no_other(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail_for_one(given: Event) -> bool:
            if given.kind == "checkout.session.completed":
                raise AttributeError("jane@example.com is odd")
            return changes_records(given)

        subject = {**on_stripe(world, customer), "name": "Newest"}
        well = event(world, "customer.updated", subject)
        bad = event(world, "checkout.session.completed", {"customer": customer.stripe_id})
        for payload in (bad, well):
            StripeEvent.receive(payload)
        monkeypatch.setattr(apply, "changes_records", fail_for_one)

        world.stream()

        assert stored_event(well["id"]).state == "applied"
        failed = stored_event(bad["id"])
        assert (failed.state, failed.last_error) == ("pending", "AttributeError")

    def test_too_deeply_nested_payload_is_omitted(self, world: World, customer: Customer) -> None:
        subject: Json = {**on_stripe(world, customer), "name": "Deep"}
        text = json.dumps(event(world, "customer.updated", subject))
        payload = json.loads(text[:-1] + ', "deep": ' + "[" * 500 + "]" * 500 + "}")
        assert apply_payload(world, payload) == "applied"
        assert stored_event(payload["id"]).webhook_message is None
        assert StripeCustomer.require(USER).name == "Jane"

    def test_infinity_is_no_json(self, world: World) -> None:
        body = b'{"id": "evt_1", "created": 1e400}'
        headers = {"stripe-signature": sign(body, WEBHOOK_SECRET, world.time)}
        assert world.webhook(body, headers)["statusCode"] == 400
