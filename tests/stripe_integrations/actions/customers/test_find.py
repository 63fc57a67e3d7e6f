"""Finding customers by their id on Stripe, and by when Stripe created them."""

from __future__ import annotations

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models import Customer
from tests.world import EMAIL, USER, World


class TestGetByStripeId:
    def test_reads_a_customer_with_its_children(self, world: World, customer: Customer) -> None:
        subscription = world.subscribe(customer.stripe_id)
        world.deliver_and_apply()
        found = StripeCustomer.get_by_stripe_id(customer.stripe_id)
        assert found
        assert found.user_id == customer.user_id
        assert [each.stripe_id for each in found.subscriptions] == [subscription]

    def test_reads_one_that_is_soft_deleted(self, world: World, customer: Customer) -> None:
        StripeCustomer.soft_delete(customer)
        found = StripeCustomer.get_by_stripe_id(customer.stripe_id)
        assert found
        assert not found.is_active

    def test_reads_an_unassigned_one(self, world: World, customer: Customer) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        StripeCustomer.release(USER)
        found = StripeCustomer.get_by_stripe_id(customer.stripe_id)
        assert found
        assert found.user_id is None

    def test_returns_none_for_an_unknown_or_erased_one(
        self, world: World, customer: Customer
    ) -> None:
        assert StripeCustomer.get_by_stripe_id("cus_none") is None
        StripeCustomer.erase(USER)
        assert StripeCustomer.get_by_stripe_id(customer.stripe_id) is None

    def test_returns_none_for_the_id_of_a_payment_method(
        self, world: World, customer: Customer
    ) -> None:
        path = "/v1/payment_methods/pm_card_visa/attach"
        method = world.request("POST", path, {"customer": customer.stripe_id})["id"]
        world.deliver_and_apply()
        assert StripeCustomer.get_by_stripe_id(method) is None

    def test_refuses_an_id_that_is_no_string(self, world: World) -> None:
        with pytest.raises(InvalidFieldError):
            StripeCustomer.get_by_stripe_id(None)  # type: ignore[arg-type]


def test_created_to_leaves_out_later_customers(world: World, customer: Customer) -> None:
    world.time += 10
    newer = StripeCustomer.create(User("u-2"), EMAIL)
    assert newer.created
    assert customer.created
    bounds = {
        newer.created: [newer.stripe_id, customer.stripe_id],
        newer.created - 1: [customer.stripe_id],
        customer.created - 1: [],
    }
    for created_to, expected in bounds.items():
        found = StripeCustomer.find(created_to=created_to)
        assert [each.stripe_id for each in found] == expected


def test_no_state_finds_active_and_unassigned_customers(world: World, customer: Customer) -> None:
    world.configure(unassigned_customers=UnassignedCustomers.STORE)
    other = StripeCustomer.create(User("u-2"), EMAIL)
    StripeCustomer.release(User("u-2"))
    found = {each.stripe_id: each.user_id for each in StripeCustomer.find(None)}
    assert found == {customer.stripe_id: customer.user_id, other.stripe_id: None}
