"""`StripeCustomer.sync`, `sync_from_stripe_data` and `soft_delete`: the version rule at work."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import stripe

from local.stripe_double.client import StripeDoubleClient
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.context import use
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
from stripe_integrations.models import Customer, CustomerClaim
from tests.world import World

USER = User("u-1")


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, "jane@example.com", name="Jane")


def attach_card(world: World, customer: Customer, kind: str = "visa", **params: object) -> str:
    method = world.ask(
        "POST", "/v1/payment_methods", {"type": "card", "card": {"token": f"tok_{kind}"}, **params}
    )
    world.ask(
        "POST", f"/v1/payment_methods/{method['id']}/attach", {"customer": customer.stripe_id}
    )
    return str(method["id"])


def subscribe(world: World, customer: Customer, items: int = 1, **params: object) -> str:
    prices = [
        world.ask(
            "POST",
            "/v1/prices",
            {
                "currency": "usd",
                "unit_amount": 500,
                "recurring": {"interval": "month"},
                "product_data": {"name": "Plan"},
            },
        )["id"]
        for _ in range(items)
    ]
    subscription = world.ask(
        "POST",
        "/v1/subscriptions",
        {
            "customer": customer.stripe_id,
            "items": [{"price": price} for price in prices],
            "collection_method": "send_invoice",
            "days_until_due": 30,
            **params,
        },
    )
    return str(subscription["id"])


def test_sync_brings_the_customer_its_cards_and_its_subscriptions(
    world: World, customer: Customer
) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"email": "new@example.com"})
    source = world.ask(
        "POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_amex"}
    )
    method = attach_card(world, customer)
    subscription = subscribe(world, customer)

    returned = StripeCustomer.sync(customer)

    for record in (returned, StripeCustomer.get(USER)):
        assert record.email == "new@example.com"
        assert {card.stripe_id for card in record.cards} == {source["id"], method}
        assert [card.stripe_id for card in record.cards if card.is_default] == [source["id"]]
        assert [found.stripe_id for found in record.subscriptions] == [subscription]
        assert record.subscriptions[0].status == "active"


def test_the_invoice_settings_choose_the_default_card_before_the_default_source(
    world: World, customer: Customer
) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_amex"})
    method = attach_card(world, customer)
    world.ask(
        "POST",
        f"/v1/customers/{customer.stripe_id}",
        {"invoice_settings": {"default_payment_method": method}},
    )

    synced = StripeCustomer.sync(customer)

    assert [card.stripe_id for card in synced.cards if card.is_default] == [method]


def test_sync_keeps_to_its_budget_of_calls(world: World, customer: Customer) -> None:
    attach_card(world, customer)
    subscribe(world, customer)
    with world.counting() as counts:
        assert world.sync()["statusCode"] == 200
    assert (counts.database, counts.stripe) == (2, 3)


def test_a_sync_that_finds_nothing_new_still_keeps_older_answers_out(
    world: World, customer: Customer
) -> None:
    attach_card(world, customer)
    StripeCustomer.sync(customer)
    rival = StripeCustomer.get(USER)
    modified_at = rival.modified_at
    older = world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "For a moment"})
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Jane"})
    world.time += 10

    StripeCustomer.sync(StripeCustomer.get(USER))
    with pytest.raises(StaleRecordError):
        StripeCustomer.sync_from_stripe_data(rival, older)

    record = StripeCustomer.get(USER)
    assert (record.name, record.modified_at) == ("Jane", modified_at)


def test_a_card_that_was_removed_does_not_linger(world: World, customer: Customer) -> None:
    method = attach_card(world, customer, billing_details={"name": "Jane Roe"})
    customer = StripeCustomer.sync(customer)
    world.ask("POST", f"/v1/payment_methods/{method}/detach")

    StripeCustomer.sync(customer)

    assert StripeCustomer.get(USER).cards == []
    (tombstone,) = world.items(record_type="Card")
    assert "removed_at" in tombstone
    assert "Jane Roe" not in str(tombstone)


def test_a_card_in_both_shapes_is_one_card(world: World, customer: Customer) -> None:
    source = world.ask(
        "POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"}
    )
    synced = StripeCustomer.sync(customer)
    (card,) = synced.cards
    assert (card.stripe_id, card.livemode, card.last4) == (source["id"], False, source["last4"])


def test_cancelled_subscriptions_are_kept_with_their_status(
    world: World, customer: Customer
) -> None:
    subscription = subscribe(world, customer)
    world.ask("DELETE", f"/v1/subscriptions/{subscription}")
    (found,) = StripeCustomer.sync(customer).subscriptions
    assert (found.stripe_id, found.status) == (subscription, "canceled")


def test_lists_of_more_than_one_page_are_read_to_the_end(world: World, customer: Customer) -> None:
    for _ in range(12):
        world.ask("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"})
    subscribe(world, customer, items=12)

    synced = StripeCustomer.sync(customer)

    assert len(synced.cards) == 12
    assert len(synced.subscriptions[0].items) == 12


def test_more_children_than_a_transaction_holds_are_all_written(
    world: World, customer: Customer
) -> None:
    for _ in range(130):
        attach_card(world, customer)

    StripeCustomer.sync(customer)

    read = StripeCustomer.get(USER)
    assert len(read.cards) == 130
    assert read.version == customer.version


def test_a_customer_that_stripe_has_deleted_is_soft_deleted_with_its_cards(
    world: World, customer: Customer
) -> None:
    attach_card(world, customer)
    customer = StripeCustomer.sync(customer)
    world.ask("DELETE", f"/v1/customers/{customer.stripe_id}")

    synced = StripeCustomer.sync(customer)

    assert synced.is_active is False
    assert synced.cards == []
    assert StripeCustomer.get(USER) is None


def test_a_customer_with_very_many_cards_can_be_deleted(world: World, customer: Customer) -> None:
    for _ in range(130):
        attach_card(world, customer)
    customer = StripeCustomer.sync(customer)
    world.ask("DELETE", f"/v1/customers/{customer.stripe_id}")

    assert StripeCustomer.sync(customer).cards == []

    assert StripeCustomer.get(USER) is None
    assert all("removed_at" in card for card in world.items(record_type="Card"))


def test_large_children_are_written_in_transactions_that_hold_them(
    world: World, customer: Customer
) -> None:
    listed = [
        {"id": f"sub_{number}", "items": {"data": [{"id": "si_1", "text": "x" * 300_000}]}}
        for number in range(20)
    ]
    world.context.stripe.list_subscriptions = lambda _: listed
    with world.counting() as counts:
        StripeCustomer.sync(customer)
    sizes = [len(json.dumps(body)) for body in counts.bodies if "TransactItems" in body]
    assert len(sizes) > 1
    assert max(sizes) < 4 * 1024 * 1024
    assert len(StripeCustomer.get(USER).subscriptions) == 20


def test_a_customer_that_is_deleted_between_two_questions_is_soft_deleted(
    world: World, customer: Customer
) -> None:
    change_during_fetch(world, lambda: world.ask("DELETE", f"/v1/customers/{customer.stripe_id}"))
    assert StripeCustomer.sync(customer).is_active is False


def test_a_404_is_not_a_deletion(world: World, customer: Customer) -> None:
    world.stripe.faults.fail_next(None, status=404, code="resource_missing")
    with pytest.raises(StripeRefusedError):
        StripeCustomer.sync(customer)
    assert StripeCustomer.get(USER).is_active


def change_during_fetch(world: World, change: Callable[[], None]) -> None:
    """Let something happen while the next answer of Stripe is under way."""

    def once() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            change()

    world.stripe.faults.delay(1, match="GET /v1/customers/*")
    world.during_sleep = once


def test_an_answer_that_is_overtaken_while_it_travels_is_not_written(
    world: World, customer: Customer
) -> None:
    def newer_sync() -> None:
        world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
        StripeCustomer.sync(StripeCustomer.get(USER))

    change_during_fetch(world, newer_sync)
    StripeCustomer.sync(customer)

    assert StripeCustomer.get(USER).name == "Newest"


def test_a_record_that_is_soft_deleted_during_the_fetch_stays_as_it_is(
    world: World, customer: Customer
) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
    change_during_fetch(world, lambda: StripeCustomer.soft_delete(StripeCustomer.get(USER)))

    with pytest.raises(CustomerSoftDeletedError):
        StripeCustomer.sync(customer)

    (record,) = world.items(record_type="Customer")
    assert (record["name"], record["is_active"]) == ("Jane", False)


def test_a_record_that_is_always_changed_in_between_is_given_up(
    world: World, customer: Customer
) -> None:
    names = iter(range(100))

    def change() -> None:
        record = StripeCustomer.get(USER)
        StripeCustomer.sync_from_stripe_data(
            record, {"id": record.stripe_id, "name": f"Name {next(names)}"}
        )

    def each_time() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            change()
        world.during_sleep = each_time

    world.stripe.faults.delay(1, None, match="GET /v1/customers/*")
    world.during_sleep = each_time
    with pytest.raises(ConflictError):
        StripeCustomer.sync(customer)


@pytest.mark.parametrize("stored", [frozenset(), frozenset({"Card"}), frozenset({"Subscription"})])
def test_sync_needs_the_card_and_subscription_records(
    table_name: str, stored: frozenset[str]
) -> None:
    world = World(table_name, stored_records=stored)
    with use(world.context):
        customer = StripeCustomer.create(USER, "jane@example.com")
        asked = len(world.stripe.requests)
        with pytest.raises(RecordsNotStoredError):
            StripeCustomer.sync(customer)
        assert len(world.stripe.requests) == asked


# ---- an object that the caller has


def test_an_object_that_the_caller_has_is_written_without_asking_stripe(
    world: World, customer: Customer
) -> None:
    stripe_customer = world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"phone": "+49"})
    with world.counting() as counts:
        StripeCustomer.sync_from_stripe_data(customer, stripe_customer)
    assert counts.stripe == 0
    assert StripeCustomer.get(USER).phone == "+49"


def test_an_object_does_not_overwrite_a_record_that_was_changed_since_it_was_read(
    world: World, customer: Customer
) -> None:
    old = world.ask("GET", f"/v1/customers/{customer.stripe_id}")
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
    StripeCustomer.sync(StripeCustomer.get(USER))

    with pytest.raises(StaleRecordError):
        StripeCustomer.sync_from_stripe_data(customer, {**old, "phone": "+49"})
    with pytest.raises(StaleRecordError):
        StripeCustomer.sync(customer, {**old, "phone": "+49"})
    assert StripeCustomer.get(USER).name == "Newest"


def test_sync_with_an_object_fetches_only_what_the_object_lacks(
    world: World, customer: Customer
) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"})
    expanded = world.ask("GET", f"/v1/customers/{customer.stripe_id}", {"expand": ["sources"]})
    plain = world.ask("GET", f"/v1/customers/{customer.stripe_id}")

    with world.counting() as with_sources:
        assert len(StripeCustomer.sync(customer, expanded).cards) == 1
    with world.counting() as without:
        assert len(StripeCustomer.sync(StripeCustomer.get(USER), plain).cards) == 1

    assert (with_sources.stripe, without.stripe) == (2, 3)


def test_an_object_with_a_part_of_its_sources_is_fetched_again(
    world: World, customer: Customer
) -> None:
    for _ in range(12):
        world.ask("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"})
    part = world.ask("GET", f"/v1/customers/{customer.stripe_id}", {"expand": ["sources"]})
    assert part["sources"]["has_more"]
    cards = StripeCustomer.sync(customer, part).cards
    assert [card.brand for card in cards] == ["Visa"] * 12


def test_a_fetched_object_is_of_one_moment(world: World, customer: Customer) -> None:
    before = world.ask("GET", f"/v1/customers/{customer.stripe_id}")
    source = world.ask(
        "POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"}
    )
    (card,) = StripeCustomer.sync(customer, before).cards
    assert (card.stripe_id, card.is_default) == (source["id"], True)


def test_a_deleted_object_needs_no_stripe(world: World, customer: Customer) -> None:
    world.stripe.faults.fail_next(None, status=503)
    deleted = {"id": customer.stripe_id, "object": "customer", "deleted": True}
    assert not StripeCustomer.sync(customer, deleted).is_active


def test_an_object_of_stripes_library_is_taken(world: World, customer: Customer) -> None:
    client = stripe.StripeClient("sk_test_double", http_client=StripeDoubleClient(world.stripe))
    given = client.v1.customers.update(customer.stripe_id, {"phone": "+49"})
    assert StripeCustomer.sync_from_stripe_data(customer, given).phone == "+49"
    given = client.v1.customers.update(customer.stripe_id, {"phone": "+50"})
    assert StripeCustomer.sync(StripeCustomer.get(USER), given).phone == "+50"
    with pytest.raises(InvalidFieldError):
        StripeCustomer.sync(customer, "cus_1")


def test_an_object_that_says_nothing_of_its_mode_leaves_the_records(
    world: World, customer: Customer
) -> None:
    for livemode in ({}, {"livemode": None}):
        StripeCustomer.sync_from_stripe_data(customer, {"id": customer.stripe_id, **livemode})
        assert StripeCustomer.get(USER).livemode is False
    assert StripeCustomer.sync(customer).livemode is False


def test_a_deleted_object_soft_deletes_the_record(world: World, customer: Customer) -> None:
    deleted = {"id": customer.stripe_id, "object": "customer", "deleted": True}
    assert not StripeCustomer.sync_from_stripe_data(customer, deleted).is_active
    assert StripeCustomer.get(USER) is None


def test_an_object_of_another_customer_or_mode_is_refused(world: World, customer: Customer) -> None:
    with pytest.raises(InvalidFieldError):
        StripeCustomer.sync_from_stripe_data(customer, {"id": "cus_other"})
    with pytest.raises(WrongModeError):
        StripeCustomer.sync_from_stripe_data(customer, {"id": customer.stripe_id, "livemode": True})


def test_null_is_not_a_report_of_currency_and_delinquent(world: World) -> None:
    customer = StripeCustomer.create(USER, "jane@example.com", currency="eur")
    StripeCustomer.sync_from_stripe_data(
        customer, {"id": customer.stripe_id, "currency": None, "delinquent": None}
    )
    assert (customer.currency, customer.delinquent) == ("eur", False)


# ---- soft delete


def test_a_soft_deleted_customer_is_not_got_and_makes_room_for_a_new_one(
    world: World, customer: Customer
) -> None:
    StripeCustomer.soft_delete(customer)

    assert StripeCustomer.get(USER) is None
    (record,) = world.items(record_type="Customer")
    assert record["is_active"] is False
    assert "date_purged" in record
    assert StripeCustomer.create(USER, "jane@example.com").stripe_id != customer.stripe_id


def test_soft_delete_keeps_to_its_budget_of_calls(world: World, customer: Customer) -> None:
    with world.counting() as counts:
        assert world.delete()["statusCode"] == 204
    assert (counts.database, counts.stripe) == (2, 0)


def test_soft_delete_goes_ahead_of_a_record_that_was_changed_since_it_was_read(
    world: World, customer: Customer
) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
    StripeCustomer.sync(StripeCustomer.get(USER))
    StripeCustomer.soft_delete(customer)
    assert StripeCustomer.get(USER) is None


def test_a_second_soft_delete_keeps_the_time_of_the_first(world: World, customer: Customer) -> None:
    stale = StripeCustomer.get(USER)
    StripeCustomer.soft_delete(customer)
    world.time += 100
    StripeCustomer.soft_delete(customer)
    StripeCustomer.soft_delete(stale)
    (record,) = world.items(record_type="Customer")
    assert record["date_purged"].startswith("2027-01-15T08:00:00")


def test_soft_deletion_of_an_old_customer_leaves_the_new_one_alone(
    world: World, customer: Customer
) -> None:
    stale = StripeCustomer.get(USER)
    StripeCustomer.soft_delete(customer)
    new = StripeCustomer.create(USER, "jane@example.com")
    StripeCustomer.soft_delete(stale)
    assert StripeCustomer.get(USER).stripe_id == new.stripe_id


def test_a_soft_deleted_record_is_not_synchronised(world: World, customer: Customer) -> None:
    StripeCustomer.soft_delete(customer)
    with pytest.raises(CustomerSoftDeletedError):
        StripeCustomer.sync(customer)
    with pytest.raises(CustomerSoftDeletedError):
        StripeCustomer.sync_from_stripe_data(customer, {"id": customer.stripe_id})
    with pytest.raises(CustomerSoftDeletedError):
        StripeCustomer.sync_from_stripe_data(customer, {"id": customer.stripe_id, "deleted": True})


def test_require_tells_a_missing_customer_from_one_that_is_being_created(world: World) -> None:
    with pytest.raises(CustomerNotFoundError):
        StripeCustomer.require(USER)
    CustomerClaim.acquire("u-1", {"stripe": {}, "local": {}})
    with pytest.raises(CustomerBeingCreatedError):
        StripeCustomer.require(USER)
    assert StripeCustomer.get(USER) is None
