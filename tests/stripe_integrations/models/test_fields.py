"""Every field of the spec's tables: Stripe's object, the record, the HTTP answer, and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.models import Card, Customer, Event, Subscription
from stripe_integrations.models.fields import fields_of
from stripe_integrations.models.observation import Observation
from tests.world import START, World
from tools.template import ROOT

NOW = Observation.of_event(int(START))

FIXTURES = ROOT.parent / "shared" / "spec" / "stripe-fixtures.json"

CUSTOMER_FIELDS = [
    "stripe_id",
    "livemode",
    "metadata",
    "name",
    "description",
    "email",
    "phone",
    "address",
    "balance",
    "currency",
    "delinquent",
    "default_source",
    "shipping",
    "tax_exempt",
    "preferred_locales",
    "invoice_prefix",
    "invoice_settings",
    "is_active",
    "date_purged",
    "created_at",
    "modified_at",
    "user_id",
]
CARD_FIELDS = [
    "stripe_id",
    "livemode",
    "metadata",
    "name",
    "address_line_1",
    "address_line_1_check",
    "address_line_2",
    "address_city",
    "address_state",
    "address_country",
    "address_zip",
    "address_zip_check",
    "brand",
    "country",
    "cvc_check",
    "dynamic_last4",
    "tokenization_method",
    "exp_month",
    "exp_year",
    "funding",
    "last4",
    "fingerprint",
    "customer_id",
]
SUBSCRIPTION_FIELDS = [
    "stripe_id",
    "livemode",
    "metadata",
    "status",
    "items",
    "application_fee_percent",
    "automatic_tax",
    "billing_cycle_anchor",
    "billing_thresholds",
    "cancel_at",
    "cancel_at_period_end",
    "canceled_at",
    "cancellation_details",
    "collection_method",
    "current_period_start",
    "current_period_end",
    "days_until_due",
    "default_payment_method",
    "default_source",
    "default_tax_rates",
    "discounts",
    "ended_at",
    "latest_invoice",
    "next_pending_invoice_item_invoice",
    "pause_collection",
    "pending_invoice_item_interval",
    "pending_setup_intent",
    "pending_update",
    "quantity",
    "start_date",
    "trial_start",
    "trial_end",
    "trial_settings",
    "customer_id",
]
EVENT_FIELDS = [
    "stripe_id",
    "kind",
    "livemode",
    "api_version",
    "created",
    "request",
    "pending_webhooks",
    "webhook_message",
    "valid",
    "customer_id",
]

ADDRESS = {
    "city": "Ghent",
    "country": "BE",
    "line1": "Coupure 1",
    "line2": None,
    "postal_code": "9000",
    "state": None,
}
STRIPE_CUSTOMER: dict[str, Any] = {
    "id": "cus_1",
    "object": "customer",
    "livemode": False,
    "metadata": {"plan": "pro"},
    "name": "Jane",
    "description": "first",
    "email": "jane@example.com",
    "phone": "+32",
    "address": ADDRESS,
    "balance": -250,
    "currency": "jpy",
    "delinquent": True,
    "default_source": "card_1",
    "shipping": {"name": "Jane", "phone": None, "address": ADDRESS},
    "tax_exempt": "reverse",
    "preferred_locales": ["nl", "fr"],
    "invoice_prefix": "ABC",
    "invoice_settings": {
        "default_payment_method": None,
        "custom_fields": [{"name": "a", "value": "b"}],
    },
}
CARD_SOURCE: dict[str, Any] = {
    "id": "card_1",
    "object": "card",
    "metadata": {"a": "b"},
    "name": "Jane",
    "address_line1": "Coupure 1",
    "address_line1_check": "pass",
    "address_line2": "bis",
    "address_city": "Ghent",
    "address_state": "OV",
    "address_country": "BE",
    "address_zip": "9000",
    "address_zip_check": "fail",
    "brand": "Visa",
    "country": "US",
    "cvc_check": "unchecked",
    "dynamic_last4": "1234",
    "tokenization_method": "apple_pay",
    "exp_month": 8,
    "exp_year": 2030,
    "funding": "credit",
    "last4": "4242",
    "fingerprint": "print",
}
PAYMENT_METHOD: dict[str, Any] = {
    "id": "pm_1",
    "object": "payment_method",
    "type": "card",
    "livemode": False,
    "metadata": {"a": "b"},
    "billing_details": {
        "name": "Jane",
        "address": {
            "line1": "Coupure 1",
            "line2": "bis",
            "city": "Ghent",
            "state": "OV",
            "country": "BE",
            "postal_code": "9000",
        },
    },
    "card": {
        "brand": "visa",
        "country": "US",
        "exp_month": 8,
        "exp_year": 2030,
        "funding": "credit",
        "last4": "4242",
        "fingerprint": "print",
        "checks": {
            "address_line1_check": "pass",
            "address_postal_code_check": "fail",
            "cvc_check": "unchecked",
        },
        "wallet": {"dynamic_last4": "1234", "type": "apple_pay"},
    },
}
CARD = {
    "metadata": {"a": "b"},
    "name": "Jane",
    "address_line_1": "Coupure 1",
    "address_line_1_check": "pass",
    "address_line_2": "bis",
    "address_city": "Ghent",
    "address_state": "OV",
    "address_country": "BE",
    "address_zip": "9000",
    "address_zip_check": "fail",
    "country": "US",
    "cvc_check": "unchecked",
    "dynamic_last4": "1234",
    "tokenization_method": "apple_pay",
    "exp_month": 8,
    "exp_year": 2030,
    "funding": "credit",
    "last4": "4242",
    "fingerprint": "print",
    "livemode": False,
    "customer_id": "cus_1",
}
SUBSCRIPTION: dict[str, Any] = {
    "id": "sub_1",
    "object": "subscription",
    "livemode": False,
    "metadata": {"a": "b"},
    "status": "active",
    "items": {
        "object": "list",
        "has_more": False,
        "data": [
            {"id": "si_1", "quantity": 3, "current_period_start": 20, "current_period_end": 50},
            {"id": "si_2", "quantity": 4, "current_period_start": 10, "current_period_end": 40},
        ],
    },
    "application_fee_percent": 2.35,
    "automatic_tax": {"enabled": False},
    "billing_cycle_anchor": 1,
    "billing_thresholds": {"amount_gte": 100, "reset_billing_cycle_anchor": None},
    "cancel_at": 2,
    "cancel_at_period_end": True,
    "canceled_at": 3,
    "cancellation_details": {"comment": None, "feedback": "unused", "reason": None},
    "collection_method": "send_invoice",
    "days_until_due": 30,
    "default_payment_method": "pm_1",
    "default_source": "card_1",
    "default_tax_rates": [{"id": "txr_1", "percentage": 21.0}],
    "discounts": ["di_1"],
    "ended_at": 4,
    "latest_invoice": "in_1",
    "next_pending_invoice_item_invoice": 5,
    "pause_collection": {"behavior": "void", "resumes_at": None},
    "pending_invoice_item_interval": {"interval": "month", "interval_count": 2},
    "pending_setup_intent": "seti_1",
    "pending_update": {"expires_at": 6},
    "start_date": 7,
    "trial_start": 8,
    "trial_end": 9,
    "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
}


class Account:
    """A gateway to a Stripe that has just these objects."""

    def __init__(
        self, customer: dict[str, Any], cards: list[Any], subscriptions: list[Any]
    ) -> None:
        self.customer, self.cards, self.subscriptions = customer, cards, subscriptions

    def create_customer(self, params: Any, idempotency_key: str) -> dict[str, Any]:
        return {"id": self.customer["id"], "object": "customer", "livemode": False}

    def retrieve_customer(self, stripe_id: str) -> dict[str, Any]:
        return self.customer

    def list_card_payment_methods(self, stripe_id: str) -> list[Any]:
        return self.cards

    def list_subscriptions(self, stripe_id: str) -> list[Any]:
        return self.subscriptions


def http_answer(
    world: World,
    customer: dict[str, Any],
    cards: list[Any] | None = None,
    subscriptions: list[Any] | None = None,
) -> dict[str, Any]:
    """What GET answers once these objects of Stripe were synchronised."""
    world.context.stripe = Account(customer, cards or [], subscriptions or [])  # type: ignore[assignment]
    StripeCustomer.sync(StripeCustomer.create(User("u-1"), "x@example.com"))
    answer: dict[str, Any] = world.get()["json"]
    return answer


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Customer, CUSTOMER_FIELDS),
        (Card, CARD_FIELDS),
        (Subscription, SUBSCRIPTION_FIELDS),
        (Event, EVENT_FIELDS),
    ],
)
def test_the_field_tables_have_every_field_of_the_spec(model: type, names: list[str]) -> None:
    assert set(names) <= set(fields_of(model))


def test_a_customers_fields_survive_the_round_trip(world: World) -> None:
    answer = http_answer(world, STRIPE_CUSTOMER)

    expected = {
        name: value for name, value in STRIPE_CUSTOMER.items() if name not in ("id", "object")
    }
    assert {name: answer[name] for name in expected} == expected
    assert answer["stripe_id"] == "cus_1"
    assert answer["user_id"] == "u-1"
    assert answer["is_active"] is True
    assert answer["date_purged"] is None
    assert answer["created_at"] == "2027-01-15T08:00:00+00:00"
    assert set(CUSTOMER_FIELDS) | {"cards", "subscriptions"} == set(answer)


def test_a_card_source_survives_the_round_trip(world: World) -> None:
    customer = {**STRIPE_CUSTOMER, "sources": {"data": [CARD_SOURCE], "has_more": False}}
    (card,) = http_answer(world, customer)["cards"]
    assert card == {**CARD, "stripe_id": "card_1", "brand": "Visa", "is_default": True}


def test_a_payment_method_survives_the_round_trip(world: World) -> None:
    (card,) = http_answer(world, STRIPE_CUSTOMER, [PAYMENT_METHOD])["cards"]
    assert card == {**CARD, "stripe_id": "pm_1", "brand": "visa", "is_default": False}


def test_neither_shape_of_a_card_nulls_what_only_the_other_has(world: World) -> None:
    wrapped = copy.deepcopy({**PAYMENT_METHOD, "id": "card_1", "metadata": {}})
    wrapped["card"]["wallet"] = None
    wrapped["card"]["checks"] = None
    source = {**CARD_SOURCE, "name": None, "address_city": None, "metadata": {}}
    customer = {**STRIPE_CUSTOMER, "sources": {"data": [source], "has_more": False}}

    (card,) = http_answer(world, customer, [wrapped])["cards"]

    expected = {**CARD, "stripe_id": "card_1", "brand": "Visa", "is_default": True, "metadata": {}}
    assert card == expected


def test_sources_that_are_no_cards_are_left_out(world: World) -> None:
    bank = {"id": "ba_1", "object": "bank_account", "last4": "6789"}
    customer = {**STRIPE_CUSTOMER, "sources": {"data": [bank, CARD_SOURCE], "has_more": False}}
    assert [card["stripe_id"] for card in http_answer(world, customer)["cards"]] == ["card_1"]


def test_a_subscription_survives_the_round_trip(world: World) -> None:
    (subscription,) = http_answer(world, STRIPE_CUSTOMER, None, [SUBSCRIPTION])["subscriptions"]
    expected = {
        **{name: value for name, value in SUBSCRIPTION.items() if name not in ("id", "object")},
        "stripe_id": "sub_1",
        "customer_id": "cus_1",
        "items": SUBSCRIPTION["items"]["data"],
        "current_period_start": 10,
        "current_period_end": 50,
        "quantity": None,
    }
    assert subscription == expected


def test_the_subscription_of_before_2025_03_31_has_its_period_on_itself() -> None:
    old = {
        **SUBSCRIPTION,
        "items": {"data": [{"id": "si_1", "quantity": 3}, {"id": "si_2", "quantity": 4}]},
        "current_period_start": 100,
        "current_period_end": 200,
        "quantity": 5,
        "discount": {"id": "di_old"},
    }
    del old["discounts"]
    (record,) = Subscription.from_stripe("u-1", {"id": "cus_1"}, [old], NOW)
    assert (record.current_period_start, record.current_period_end) == (100, 200)
    assert (record.quantity, record.discounts) == (5, [{"id": "di_old"}])


def test_a_single_item_tells_the_quantity() -> None:
    one = {**SUBSCRIPTION, "items": {"data": [{"id": "si_1", "quantity": 3}]}}
    (record,) = Subscription.from_stripe("u-1", {"id": "cus_1"}, [one], NOW)
    assert record.quantity == 3
    assert record.current_period_start is None


def test_an_expanded_object_is_kept_by_its_id() -> None:
    expanded = {**SUBSCRIPTION, "latest_invoice": {"id": "in_1", "object": "invoice"}}
    (record,) = Subscription.from_stripe("u-1", {"id": "cus_1"}, [expanded], NOW)
    assert record.latest_invoice == "in_1"


@pytest.mark.parametrize("missing", [False, True])
def test_nulls_and_missing_keys_are_null_in_the_answer(world: World, missing: bool) -> None:
    def bare(obj: Mapping[str, Any], *kept: str) -> dict[str, Any]:
        return {
            name: obj.get(name) if name in kept else None
            for name in obj
            if not missing or name in kept
        }

    answer = http_answer(
        world,
        bare(STRIPE_CUSTOMER, "id", "object", "livemode"),
        [bare(PAYMENT_METHOD, "id", "object")],
        [bare(SUBSCRIPTION, "id", "object")],
    )

    ours = {"stripe_id", "user_id", "livemode", "is_active", "created_at", "modified_at"}
    assert {name for name in CUSTOMER_FIELDS if answer[name] is not None} == ours
    (card,), (subscription,) = answer["cards"], answer["subscriptions"]
    assert {name for name in CARD_FIELDS if card[name] is not None} == {"stripe_id", "customer_id"}
    assert {name for name in SUBSCRIPTION_FIELDS if subscription[name] is not None} == {
        "stripe_id",
        "customer_id",
    }


def test_a_value_that_turns_null_is_null_from_then_on(world: World) -> None:
    http_answer(world, STRIPE_CUSTOMER, [PAYMENT_METHOD], [SUBSCRIPTION])
    nulls = {name: None for name in STRIPE_CUSTOMER if name not in ("id", "object", "livemode")}
    world.context.stripe.customer = {**STRIPE_CUSTOMER, **nulls}  # type: ignore[attr-defined]
    StripeCustomer.sync(StripeCustomer.get(User("u-1")))
    answer = world.get()["json"]
    kept = {"currency": "jpy", "delinquent": True}
    assert {name: answer[name] for name in nulls} == {**nulls, **kept}


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """Stripe's own published example objects, where this machine has them."""
    if not FIXTURES.is_file():
        pytest.skip("NOT RUN: Stripe's published example objects are not on this machine")
    resources: dict[str, Any] = json.loads(FIXTURES.read_text())["resources"]
    return resources


