"""Payloads that are signed and not what they seem: nothing of them lands where it must not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from local.stripe_double import sign
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.actions.events import apply
from stripe_integrations.config import API_VERSION
from stripe_integrations.models import Customer, Event
from tests.world import WEBHOOK_SECRET, World

USER = User("u-1")
EMAIL = "jane@example.com"

Json = dict[str, Any]


@pytest.fixture
def customer(world: World) -> Customer:
    customer = StripeCustomer.create(USER, EMAIL, name="Jane")
    world.deliver_and_apply()
    world.time += 60
    return customer


def event(world: World, kind: str, subject: Any, **changes: Any) -> Json:
    return {
        "id": f"evt_{kind.replace('.', '_')}",
        "object": "event",
        "api_version": API_VERSION,
        "created": int(world.time),
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": None,
        "type": kind,
        **changes,
    }


def on_stripe(world: World, customer: Customer) -> Json:
    return world.ask("GET", f"/v1/customers/{customer.stripe_id}")


def bring(world: World, payload: Json) -> str | None:
    """Deliver an event and run_apply_event for it; the state that it comes to."""
    StripeEvent.receive(payload)
    world.stream((f"EVENT#{payload['id']}", "EVENT"))
    return Event.find(payload["id"]).state


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


@pytest.mark.parametrize("name", NOT_WHAT_IT_SEEMS)
def test_a_payload_that_is_not_what_it_seems_leaves_a_record_that_can_be_read_and_synced(
    world: World, customer: Customer, name: str
) -> None:
    kind, subject = NOT_WHAT_IT_SEEMS[name](on_stripe(world, customer))

    assert bring(world, event(world, kind, subject)) in ("applied", "ignored")

    answer = world.get()
    assert answer["statusCode"] == 200
    assert answer["json"]["stripe_id"] == customer.stripe_id
    assert answer["json"]["name"] == "Jane"
    assert answer["json"]["cards"] == []
    assert answer["json"]["livemode"] is False
    assert world.sync()["statusCode"] == 200
    assert world.sync()["json"]["subscriptions"] == []


@pytest.mark.parametrize("account", ["acct_1", ["acct_1"], {"id": "acct_1"}, {"odd": 1}, 7])
def test_whatever_stands_for_a_connected_account_it_is_another_one(
    world: World, customer: Customer, account: object
) -> None:
    subject = {**on_stripe(world, customer), "name": "Theirs"}
    assert bring(world, event(world, "customer.updated", subject, account=account)) == "ignored"
    assert StripeCustomer.get(USER).name == "Jane"


@pytest.mark.parametrize("created", ["garbage", 0, -1, 1.5, None])
def test_an_event_that_says_not_when_it_was_asks_stripe(
    world: World, customer: Customer, created: object
) -> None:
    subject = {**on_stripe(world, customer), "name": "Old"}
    assert bring(world, event(world, "customer.updated", subject, created=created)) == "applied"
    assert StripeCustomer.get(USER).name == "Jane"


def test_a_card_that_belongs_to_nobody_is_not_attached(world: World, customer: Customer) -> None:
    attached = {**CARD, "customer": customer.stripe_id}
    bring(world, event(world, "payment_method.attached", attached))
    assert len(StripeCustomer.get(USER).cards) == 1
    world.time += 60
    nobodys = event(world, "payment_method.updated", {**CARD, "customer": None})
    bring(world, nobodys)
    # Stripe, which was asked, never had it.
    assert StripeCustomer.get(USER).cards == []


def test_an_event_that_cant_be_read_holds_up_no_other(
    world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = apply.changes_records

    def changes_records(given: Event) -> bool:
        if given.kind == "checkout.session.completed":
            raise AttributeError("jane@example.com is odd")
        return usual(given)

    subject = {**on_stripe(world, customer), "name": "Newest"}
    well = event(world, "customer.updated", subject)
    bad = event(world, "checkout.session.completed", {"customer": customer.stripe_id})
    for payload in (bad, well):
        StripeEvent.receive(payload)
    monkeypatch.setattr(apply, "changes_records", changes_records)

    world.stream()

    assert Event.find(well["id"]).state == "applied"
    assert (Event.find(bad["id"]).state, Event.find(bad["id"]).last_error) == (
        "pending",
        "AttributeError",
    )


def test_a_payload_that_is_nested_too_deeply_to_be_read_again_is_left_out(
    world: World, customer: Customer
) -> None:
    subject: Json = {**on_stripe(world, customer), "name": "Deep"}
    text = json.dumps(event(world, "customer.updated", subject))
    payload = json.loads(text[:-1] + ', "deep": ' + "[" * 500 + "]" * 500 + "}")
    assert bring(world, payload) == "applied"
    assert Event.find(payload["id"]).webhook_message is None
    assert StripeCustomer.get(USER).name == "Jane"


@pytest.mark.parametrize(
    "changes",
    [
        {"pending_webhooks": 10**40},
        {"account": "x" * 420_000},
        {"api_version": "x" * 420_000},
    ],
)
def test_what_is_beyond_all_bounds_is_stored_all_the_same(
    world: World, customer: Customer, changes: Json
) -> None:
    payload = event(world, "customer.updated", on_stripe(world, customer), **changes)
    assert bring(world, payload) in ("applied", "ignored")


@pytest.mark.parametrize("odd", [{"id": "evt_\ud800"}, {"type": "x" * 300_000}])
def test_what_can_be_no_key_is_malformed(world: World, odd: Json) -> None:
    payload = json.dumps(event(world, "customer.updated", {}) | odd)
    answer = signed(world, payload)
    assert answer["statusCode"] == 400
    assert world.items() == []


def test_infinity_is_no_json(world: World) -> None:
    assert signed(world, '{"id": "evt_1", "created": 1e400}')["statusCode"] == 400


def signed(world: World, text: str) -> Json:
    body = text.encode()
    return world.webhook(body, {"stripe-signature": sign(body, WEBHOOK_SECRET, world.time)})
