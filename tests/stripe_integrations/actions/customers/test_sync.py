"""`StripeCustomer.sync`, `sync_from_stripe_data` and `soft_delete`: no stale write."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

import pytest
import stripe

from local.stripe_double.client import StripeDoubleClient
from stripe_integrations.actions import StripeCustomer
from stripe_integrations.errors import (
    ConflictError,
    CustomerBeingCreatedError,
    CustomerNotFoundError,
    CustomerSoftDeletedError,
    InvalidFieldError,
    RecordsNotStoredError,
    StaleRecordError,
    StripeRefusedError,
    WrongModeError,
)
from stripe_integrations.models import Customer
from tests.stripe_integrations.actions.customers.helpers import acquire_claim, during_sleep
from tests.world import EMAIL, USER, Json, World


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL, name="Jane")


def stored() -> Customer:
    return StripeCustomer.require(USER)


def change(world: World, customer: Customer, **fields: object) -> Json:
    return world.request("POST", f"/v1/customers/{customer.stripe_id}", fields)


def delete(world: World, customer: Customer) -> Json:
    return world.request("DELETE", f"/v1/customers/{customer.stripe_id}")


def deleted(customer: Customer) -> Json:
    return {"id": customer.stripe_id, "object": "customer", "deleted": True}


def add_source(world: World, customer: Customer, source: str = "tok_visa") -> Json:
    return world.request("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": source})


def during_fetch(world: World, action: Callable[[], object], *, times: float = 1) -> None:
    """Run an action in a process of its own while Stripe's next responses are in transit."""
    world.stripe.faults.delay(1, None if times == inf else 1, match="GET /v1/customers/*")
    during_sleep(world, action, times=times)