def leaves(value: Any) -> Iterator[Any]:
    """The values at the ends of a nested value."""
    if isinstance(value, dict):
        for nested in value.values():
            yield from leaves(nested)
    elif isinstance(value, list):
        for nested in value:
            yield from leaves(nested)
    else:
        yield value


def test_the_shapes_that_stripe_publishes_survive_the_round_trip(
    world: World, published: dict[str, Any]
) -> None:
    customer = {
        **published["customer"],
        "sources": {"data": [published["card"]], "has_more": False},
    }
    method, subscription = published["payment_method"], published["subscription"]

    answer = http_answer(world, customer, [method], [subscription])

    for name, field in fields_of(Customer).items():
        if "customer" in field.paths and not field.private:
            assert answer[name] == published["customer"][field.paths["customer"]]
    for shape, obj in (("card", published["card"]), ("payment_method", method)):
        (card,) = [card for card in answer["cards"] if card["stripe_id"] == obj["id"]]
        for name, field in fields_of(Card).items():
            if shape in field.paths:
                expected: Any = obj
                for key in field.paths[shape].split("."):
                    expected = expected[key]
                assert card[name] == expected, name
    (answered,) = answer["subscriptions"]
    assert answered["items"] == subscription["items"]["data"]
    assert answered["current_period_end"] == subscription["items"]["data"][0]["current_period_end"]
    assert answered["quantity"] == subscription["items"]["data"][0]["quantity"]
    for name in set(SUBSCRIPTION_FIELDS) & set(subscription) - {"items", "quantity"}:
        assert answered[name] == subscription[name], name
    assert all(
        leaf is None or isinstance(leaf, str | int | float | bool) for leaf in leaves(answer)
    )


def test_cards_keep_their_order_of_arrival_and_stand_once() -> None:
    customer = {"id": "cus_1", "livemode": False, "sources": {"data": [CARD_SOURCE]}}
    wrapped = {**PAYMENT_METHOD, "id": "card_1"}
    cards = Card.from_stripe("u-1", customer, [PAYMENT_METHOD, wrapped], NOW)
    assert [card.stripe_id for card in cards] == ["pm_1", "card_1"]
