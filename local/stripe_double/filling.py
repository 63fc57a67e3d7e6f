"""Fill an account with customers as a business has them after some years, at once and silently."""

from __future__ import annotations

import gc
import random as random_module
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .account import Account, copy_json
from .double import StripeDouble
from .errors import Json
from .periods import after

USER_KEY = "user_id"
"""The metadata key under which the customers have the application's user id."""

_DAY = 24 * 3600
_YEAR = 365 * _DAY
_SUBSCRIBED, _WITH_CARD = 0.2, 0.3
"""Shares of the customers; those with a subscription are among those with a card."""
_IMPORTED = 0.02
"""Share of the customers that were created as fast as Stripe takes them."""
_IMPORTED_A_SECOND = 250
"""More than a page, as in an account with a higher limit than the usual 100 calls a second."""
_STATUSES = {
    "active": 60,
    "canceled": 20,
    "incomplete_expired": 5,
    "past_due": 5,
    "trialing": 5,
    "paused": 2,
    "unpaid": 2,
    "incomplete": 1,
}
"""How many of a hundred subscriptions have a status."""
_ENDED = ("canceled", "incomplete_expired")
_TOKENS = ("tok_visa", "tok_mastercard", "tok_amex")


def fill(double: StripeDouble, customers: int, *, seed: int = 0, years: float = 6.0) -> None:
    """Add customers with their cards and subscriptions, without an event or a delivery.

    Exactly a fifth have a subscription and three tenths a card: PaymentMethods, of which most are
    defaults, and some Card sources. Of a hundred, two have no e-mail, one has that of another, ten
    have no metadata, and two were imported, up to 250 in one second; the others are spread over
    the years. Subscriptions have all statuses, and some customers an older one as well.

    Parameters
    ----------
    double
        The account; it may have customers already.
    customers
        How many to add. A million take about half a minute and 3.6 GB.
    seed
        Decides every id and every value, together with the clock.
    years
        Before now, in which the customers were created.
    """
    with _without_garbage_collection():
        _Filling(double, seed).add(customers, int(years * _YEAR))