class TestSync:
    def test_stores_customer_cards_and_subscriptions(
        self, world: World, customer: Customer
    ) -> None:
        change(world, customer, email="new@example.com")
        source = add_source(world, customer, "tok_amex")
        method = world.attach_card(customer.stripe_id)
        subscription = world.subscribe(customer.stripe_id)

        returned = StripeCustomer.sync(customer)

        for record in (returned, stored()):
            assert record.email == "new@example.com"
            assert {card.stripe_id for card in record.cards} == {source["id"], method}
            assert [card.stripe_id for card in record.cards if card.is_default] == [source["id"]]
            assert [found.stripe_id for found in record.subscriptions] == [subscription]
            assert record.subscriptions[0].status == "active"

    def test_default_card_is_that_of_invoice_settings(
        self, world: World, customer: Customer
    ) -> None:
        add_source(world, customer, "tok_amex")
        method = world.attach_card(customer.stripe_id)
        change(world, customer, invoice_settings={"default_payment_method": method})
        synced = StripeCustomer.sync(customer)
        assert [card.stripe_id for card in synced.cards if card.is_default] == [method]

    def test_calls_are_limited(self, world: World, customer: Customer) -> None:
        world.attach_card(customer.stripe_id)
        world.subscribe(customer.stripe_id)
        with world.counting() as counts:
            assert world.sync()["statusCode"] == 200
        assert (counts.database, counts.stripe) == (2, 3)

    def test_removed_card_becomes_tombstone(self, world: World, customer: Customer) -> None:
        method = world.attach_card(customer.stripe_id, billing_details={"name": "Jane Roe"})
        customer = StripeCustomer.sync(customer)
        world.request("POST", f"/v1/payment_methods/{method}/detach")

        StripeCustomer.sync(customer)

        assert stored().cards == []
        (tombstone,) = world.items(record_type="Card")
        assert "removed_at" in tombstone
        assert "Jane Roe" not in str(tombstone)

    def test_card_in_both_lists_is_one_card(self, world: World, customer: Customer) -> None:
        source = add_source(world, customer)
        (card,) = StripeCustomer.sync(customer).cards
        assert (card.stripe_id, card.livemode, card.last4) == (source["id"], False, source["last4"])

    def test_canceled_subscription_is_stored(self, world: World, customer: Customer) -> None:
        subscription = world.subscribe(customer.stripe_id)
        world.request("DELETE", f"/v1/subscriptions/{subscription}")
        (found,) = StripeCustomer.sync(customer).subscriptions
        assert (found.stripe_id, found.status) == (subscription, "canceled")

    def test_all_pages_are_read(self, world: World, customer: Customer) -> None:
        for _ in range(12):
            add_source(world, customer)
        world.subscribe(customer.stripe_id, items=12)
        synced = StripeCustomer.sync(customer)
        assert len(synced.cards) == 12
        assert len(synced.subscriptions[0].items) == 12

    def test_children_may_exceed_one_transaction(self, world: World, customer: Customer) -> None:
        for _ in range(130):
            world.attach_card(customer.stripe_id)
        synced = StripeCustomer.sync(customer)
        assert len(stored().cards) == 130
        assert stored().version == customer.version

        delete(world, customer)
        synced = StripeCustomer.sync(synced)
        assert (synced.is_active, synced.cards) == (False, [])
        assert StripeCustomer.get(USER) is None
        assert all("removed_at" in card for card in world.items(record_type="Card"))

    def test_size_of_transactions_is_limited(
        self, world: World, customer: Customer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = [
            {"id": f"sub_{number}", "items": {"data": [{"id": "si_1", "text": "x" * 300_000}]}}
            for number in range(20)
        ]
        monkeypatch.setattr(world.context.stripe, "list_subscriptions", lambda _: listed)
        with world.counting() as counts:
            StripeCustomer.sync(customer)
        sizes = [len(json.dumps(body)) for body in counts.bodies if "TransactItems" in body]
        assert len(sizes) > 1
        assert max(sizes) < 4 * 1024 * 1024
        assert len(stored().subscriptions) == 20

    @pytest.mark.parametrize("kinds", [set(), {"Card"}, {"Subscription"}])
    def test_requires_cards_and_subscriptions(
        self, world: World, customer: Customer, kinds: set[str]
    ) -> None:
        world.configure(stored_records=frozenset(kinds))
        with world.counting() as counts, pytest.raises(RecordsNotStoredError):
            StripeCustomer.sync(customer)
        assert counts.stripe == 0

    def test_404_is_no_deletion(self, world: World, customer: Customer) -> None:
        world.stripe.faults.fail_next(None, status=404, code="resource_missing")
        with pytest.raises(StripeRefusedError):
            StripeCustomer.sync(customer)
        assert stored().is_active

    def test_soft_deletes_customer_deleted_during_fetch(
        self, world: World, customer: Customer
    ) -> None:
        during_fetch(world, lambda: delete(world, customer))
        assert StripeCustomer.sync(customer).is_active is False


class TestConcurrency:
    def test_overtaken_response_is_not_written(self, world: World, customer: Customer) -> None:
        def sync_newer() -> None:
            change(world, customer, name="Newest")
            StripeCustomer.sync(stored())

        during_fetch(world, sync_newer)
        StripeCustomer.sync(customer)

        assert stored().name == "Newest"

    def test_unchanged_customer_rejects_older_responses(
        self, world: World, customer: Customer
    ) -> None:
        stale = stored()
        older = change(world, customer, name="For a moment")
        change(world, customer, name="Jane")
        world.time += 10

        StripeCustomer.sync(stored())
        with pytest.raises(StaleRecordError):
            StripeCustomer.sync_from_stripe_data(stale, older)

        assert (stored().name, stored().modified_at) == ("Jane", stale.modified_at)

    def test_record_soft_deleted_during_fetch_is_unchanged(
        self, world: World, customer: Customer
    ) -> None:
        change(world, customer, name="Newest")
        during_fetch(world, lambda: StripeCustomer.soft_delete(stored()))

        with pytest.raises(CustomerSoftDeletedError):
            StripeCustomer.sync(customer)

        (record,) = world.items(record_type="Customer")
        assert (record["name"], record["is_active"]) == ("Jane", False)

    def test_record_changed_every_time_is_conflict(self, world: World, customer: Customer) -> None:
        numbers = count()

        def write() -> None:
            data = {"id": customer.stripe_id, "name": f"Name {next(numbers)}"}
            StripeCustomer.sync_from_stripe_data(stored(), data)

        during_fetch(world, write, times=inf)
        with pytest.raises(ConflictError):
            StripeCustomer.sync(customer)


class TestGivenObject:
    def test_is_written_without_calling_stripe(self, world: World, customer: Customer) -> None:
        given = change(world, customer, phone="+49")
        with world.counting() as counts:
            StripeCustomer.sync_from_stripe_data(customer, given)
        assert counts.stripe == 0
        assert stored().phone == "+49"

    def test_does_not_overwrite_changed_record(self, world: World, customer: Customer) -> None:
        given = {**world.request("GET", f"/v1/customers/{customer.stripe_id}"), "phone": "+49"}
        change(world, customer, name="Newest")
        StripeCustomer.sync(stored())

        for action in (StripeCustomer.sync_from_stripe_data, StripeCustomer.sync):
            with pytest.raises(StaleRecordError):
                action(customer, given)
        assert stored().name == "Newest"

    @pytest.mark.parametrize(("expand", "calls"), [(["sources"], 2), ([], 3)])
    def test_only_missing_lists_are_fetched(
        self, world: World, customer: Customer, expand: list[str], calls: int
    ) -> None:
        add_source(world, customer)
        given = world.request("GET", f"/v1/customers/{customer.stripe_id}", {"expand": expand})
        with world.counting() as counts:
            assert len(StripeCustomer.sync(customer, given).cards) == 1
        assert counts.stripe == calls

    def test_with_incomplete_list_is_fetched_again(self, world: World, customer: Customer) -> None:
        for _ in range(12):
            add_source(world, customer)
        given = world.request("GET", f"/v1/customers/{customer.stripe_id}", {"expand": ["sources"]})
        assert given["sources"]["has_more"]
        cards = StripeCustomer.sync(customer, given).cards
        assert [card.brand for card in cards] == ["Visa"] * 12

    def test_is_not_mixed_with_newer_lists(self, world: World, customer: Customer) -> None:
        before = world.request("GET", f"/v1/customers/{customer.stripe_id}")
        source = add_source(world, customer)
        (card,) = StripeCustomer.sync(customer, before).cards
        assert (card.stripe_id, card.is_default) == (source["id"], True)

    def test_may_be_of_stripes_library(self, world: World, customer: Customer) -> None:
        client = stripe.StripeClient("sk_test_double", http_client=StripeDoubleClient(world.stripe))
        given = client.v1.customers.update(customer.stripe_id, {"phone": "+49"})
        assert StripeCustomer.sync_from_stripe_data(customer, given).phone == "+49"
        given = client.v1.customers.update(customer.stripe_id, {"phone": "+50"})
        assert StripeCustomer.sync(stored(), given).phone == "+50"

    @pytest.mark.parametrize("livemode", [{}, {"livemode": None}])
    def test_without_mode_leaves_mode(
        self, world: World, customer: Customer, livemode: dict[str, None]
    ) -> None:
        StripeCustomer.sync_from_stripe_data(customer, {"id": customer.stripe_id, **livemode})
        assert stored().livemode is False
        assert StripeCustomer.sync(customer).livemode is False

    @pytest.mark.parametrize("action", [StripeCustomer.sync_from_stripe_data, StripeCustomer.sync])
    def test_deleted_soft_deletes_without_calling_stripe(
        self, world: World, customer: Customer, action: Callable[[Customer, Json], Customer]
    ) -> None:
        world.stripe.faults.fail_next(None, status=503)
        assert not action(customer, deleted(customer)).is_active
        assert StripeCustomer.get(USER) is None

    def test_of_other_customer_mode_or_type_is_refused(
        self, world: World, customer: Customer
    ) -> None:
        invalid: Any = "cus_1"
        with pytest.raises(InvalidFieldError):
            StripeCustomer.sync(customer, invalid)
        with pytest.raises(InvalidFieldError):
            StripeCustomer.sync_from_stripe_data(customer, {"id": "cus_other"})
        with pytest.raises(WrongModeError):
            StripeCustomer.sync_from_stripe_data(
                customer, {"id": customer.stripe_id, "livemode": True}
            )

    def test_null_leaves_currency_and_delinquent(self, world: World) -> None:
        customer = StripeCustomer.create(USER, EMAIL, currency="eur")
        StripeCustomer.sync_from_stripe_data(
            customer, {"id": customer.stripe_id, "currency": None, "delinquent": None}
        )
        assert (customer.currency, customer.delinquent) == ("eur", False)


class TestSoftDelete:
    def test_calls_are_limited(self, world: World, customer: Customer) -> None:
        with world.counting() as counts:
            assert world.delete()["statusCode"] == 204
        assert (counts.database, counts.stripe) == (2, 0)

    def test_overrides_changed_record(self, world: World, customer: Customer) -> None:
        change(world, customer, name="Newest")
        StripeCustomer.sync(stored())
        StripeCustomer.soft_delete(customer)
        assert StripeCustomer.get(USER) is None

    def test_repeated_leaves_first_time(self, world: World, customer: Customer) -> None:
        stale = stored()
        StripeCustomer.soft_delete(customer)
        world.time += 100
        StripeCustomer.soft_delete(customer)
        StripeCustomer.soft_delete(stale)
        (record,) = world.items(record_type="Customer")
        assert record["is_active"] is False
        assert record["date_purged"].startswith("2027-01-15T08:00:00")

    def test_repeated_leaves_new_customer(self, world: World, customer: Customer) -> None:
        stale = stored()
        StripeCustomer.soft_delete(customer)
        new = StripeCustomer.create(USER, EMAIL)
        assert new.stripe_id != customer.stripe_id
        StripeCustomer.soft_delete(stale)
        assert stored().stripe_id == new.stripe_id

    def test_is_final(self, world: World, customer: Customer) -> None:
        StripeCustomer.soft_delete(customer)
        with pytest.raises(CustomerSoftDeletedError):
            StripeCustomer.sync(customer)
        for given in ({"id": customer.stripe_id}, deleted(customer)):
            with pytest.raises(CustomerSoftDeletedError):
                StripeCustomer.sync_from_stripe_data(customer, given)


def test_require_distinguishes_missing_customer_from_one_being_created(world: World) -> None:
    with pytest.raises(CustomerNotFoundError):
        StripeCustomer.require(USER)
    acquire_claim()
    with pytest.raises(CustomerBeingCreatedError):
        StripeCustomer.require(USER)
    assert StripeCustomer.get(USER) is None
