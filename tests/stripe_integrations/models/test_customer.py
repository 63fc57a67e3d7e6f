"""The records of one user, as one query reads them."""

from __future__ import annotations

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.models import Customer, UserRecords
from stripe_integrations.models.table import Record
from tests.world import USER, World


def delete_item(world: World, customer: Customer) -> None:
    Record.connection().delete_item(world.settings.table_name, customer.pk, customer.sk)


class TestUserRecords:
    def test_query_is_repeated_when_it_misses_the_customer(
        self, world: World, customer: Customer
    ) -> None:
        delete_item(world, customer)
        with world.counting() as counts:
            assert StripeCustomer.get(USER) is None
        assert counts.operations == ["Query"] * 3

    def test_children_without_customer_are_ignored(self, world: World, customer: Customer) -> None:
        world.request("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"})
        StripeCustomer.sync(customer)
        delete_item(world, customer)
        assert UserRecords.read("u-1").customers == {}
