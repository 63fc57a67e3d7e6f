"""What happens to customers on Stripe, by chance, and what their records must show then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from local.stripe_double import StripeDouble

Json = dict[str, Any]

CUSTOMER_FIELDS = (
    "address",
    "balance",
    "currency",
    "default_source",
    "delinquent",
    "description",
    "email",
    "invoice_prefix",
    "invoice_settings",
    "metadata",
    "name",
    "phone",
    "preferred_locales",
    "shipping",
    "tax_exempt",
)
SUBSCRIPTION_FIELDS = (
    "cancel_at",
    "cancel_at_period_end",
    "canceled_at",
    "cancellation_details",
    "collection_method",
    "default_payment_method",
    "ended_at",
    "latest_invoice",
    "metadata",
    "start_date",
    "status",
)
KEPT_AS_JSON = {
    "address",
    "cancellation_details",
    "invoice_settings",
    "items",
    "metadata",
    "preferred_locales",
    "shipping",
}
TOKENS = ("visa", "mastercard", "amex", "visa_debit")


class StripeHistory:
    """Changes customers as the dashboard, a checkout page and the passing of time do.

    Parameters
    ----------
    double : StripeDouble
        Where they are changed.
    api_key : str
        A key of that account.
    random : Random
        Decides what happens.
    """

    def __init__(self, double: StripeDouble, api_key: str, random: Random) -> None:
        self._double = double
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._random = random
        self._price = ""
        self._kinds: tuple[Callable[[str], object], ...] = (
            self._rename,
            self._rename,
            self._tag,
            self._attach,
            self._renew_card,
            self._choose_default,
            self._detach,
            self._add_source,
            self._remove_source,
            self._subscribe,
            self._change_quantity,
            self._schedule_end,
            self._miss_or_make_a_payment,
            self._renew_subscription,
            self._cancel,
        )

    def change(self, customer: str) -> None:
        """Let one thing happen to a customer; now and then nothing comes of it."""
        self._random.choice(self._kinds)(customer)

    def delete(self, customer: str) -> None:
        """Delete a customer."""
        self._request("DELETE", f"/v1/customers/{customer}")

    def has(self, customer: str) -> Json | None:
        """What Stripe has of a customer; None where it is deleted."""
        found = self._request("GET", f"/v1/customers/{customer}")
        if found.get("deleted"):
            return None
        return {
            "customer": {name: found[name] for name in CUSTOMER_FIELDS},
            "cards": {card["id"]: card_on_stripe(card) for card in self._cards(customer)},
            "subscriptions": {
                subscription["id"]: {
                    **{name: subscription[name] for name in SUBSCRIPTION_FIELDS},
                    "items": subscription["items"]["data"],
                }
                for subscription in self._subscriptions(customer)
            },
        }

    # ---- what can happen

    def _rename(self, customer: str) -> None:
        name = f"Name {self._random.randrange(1_000_000)}"
        self._update(customer, {"name": name, "phone": f"+1555{self._random.randrange(10_000)}"})

    def _tag(self, customer: str) -> None:
        key = f"key{self._random.randrange(3)}"
        value = self._random.choice(("", f"value {self._random.randrange(1000)}"))
        self._update(customer, {"metadata": {key: value}})

    def _attach(self, customer: str) -> None:
        token = self._random.choice(TOKENS)
        self._request("POST", f"/v1/payment_methods/pm_card_{token}/attach", {"customer": customer})

    def _renew_card(self, customer: str) -> None:
        if card := self._any(self._methods(customer)):
            expiry = {"exp_month": self._random.randrange(1, 13), "exp_year": 2040}
            self._request("POST", f"/v1/payment_methods/{card['id']}", {"card": expiry})

    def _choose_default(self, customer: str) -> None:
        if card := self._any(self._cards(customer)):
            settings = {"default_payment_method": card["id"]}
            self._update(customer, {"invoice_settings": settings})

    def _detach(self, customer: str) -> None:
        if card := self._any(self._methods(customer)):
            self._request("POST", f"/v1/payment_methods/{card['id']}/detach")

    def _add_source(self, customer: str) -> None:
        token = f"tok_{self._random.choice(TOKENS)}"
        self._request("POST", f"/v1/customers/{customer}/sources", {"source": token})

    def _remove_source(self, customer: str) -> None:
        sources = [card for card in self._cards(customer) if card["id"].startswith("card_")]
        if card := self._any(sources):
            self._request("DELETE", f"/v1/customers/{customer}/sources/{card['id']}")

    def _subscribe(self, customer: str) -> None:
        card = self._any(self._cards(customer))
        if card and len(self._running(customer)) < 3:
            given = {
                "customer": customer,
                "items": [{"price": self._a_price(), "quantity": 1}],
                "default_payment_method": card["id"],
            }
            self._request("POST", "/v1/subscriptions", given)

    def _change_quantity(self, customer: str) -> None:
        if subscription := self._any(self._running(customer)):
            item = {
                "id": subscription["items"]["data"][0]["id"],
                "quantity": self._random.randrange(1, 100),
            }
            self._request("POST", f"/v1/subscriptions/{subscription['id']}", {"items": [item]})

    def _schedule_end(self, customer: str) -> None:
        if subscription := self._any(self._running(customer)):
            given = {"cancel_at_period_end": self._random.random() < 0.5}
            self._request("POST", f"/v1/subscriptions/{subscription['id']}", given)

    def _miss_or_make_a_payment(self, customer: str) -> None:
        if subscription := self._any(self._running(customer)):
            status = self._random.choice(("past_due", "active"))
            self._double.subscriptions.set_status(subscription["id"], status)

    def _renew_subscription(self, customer: str) -> None:
        if subscription := self._any(self._running(customer)):
            self._double.subscriptions.advance_period(subscription["id"])

    def _cancel(self, customer: str) -> None:
        if subscription := self._any(self._running(customer)):
            self._request("DELETE", f"/v1/subscriptions/{subscription['id']}")

    # ---- Stripe

    def _update(self, customer: str, given: Json) -> None:
        self._request("POST", f"/v1/customers/{customer}", given)

    def _cards(self, customer: str) -> list[Json]:
        listed = self._request("GET", f"/v1/customers/{customer}/payment_methods", {"limit": 100})
        cards: list[Json] = listed["data"]
        return cards

    def _methods(self, customer: str) -> list[Json]:
        return [card for card in self._cards(customer) if card["id"].startswith("pm_")]

    def _subscriptions(self, customer: str) -> list[Json]:
        given = {"customer": customer, "status": "all", "limit": 100}
        subscriptions: list[Json] = self._request("GET", "/v1/subscriptions", given)["data"]
        return subscriptions

    def _running(self, customer: str) -> list[Json]:
        ended = ("canceled", "incomplete", "incomplete_expired")
        return [s for s in self._subscriptions(customer) if s["status"] not in ended]

    def _a_price(self) -> str:
        if not self._price:
            given = {
                "currency": "eur",
                "unit_amount": 900,
                "recurring": {"interval": "month"},
                "product_data": {"name": "Membership"},
            }
            self._price = self._request("POST", "/v1/prices", given)["id"]
        return self._price

    def _any(self, found: list[Json]) -> Json | None:
        return self._random.choice(found) if found else None

    def _request(self, method: str, path: str, given: Json | None = None) -> Json:
        response = self._double.request(method, path, given, self._headers)
        assert response.status == 200, (method, path, given, response.body)
        body: Json = response.body
        return body


def shown(items: Iterable[Mapping[str, Any]], customer: str) -> Json | None:
    """What the table's items show of a Stripe customer; None where its record is soft-deleted.

    Parameters
    ----------
    items : iterable of mapping
        What the table holds, as plain values.
    customer : str
        Stripe's id.
    """
    (record,) = [item for item in items if item["sk"] == f"CUSTOMER#{customer}"]
    if not record["is_active"]:
        return None
    children = [
        item
        for item in items
        if item["sk"].startswith(f"CUSTOMER#{customer}#") and "removed_at" not in item
    ]
    return {
        "customer": {name: plain(record, name) for name in CUSTOMER_FIELDS},
        "cards": {
            card["stripe_id"]: {name: plain(card, name) for name in CARD_FIELDS}
            for card in children
            if card["record_type"] == "Card"
        },
        "subscriptions": {
            subscription["stripe_id"]: {
                name: plain(subscription, name) for name in (*SUBSCRIPTION_FIELDS, "items")
            }
            for subscription in children
            if subscription["record_type"] == "Subscription"
        },
    }


CARD_FIELDS = ("country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "metadata")


def card_on_stripe(method: Json) -> Json:
    """What is compared of a card: a PaymentMethod has most of it one level down."""
    return {
        name: method["metadata"] if name == "metadata" else method["card"][name]
        for name in CARD_FIELDS
    }


def plain(item: Mapping[str, Any], name: str) -> Any:
    """A field as Stripe would show it: DynamoDB has no place for null, nested ones are text."""
    value = item.get(name)
    return json.loads(value) if name in KEPT_AS_JSON and value is not None else value
