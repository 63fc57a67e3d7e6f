"""Every field: from Stripe's object to the record and to the HTTP response.

The objects have every field of the specification's tables; the responses are compared as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.models import Card, Subscription
from stripe_integrations.models.observation import Observation
from tests.world import EMAIL, START, USER, Json, World

NOW = Observation.of_event(int(START))

ADDRESS = {
    "city": "Ghent",
    "country": "BE",
    "line1": "Coupure 1",
    "line2": None,
    "postal_code": "9000",
    "state": None,
}
STRIPE_CUSTOMER: Json = {
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
# What the record names as Stripe's Card source does.
SAME_IN_SOURCE: Json = {
    "metadata": {"a": "b"},
    "name": "Jane",
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
}
CARD_SOURCE: Json = {
    **SAME_IN_SOURCE,
    "id": "card_1",
    "object": "card",
    "address_line1": "Coupure 1",
    "address_line1_check": "pass",
    "address_line2": "bis",
    "brand": "Visa",
}
PAYMENT_METHOD: Json = {
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
    **SAME_IN_SOURCE,
    "address_line_1": "Coupure 1",
    "address_line_1_check": "pass",
    "address_line_2": "bis",
    "livemode": False,
    "customer_id": "cus_1",
    "is_incomplete": False,
}
SOURCE_RESPONSE = {**CARD, "stripe_id": "card_1", "brand": "Visa", "is_default": True}
METHOD_RESPONSE = {**CARD, "stripe_id": "pm_1", "brand": "visa", "is_default": False}
SUBSCRIPTION: Json = {
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
    "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}},
    "billing_thresholds": {"amount_gte": 100, "reset_billing_cycle_anchor": None},
    "cancel_at": 2,
    "cancel_at_period_end": True,
    "canceled_at": 3,
    "cancellation_details": {"comment": None, "feedback": "unused", "reason": None},
    "collection_method": "send_invoice",
    "currency": "eur",
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
    "schedule": "sub_sched_1",
    "start_date": 7,
    "trial_start": 8,
    "trial_end": 9,
    "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
}


class Account:
    """A gateway to a Stripe that has just these objects."""

    def __init__(self, customer: Json, cards: list[Any], subscriptions: list[Any]) -> None:
        self.customer, self.cards, self.subscriptions = customer, cards, subscriptions

    def require_key(self) -> None:
        """It needs no key."""

    def create_customer(self, params: Any, idempotency_key: str) -> Json:
        return {"id": self.customer["id"], "object": "customer", "livemode": False}

    def retrieve_customer(self, stripe_id: str) -> Json:
        return self.customer

    def list_payment_methods(self, stripe_id: str, kind: str | None = None) -> list[Any]:
        return self.cards

    def list_subscriptions(self, stripe_id: str) -> list[Any]:
        return self.subscriptions


def get_body(world: World, customer: Json, cards: Any = (), subscriptions: Any = ()) -> Json:
    """What GET returns once these objects of Stripe are stored."""
    world.context.stripe = Account(customer, list(cards), list(subscriptions))  # type: ignore[assignment]
    StripeCustomer.sync(StripeCustomer.create(USER, EMAIL))
    body: Json = world.get()["json"]
    return body


def with_source(source: Json, *others: Json) -> Json:
    """The customer with sources."""
    return {**STRIPE_CUSTOMER, "sources": {"data": [source, *others], "has_more": False}}


def not_null(body: Json) -> set[str]:
    return {name for name, value in body.items() if value is not None}


def without(obj: Json, *names: str) -> Json:
    return {name: value for name, value in obj.items() if name not in names}


class TestCustomer:
    def test_response_has_every_field(self, world: World) -> None:
        body = get_body(world, STRIPE_CUSTOMER)
        expected = {
            **without(STRIPE_CUSTOMER, "id", "object"),
            "stripe_id": "cus_1",
            "user_id": "u-1",
            "is_active": True,
            "date_purged": None,
            "created_at": "2027-01-15T08:00:00+00:00",
            "modified_at": "2027-01-15T08:00:00+00:00",
            "is_incomplete": False,
            "cards": [],
            "subscriptions": [],
        }
        assert body == expected

    def test_null_replaces_value_unless_stripe_computes_it(self, world: World) -> None:
        get_body(world, STRIPE_CUSTOMER)
        nulls = dict.fromkeys(without(STRIPE_CUSTOMER, "id", "object", "livemode"))
        body = get_body(world, {**STRIPE_CUSTOMER, **nulls})
        assert {name: body[name] for name in nulls} == {
            **nulls,
            "currency": "jpy",
            "delinquent": True,
        }

    @pytest.mark.parametrize("missing", [False, True])
    def test_null_and_missing_keys_are_null(self, world: World, missing: bool) -> None:
        def bare(obj: Mapping[str, Any], *filled: str) -> Json:
            return {
                name: obj[name] if name in filled else None
                for name in obj
                if not missing or name in filled
            }

        body = get_body(
            world,
            bare(STRIPE_CUSTOMER, "id", "object", "livemode"),
            [bare(PAYMENT_METHOD, "id", "object")],
            [bare(SUBSCRIPTION, "id", "object")],
        )

        own = {"stripe_id", "user_id", "livemode", "is_active", "created_at", "modified_at"}
        of_child = {"stripe_id", "customer_id", "is_incomplete"}
        assert not_null(body) == {*own, "is_incomplete", "cards", "subscriptions"}
        assert not_null(body["cards"][0]) == {*of_child, "is_default"}
        assert not_null(body["subscriptions"][0]) == of_child


class TestCard:
    def test_response_has_every_field_of_source(self, world: World) -> None:
        """Sources other than cards are left out."""
        bank = {"id": "ba_1", "object": "bank_account", "last4": "6789"}
        assert get_body(world, with_source(bank, CARD_SOURCE))["cards"] == [SOURCE_RESPONSE]

    def test_response_has_every_field_of_payment_method(self, world: World) -> None:
        assert get_body(world, STRIPE_CUSTOMER, [PAYMENT_METHOD])["cards"] == [METHOD_RESPONSE]

    def test_neither_shape_erases_fields_of_the_other(self, world: World) -> None:
        wrapped = copy.deepcopy({**PAYMENT_METHOD, "id": "card_1", "metadata": {}})
        wrapped["card"] |= {"wallet": None, "checks": None}
        source = {**CARD_SOURCE, "name": None, "address_city": None, "metadata": {}}
        (card,) = get_body(world, with_source(source), [wrapped])["cards"]
        assert card == {**SOURCE_RESPONSE, "metadata": {}}

    def test_card_of_both_shapes_is_one_record(self) -> None:
        wrapped = {**PAYMENT_METHOD, "id": "card_1"}
        cards = Card.from_stripe("u-1", with_source(CARD_SOURCE), [PAYMENT_METHOD, wrapped], NOW)
        assert [card.stripe_id for card in cards] == ["pm_1", "card_1"]


class TestSubscription:
    def test_response_has_every_field(self, world: World) -> None:
        (subscription,) = get_body(world, STRIPE_CUSTOMER, (), [SUBSCRIPTION])["subscriptions"]
        assert subscription == {
            **without(SUBSCRIPTION, "id", "object"),
            "stripe_id": "sub_1",
            "customer_id": "cus_1",
            "items": SUBSCRIPTION["items"]["data"],
            "current_period_start": 20,
            "current_period_end": 40,
            "quantity": None,
            "is_incomplete": False,
        }

    @pytest.mark.parametrize("order", [1, -1])
    def test_period_of_mixed_intervals_is_as_stripe_filters_it(self, order: int) -> None:
        """https://docs.stripe.com/api/subscriptions/list: the latest start, the earliest end."""
        yearly = {"id": "si_1", "current_period_start": 100, "current_period_end": 900}
        monthly = {"id": "si_2", "current_period_start": 300, "current_period_end": 400}
        items = [yearly, monthly, {"id": "si_3"}][::order]
        mixed = {**SUBSCRIPTION, "items": {"data": items}}
        (record,) = Subscription.from_stripe("u-1", {"id": "cus_1"}, [mixed], NOW)
        assert (record.current_period_start, record.current_period_end) == (300, 400)

    def test_reads_shape_of_before_2025_03_31(self) -> None:
        old = {
            **without(SUBSCRIPTION, "discounts"),
            "items": {"data": [{"id": "si_1", "quantity": 3}, {"id": "si_2", "quantity": 4}]},
            "current_period_start": 100,
            "current_period_end": 200,
            "quantity": 5,
            "discount": {"id": "di_old"},
        }
        (record,) = Subscription.from_stripe("u-1", {"id": "cus_1"}, [old], NOW)
        assert (record.current_period_start, record.current_period_end) == (100, 200)
        assert (record.quantity, record.discounts) == (5, [{"id": "di_old"}])

    def test_single_item_has_the_quantity(self) -> None:
        one = {**SUBSCRIPTION, "items": {"data": [{"id": "si_1", "quantity": 3}]}}
        (record,) = Subscription.from_stripe("u-1", {"id": "cus_1"}, [one], NOW)
        assert (record.quantity, record.current_period_start) == (3, None)

    def test_expanded_object_is_stored_by_id(self) -> None:
        expanded = {**SUBSCRIPTION, "latest_invoice": {"id": "in_1", "object": "invoice"}}
        (record,) = Subscription.from_stripe("u-1", {"id": "cus_1"}, [expanded], NOW)
        assert record.latest_invoice == "in_1"
