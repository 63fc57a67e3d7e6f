"""A Stripe account with many customers: what it is filled with, and what a request to it costs."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import Any, NamedTuple

import pytest

from local.stripe_double import StripeDouble
from local.stripe_double.filling import USER_KEY, fill
from local.stripe_double.subscriptions import STATUSES
from tests.local.conftest import API_KEY, START

NUMBER = 1000
AUTHORIZATION = {"Authorization": f"Bearer {API_KEY}"}

Json = dict[str, Any]


def filled(number: int = NUMBER, seed: int = 3) -> StripeDouble:
    double = StripeDouble(now=lambda: START, random=random.Random(7))
    double.webhooks.add_endpoint("http://localhost/webhook", "whsec_1")
    fill(double, number, seed=seed)
    return double


def request(double: StripeDouble, method: str, path: str, **params: Any) -> Json:
    response = double.request(method, path, params, AUTHORIZATION)
    assert response.status == 200, response.body
    return response.body


def pages(double: StripeDouble, path: str, **params: Any) -> Iterator[Json]:
    """The objects of all pages of a list."""
    cursor: Json = {}
    while True:
        listed = request(double, "GET", path, limit=100, **params, **cursor)
        yield from listed["data"]
        if not listed["has_more"]:
            return
        cursor = {"starting_after": listed["data"][-1]["id"]}


@pytest.fixture(scope="module")
def double() -> StripeDouble:
    """An account that no test changes."""
    return filled()


class TestFill:
    def test_seed_decides_everything(self, double: StripeDouble) -> None:
        def stored(other: StripeDouble) -> str:
            account = other.account
            return json.dumps(
                [
                    account.customers,
                    account.payment_methods,
                    account.payment_sources,
                    account.subscriptions,
                    account.subscription_items,
                    account.prices,
                ]
            )

        assert stored(filled()) == stored(double)
        assert stored(filled(seed=4)) != stored(double)

    def test_emits_nothing(self, double: StripeDouble) -> None:
        assert (double.account.events, double.webhooks.pending_count()) == ({}, 0)

    def test_account_may_have_customers(self) -> None:
        double = StripeDouble(now=lambda: START, random=random.Random(7))
        customer = request(double, "POST", "/v1/customers")["id"]
        fill(double, 10, seed=1)
        fill(double, 10, seed=2)
        listed = [found["id"] for found in pages(double, "/v1/customers")]
        assert (len(listed), listed[0]) == (21, customer)

    def test_shares(self, double: StripeDouble) -> None:
        account = double.account
        with_method = {
            customer for customer, methods in account.payment_methods_of.items() if methods
        }
        with_source = {customer for customer, sources in account.payment_sources.items() if sources}
        assert len(account.customers) == NUMBER
        assert len(with_method | with_source) == 0.3 * NUMBER
        assert len(account.subscriptions_of) == 0.2 * NUMBER
        assert with_source
        assert not with_method & with_source
        assert {found["status"] for found in account.subscriptions.values()} == set(STATUSES)
        assert any(len(found) > 1 for found in account.subscriptions_of.values())
        assert any(len(found) > 1 for found in account.payment_methods_of.values())

    def test_customers_are_spread_over_years_but_for_an_import(self, double: StripeDouble) -> None:
        times = Counter(customer["created"] for customer in double.account.customers.values())
        ((_, together),) = times.most_common(1)
        assert together >= 0.02 * NUMBER
        assert len(times) > 0.9 * NUMBER
        assert max(times) <= START
        assert START - min(times) > 5 * 365 * 24 * 3600

    def test_no_second_has_more_customers_than_an_import_creates(self) -> None:
        customers = filled(20_000).account.customers.values()
        times = Counter(customer["created"] for customer in customers)
        (_, most), (_, second), (_, third), *_ = times.most_common(4)
        assert 200 < most <= 260
        assert second + most >= 0.02 * 20_000
        assert third < 10

    def test_emails_and_metadata(self, double: StripeDouble) -> None:
        customers = double.account.customers.values()
        emails = Counter(customer["email"] for customer in customers)
        assert 0 < emails.pop(None) < 0.1 * NUMBER
        assert max(emails.values()) > 1
        users = [customer["metadata"].get(USER_KEY) for customer in customers]
        known = [user for user in users if user is not None]
        assert 0.8 * NUMBER < len(known) < NUMBER
        assert len(set(known)) == len(known)


class TestFilledAccount:
    def test_all_pages_have_every_object_once(self, double: StripeDouble) -> None:
        account = double.account
        for path, objects, params in (
            ("/v1/customers", account.customers, {"expand": ["data.sources"]}),
            ("/v1/subscriptions", account.subscriptions, {"status": "all"}),
        ):
            listed = list(pages(double, path, **params))
            assert len(listed) == len(objects)
            assert {found["id"] for found in listed} == set(objects)
            times = [found["created"] for found in listed]
            assert times == sorted(times, reverse=True)

    def test_windows_of_creation_cover_every_customer_once(self, double: StripeDouble) -> None:
        bounds = [0, START - 4 * 365 * 86400, START - 365 * 86400, START + 1]
        listed = [
            found["id"]
            for first, end in pairwise(bounds)
            for found in pages(double, "/v1/customers", created={"gte": first, "lt": end})
        ]
        assert len(listed) == NUMBER
        assert set(listed) == set(double.account.customers)

    def test_defaults_name_what_the_customer_has(self, double: StripeDouble) -> None:
        defaults = 0
        for customer in pages(double, "/v1/customers", expand=["data.sources"]):
            path = f"/v1/customers/{customer['id']}/payment_methods"
            owned = {method["id"] for method in pages(double, path)}
            assert {source["id"] for source in customer["sources"]["data"]} <= owned
            settings = customer["invoice_settings"]
            for default in (customer["default_source"], settings["default_payment_method"]):
                defaults += default is not None
                assert default is None or default in owned
        assert defaults > 0.2 * NUMBER

    def test_objects_are_changed_each_by_itself(self) -> None:
        double = filled(100)
        account = double.account
        changed = next(
            customer
            for customer, methods in account.payment_methods_of.items()
            if account.subscriptions_of.get(customer)
            and account.subscriptions[account.subscriptions_of[customer][-1]]["status"] == "active"
        )

        tables: list[dict[str, Json]] = [
            account.customers,
            account.payment_methods,
            account.subscriptions,
        ]
        others: list[Any] = [
            found
            for table in tables
            for found in table.values()
            if changed not in (found["id"], found.get("customer"))
        ]
        known = {found["id"] for found in others}
        items = account.subscription_items.items()
        others += [found for subscription, found in items if subscription in known]
        before = json.dumps(others)
        path = f"/v1/customers/{changed}"
        (subscription,) = account.subscriptions_of[changed][-1:]
        (method,) = account.payment_methods_of[changed][-1:]
        address = {"line1": "1 Test Lane"}
        request(double, "POST", path, metadata={"a": "b"}, invoice_settings={"footer": "Thanks"})
        request(double, "POST", path, preferred_locales=["de"], address=address)
        request(
            double,
            "POST",
            f"/v1/payment_methods/{method}",
            billing_details={"address": address},
            card={"exp_year": 2090},
            metadata={"a": "b"},
        )
        request(double, "POST", f"/v1/subscriptions/{subscription}", metadata={"a": "b"})
        double.subscriptions.advance_period(subscription)
        request(double, "DELETE", path)
        assert account.subscriptions[subscription]["status"] == "canceled"
        assert method not in account.payment_methods_of[changed]
        assert json.dumps(others) == before


class Place(NamedTuple):
    """An old customer with its second of creation, and an old subscription, of an account."""

    double: StripeDouble
    customer: str
    created: int
    subscription: str


@pytest.fixture(scope="module")
def places() -> list[Place]:
    """One in a small and one in a large account."""
    return [place_in(number) for number in (200, 4000)]


def place_in(number: int) -> Place:
    double = filled(number)
    for _ in range(number // 10):
        request(double, "POST", "/v1/customers")
    customers = list(pages(double, "/v1/customers"))
    bare = [customer for customer in customers if customer["currency"] is None][-21]
    subscription = list(pages(double, "/v1/subscriptions", status="all"))[-11]["id"]
    return Place(double, bare["id"], bare["created"], subscription)


def one(place: Place) -> str:
    return f"/v1/customers/{place.customer}"


CUSTOMERS, SUBSCRIPTIONS = "/v1/customers", "/v1/subscriptions"
SOURCES = ["data.sources"]
REQUESTS: dict[str, Callable[[Place], Json]] = {
    "first page of customers": lambda place: request(place.double, "GET", CUSTOMERS),
    "late page of customers": lambda place: request(
        place.double, "GET", CUSTOMERS, starting_after=place.customer, expand=SOURCES
    ),
    "page before a customer": lambda place: request(
        place.double, "GET", CUSTOMERS, ending_before=place.customer
    ),
    "window of customers": lambda place: request(
        place.double, "GET", CUSTOMERS, created={"gte": place.created, "lt": place.created + 1}
    ),
    "empty window of customers": lambda place: request(
        place.double, "GET", CUSTOMERS, created={"lt": 5}
    ),
    "customers by e-mail": lambda place: request(
        place.double, "GET", CUSTOMERS, email="nobody@example.com"
    ),
    "late page of subscriptions": lambda place: request(
        place.double, "GET", SUBSCRIPTIONS, status="all", starting_after=place.subscription
    ),
    "empty window of subscriptions": lambda place: request(
        place.double, "GET", SUBSCRIPTIONS, status="all", created={"lt": 5}
    ),
    "empty window of events": lambda place: request(
        place.double, "GET", "/v1/events", created={"gt": START + 5}
    ),
    "creation of a customer": lambda place: request(
        place.double, "POST", CUSTOMERS, invoice_prefix="ADA1"
    ),
    "change of a customer": lambda place: request(
        place.double, "POST", one(place), email="ada@example.com", invoice_prefix="ADA2"
    ),
    "deletion of a customer": lambda place: request(place.double, "DELETE", one(place)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_cost_of_request_does_not_grow_with_account(places: list[Place], name: str) -> None:
    small, large = (lines(partial(REQUESTS[name], place)) for place in places)
    assert small > 20
    assert large < 1.5 * small + 100


def lines(call: Callable[[], Any]) -> int:
    """How many lines of the double a call executes, each as often as it does."""
    executed = Counter[str]()

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        if "stripe_double" not in frame.f_code.co_filename:
            return None
        executed[kind] += 1
        return trace

    with _traced(trace):
        call()
    return executed["line"]


@contextmanager
def _traced(trace: Any) -> Iterator[None]:
    usual = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(usual)
