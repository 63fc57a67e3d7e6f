"""The Stripe double's responses, against those of Stripe's own stripe-mock."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from local.stripe_double import StripeDouble

HEADERS = {"Authorization": "Bearer sk_test_double"}
DEPRECATED = {"plan", "trial_period_days"}
"""Stripe sends these still, and hides them from its description."""
NEWER = {"feedback_option"}
"""In Stripe's description, and not in the example objects that Stripe publishes beside it."""


@pytest.fixture(scope="module")
def double() -> StripeDouble:
    """A double with a Source, and a customer with a card, a subscription and an entitlement."""
    double = StripeDouble(random=random.Random(1))
    customer = _request(double, "POST", "/v1/customers", email="jane@example.com")["id"]
    method = _request(double, "POST", "/v1/payment_methods/pm_card_visa/attach", customer=customer)
    _request(
        double,
        "POST",
        f"/v1/customers/{customer}",
        invoice_settings={"default_payment_method": method["id"]},
    )
    product = _request(double, "POST", "/v1/products", name="Gold")["id"]
    price = _request(
        double,
        "POST",
        "/v1/prices",
        product=product,
        currency="eur",
        unit_amount="1500",
        recurring={"interval": "month"},
    )
    _request(
        double, "POST", "/v1/subscriptions", customer=customer, items={"0": {"price": price["id"]}}
    )
    _request(double, "POST", "/v1/sources", type="ach_credit_transfer")
    double.entitlements.grant(customer, "seats")
    return double


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/v1/customers", {}),
        ("/v1/customers/{customer}", {}),
        ("/v1/customers/{customer}/payment_methods", {"type": "card"}),
        ("/v1/subscriptions", {"status": "all"}),
        ("/v1/subscription_items", {"subscription": "{subscription}"}),
        ("/v1/prices", {}),
        ("/v1/sources/{source}", {}),
        ("/v1/entitlements/active_entitlements", {"customer": "{customer}"}),
    ],
)
def test_response_has_same_keys(
    double: StripeDouble, stripe_mock_url: str, path: str, params: dict[str, str]
) -> None:
    known = {
        "customer": next(iter(double.account.customers)),
        "source": next(iter(double.account.sources)),
        "subscription": next(iter(double.account.subscriptions)),
    }
    path = path.format(**known)
    params = {name: value.format(**known) for name, value in params.items()}
    ours = _request(double, "GET", path, **params)
    request = Request(f"{stripe_mock_url}{path}?{urlencode(params)}", headers=HEADERS)
    with urlopen(request, timeout=10) as response:
        theirs = json.load(response)
    assert set(_differences(ours, theirs)) == set()


def _differences(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Keys that only one of the two has, wherever both have an object."""
    if isinstance(ours, list) and isinstance(theirs, list):
        if ours and theirs:
            yield from _differences(ours[0], theirs[0], f"{place}[]")
    elif isinstance(ours, dict) and isinstance(theirs, dict) and theirs and "metadata" not in place:
        for key in ours.keys() - theirs.keys() - DEPRECATED:
            yield f"only the double has {place}.{key}"
        for key in theirs.keys() - ours.keys() - NEWER:
            yield f"the double lacks {place}.{key}"
        for key in ours.keys() & theirs.keys():
            yield from _differences(ours[key], theirs[key], f"{place}.{key}")


def _request(double: StripeDouble, method: str, path: str, **params: Any) -> Any:
    response = double.request(method, path, params, HEADERS)
    assert response.status == 200, response.body
    return response.body