class _Filling:
    def __init__(self, double: StripeDouble, seed: int) -> None:
        self._account = double.account
        self._now = double.account.now()
        self._random = random_module.Random(seed)
        self._templates = _Templates(double, seed)
        self._subscriptions: list[tuple[Json, list[Json]]] = []

    def add(self, number: int, seconds: int) -> None:
        account = self._account
        account.products.update(self._templates.products)
        account.prices.update(self._templates.prices)
        times = self._times(number, seconds)
        for place, created, kind in zip(range(number), times, self._kinds(number), strict=True):
            customer = self._customer(place, created)
            account.add_customer(customer)
            if kind >= 1:
                self._add_cards(customer)
            if kind == 2:
                self._subscribe(customer)
        self._subscriptions.sort(key=lambda entry: int(entry[0]["created"]))
        for subscription, items in self._subscriptions:
            account.add_subscription(subscription, items)

    def _times(self, number: int, seconds: int) -> list[int]:
        imported = int(number * _IMPORTED)
        draw, first = self._random.random, self._now - seconds
        times = [first + int(draw() * seconds) for _ in range(number - imported)]
        began = first + seconds // 3
        times += [began + place // _IMPORTED_A_SECOND for place in range(imported)]
        return sorted(times)

    def _kinds(self, number: int) -> list[int]:
        """For each customer: 2 with a subscription, 1 with a card only, 0 without either."""
        subscribed, with_card = int(number * _SUBSCRIBED), int(number * _WITH_CARD)
        kinds = [2] * subscribed + [1] * (with_card - subscribed) + [0] * (number - with_card)
        self._random.shuffle(kinds)
        return kinds

    def _customer(self, place: int, created: int) -> Json:
        account, drawn = self._account, self._random.random()
        customer = self._templates.customer()
        customer["id"] = account.new_id("cus", self._random)
        customer["created"] = created
        customer["invoice_prefix"] = account.new_invoice_prefix(self._random)
        customer["name"] = f"Customer {place}"
        if drawn >= 0.02:
            customer["email"] = f"customer{place - (drawn < 0.03)}@example.com"
        if drawn < 0.9:
            customer["metadata"] = {USER_KEY: f"user-{place}", "plan": "gold"}
        return customer

    def _add_cards(self, customer: Json) -> None:
        account, drawn = self._account, self._random.random()
        if drawn < 0.05:
            source = self._templates.source()
            source["id"], source["customer"] = account.new_id("card", self._random), customer["id"]
            account.payment_sources[customer["id"]] = {source["id"]: source}
            account.payment_source_owner[source["id"]] = customer["id"]
            account.card_created[source["id"]] = self._later(customer["created"])
            customer["default_source"] = source["id"]
            return
        methods = [self._method(customer) for _ in range(2 if drawn > 0.9 else 1)]
        methods.sort(key=lambda method: int(method["created"]))
        account.payment_methods_of[customer["id"]] = [method["id"] for method in methods]
        for method in methods:
            account.payment_methods[method["id"]] = method
            account.used_payment_methods.add(method["id"])
        if drawn < 0.85:
            customer["invoice_settings"]["default_payment_method"] = methods[-1]["id"]

    def _method(self, customer: Json) -> Json:
        method = self._templates.method(self._random)
        method["id"] = self._account.new_id("pm", self._random)
        method["customer"] = customer["id"]
        method["created"] = self._later(customer["created"])
        return method

    def _subscribe(self, customer: Json) -> None:
        (status,) = self._random.choices(list(_STATUSES), list(_STATUSES.values()))
        created = self._later(customer["created"])
        if self._random.random() < 0.1:
            self._add_subscription(customer, "canceled", customer["created"])
        self._add_subscription(customer, status, created)
        customer["currency"] = self._templates.currency
        customer["delinquent"] = status in ("past_due", "unpaid")

    def _add_subscription(self, customer: Json, status: str, created: int) -> None:
        subscription, item = self._templates.subscription(self._random)
        subscription["id"] = item["subscription"] = self._account.new_id("sub", self._random)
        subscription["customer"] = customer["id"]
        subscription["status"] = status
        for field in ("created", "start_date", "billing_cycle_anchor"):
            subscription[field] = created
        start = max(created, self._now - int(self._random.random() * 28 * _DAY))
        if status in _ENDED:
            start = created
            subscription["ended_at"] = self._later(created)
        if status == "canceled":
            subscription["canceled_at"] = subscription["ended_at"]
        if status == "trialing":
            subscription["trial_start"] = start
            subscription["trial_end"] = after(start, "month", 1)
        methods = self._account.payment_methods_of.get(customer["id"])
        if methods and self._random.random() < 0.2:
            subscription["default_payment_method"] = methods[0]
        item["id"] = self._account.new_id("si", self._random)
        item["created"] = created
        item["current_period_start"] = start
        item["current_period_end"] = after(start, "month", 1)
        if status == "active" and self._random.random() < 0.05:
            subscription["cancel_at_period_end"] = True
            subscription["cancel_at"] = item["current_period_end"]
            subscription["canceled_at"] = start
            subscription["cancellation_details"]["reason"] = "cancellation_requested"
        self._subscriptions.append((subscription, [item]))

    def _later(self, created: int) -> int:
        """A time between one and now."""
        return created + int(self._random.random() * (self._now - created))


class _Templates:
    """Objects as the API of another double has created them, to be copied.

    What no request changes in place is shared by the copies: they would take twice the memory.
    """

    def __init__(self, double: StripeDouble, seed: int) -> None:
        account = double.account
        self._other = StripeDouble(
            account.clock,
            random_module.Random(seed),
            account.livemode,
            account.api_version,
        )
        made: Account = self._other.account
        bare = self._post("/v1/customers")["id"]
        self._customer = made.customers[bare]
        with_source = self._post("/v1/customers", source="tok_visa")["id"]
        (self._source,) = made.payment_sources[with_source].values()
        self._methods = [self._new_method(token) for token in _TOKENS]
        self._subscriptions = [self._new_subscription(amount) for amount in (500, 1500, 4900)]
        self.currency: str = self._subscriptions[0][0]["currency"]
        self.products, self.prices = made.products, made.prices

    def customer(self) -> Json:
        """A customer without anything."""
        return _copy(self._customer)

    def source(self) -> Json:
        """A Card source."""
        return _copy(self._source)

    def method(self, random: random_module.Random) -> Json:
        """A PaymentMethod of a card of some brand."""
        return _copy(random.choice(self._methods), "networks", "three_d_secure_usage")

    def subscription(self, random: random_module.Random) -> tuple[Json, Json]:
        """An active subscription to some price, and its item."""
        subscription, item = random.choice(self._subscriptions)
        return _copy(subscription), _copy(item, "plan", "price")

    def _new_method(self, token: str) -> Json:
        method = self._post("/v1/payment_methods", type="card", card={"token": token})["id"]
        return self._other.account.payment_methods[method]

    def _new_subscription(self, amount: int) -> tuple[Json, Json]:
        account = self._other.account
        customer = self._post("/v1/customers", source="tok_visa")["id"]
        price = self._post(
            "/v1/prices",
            currency="usd",
            unit_amount=amount,
            recurring={"interval": "month"},
            product_data={"name": f"Plan {amount}"},
        )["id"]
        subscription = self._post("/v1/subscriptions", customer=customer, items=[{"price": price}])
        (item,) = account.subscription_items[subscription["id"]]
        stored = account.subscriptions[subscription["id"]]
        return {**stored, "latest_invoice": None}, item

    def _post(self, path: str, **params: Any) -> Json:
        mode = "live" if self._other.account.livemode else "test"
        key = {"Authorization": f"Bearer sk_{mode}_filling"}
        return self._other.request("POST", path, params, key).body


def _copy(template: Json, *shared: str) -> Json:
    """Copy a template, but not the objects under some keys."""
    copy: Json = {}
    for key, value in template.items():
        if isinstance(value, dict) and key not in shared:
            copy[key] = _copy(value, *shared)
        else:
            copy[key] = value if key in shared else copy_json(value)
    return copy


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Look for cycles among the new objects once, at the end, and not at each quarter more."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.collect()
            gc.enable()
