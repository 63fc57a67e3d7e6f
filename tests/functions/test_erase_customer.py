"""erase_customer, invoked by an operator or by a backend."""

from __future__ import annotations

from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.errors import InvalidFieldError
from tests.world import EMAIL, USER, World


def test_erases_user(world: World) -> None:
    stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
    assert world.erase({"user_id": "u-1"}) == {"customer_ids": [stripe_id], "refused": []}
    assert StripeCustomer.get(USER) is None
    assert world.erase({"user_id": "u-1"}) == {"customer_ids": [], "refused": []}


def test_erases_stripe_customer_on_stripe_too(world: World) -> None:
    stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
    response = world.erase({"stripe_id": stripe_id, "delete_on_stripe": True})
    assert response == {"customer_ids": [stripe_id], "refused": []}
    assert world.stripe_customers() == []


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"user_id": ""},
        {"user_id": ["u-1"]},
        {"user_id": None},
        {"user_id": "u-1", "stripe_id": "cus_1"},
        {"user_id": "u-1", "delete_on_stripe": "yes"},
        {"stripe_id": "u-1"},
    ],
)
def test_refuses_anything_else(world: World, event: dict[str, Any]) -> None:
    StripeCustomer.create(USER, EMAIL)
    before = world.images()
    with pytest.raises(InvalidFieldError):
        world.erase(event)
    assert world.images() == before
