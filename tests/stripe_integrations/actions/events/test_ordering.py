"""The order rule: what is certainly newer is written, what is certainly older dropped, doubt asks.

A fetch is three questions to Stripe: the customer, its cards, its subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
from stripe_integrations.errors import StripeUnavailableError
from stripe_integrations.models import Customer, Event
from tests.world import Counts, World

USER = User("u-1")
EMAIL = "jane@example.com"
OLDER = ("ignored", "older than the stored state")
APPLIED = ("applied", None)
A_FETCH = 3

Json = dict[str, Any]


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL)


def rename(world: World, name: str) -> Json:
    """Change the customer on Stripe; the event that tells of it."""
    (on_stripe,) = world.stripe_customers()
    world.ask("POST", f"/v1/customers/{on_stripe['id']}", {"name": name})
    return world.payload("customer.updated")


def attach_card(world: World, customer: Customer) -> str:
    method = world.ask(
        "POST", "/v1/payment_methods", {"type": "card", "card": {"token": "tok_visa"}}
    )
    path = f"/v1/payment_methods/{method['id']}/attach"
    world.ask("POST", path, {"customer": customer.stripe_id})
    return str(method["id"])


def subscribe(world: World, customer: Customer, items: int = 1) -> str:
    plan = {
        "currency": "usd",
        "unit_amount": 500,
        "recurring": {"interval": "month"},
        "product_data": {"name": "Plan"},
    }
    prices = [world.ask("POST", "/v1/prices", plan)["id"] for _ in range(items)]
    subscription = world.ask(
        "POST",
        "/v1/subscriptions",
        {
            "customer": customer.stripe_id,
            "items": [{"price": price} for price in prices],
            "collection_method": "send_invoice",
            "days_until_due": 30,
        },
    )
    return str(subscription["id"])


def apply(world: World, payload: Json) -> tuple[tuple[str | None, str | None], Counts]:
    """Receive and apply an event; how it ended, and what applying it cost."""
    StripeEvent.receive(payload)
    with world.counting() as counts:
        StripeEvent.apply(payload["id"])
    event = Event.find(payload["id"])
    assert event
    return (event.state, event.reason), counts


# ---- the customer itself


def test_a_newer_payload_is_written_without_asking_stripe(world: World, customer: Customer) -> None:
    world.time += 1
    ended, counts = apply(world, rename(world, "Newest"))
    assert ended == APPLIED
    assert StripeCustomer.get(USER).name == "Newest"
    assert counts.operations == ["UpdateItem", "Query", "TransactWriteItems"]
    assert counts.stripe == 0


def test_an_older_payload_is_dropped_without_asking_stripe(
    world: World, customer: Customer
) -> None:
    world.time += 10
    older = rename(world, "Older")
    world.time += 10
    apply(world, rename(world, "Newest"))
    before = world.items(record_type="Customer")

    ended, counts = apply(world, older)

    assert ended == OLDER
    assert world.items(record_type="Customer") == before
    assert (counts.database, counts.stripe) == (3, 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_changes_in_one_second_the_second_to_arrive_asks_stripe(
    world: World, customer: Customer, order: tuple[int, int]
) -> None:
    world.time += 10
    payloads = [rename(world, "First"), rename(world, "Last")]
    _, first = apply(world, payloads[order[0]])
    ended, second = apply(world, payloads[order[1]])
    assert (first.stripe, second.stripe) == (0, A_FETCH)
    assert ended == APPLIED
    assert StripeCustomer.get(USER).name == "Last"


def test_a_change_in_the_second_of_the_create_asks_stripe(world: World, customer: Customer) -> None:
    ended, counts = apply(world, rename(world, "Newest"))
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).name == "Newest"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_name_that_comes_back_stays_in_whatever_order_its_events_come(
    world: World, customer: Customer, order: tuple[int, ...]
) -> None:
    payloads = []
    for name in ("A", "B", "A"):
        world.time += 10
        payloads.append(rename(world, name))
    ends = {}
    for number in order:
        ends[number], counts = apply(world, payloads[number])
        assert counts.stripe == 0
    assert StripeCustomer.get(USER).name == "A"
    assert ends[2] == APPLIED
    assert {ends[0], ends[1]} <= {APPLIED, OLDER}


def in_another_version(payload: Json) -> None:
    payload["api_version"] = "2025-02-24.acacia"


def of_a_test_clock(payload: Json) -> None:
    payload["data"]["object"]["test_clock"] = "clock_1"


def from_the_future(payload: Json) -> None:
    payload["created"] += 6


def without_its_id(payload: Json) -> None:
    payload["data"]["object"] = {"customer": payload["data"]["object"]["id"]}


@pytest.mark.parametrize(
    "odd", [in_another_version, of_a_test_clock, from_the_future, without_its_id]
)
def test_a_payload_that_cant_be_taken_at_its_word_asks_stripe(
    world: World, customer: Customer, odd: Callable[[Json], None]
) -> None:
    world.time += 10
    payload = rename(world, "Newest")
    payload["data"]["object"]["name"] = "Not so"
    odd(payload)
    ended, counts = apply(world, payload)
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_stamp_ahead_by_what_clocks_may_differ_is_taken(world: World, customer: Customer) -> None:
    payload = rename(world, "Newest")
    payload["created"] += 5
    _, counts = apply(world, payload)
    assert counts.stripe == 0
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_payload_that_was_not_kept_asks_stripe(world: World, customer: Customer) -> None:
    world.time += 10
    payload = rename(world, "Newest")
    StripeEvent.receive(payload)
    Event.find(payload["id"]).update([Event.webhook_message.remove()])
    ended, counts = apply(world, payload)
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).name == "Newest"


def test_whatever_happens_to_a_customer_of_a_test_clock_asks_stripe(
    world: World, customer: Customer
) -> None:
    world.stripe.change_customer(customer.stripe_id, test_clock="clock_1")
    StripeCustomer.sync(customer)
    world.time += 60
    payload = rename(world, "Newest")
    payload["data"]["object"]["test_clock"] = None
    _, counts = apply(world, payload)
    assert counts.stripe == A_FETCH


def test_an_event_of_the_seconds_around_a_fetch_asks_stripe(
    world: World, customer: Customer
) -> None:
    world.time += 100
    StripeCustomer.sync(customer)
    fetched = world.time
    for distance, asked in ((-6, 0), (-5, A_FETCH), (5, A_FETCH)):
        world.time = fetched + 20
        payload = rename(world, f"Name {distance}")
        payload["created"] = int(fetched) + distance
        world.time = fetched
        ended, counts = apply(world, payload)
        assert counts.stripe == asked, distance
        assert ended == (APPLIED if asked else OLDER)


def test_an_event_after_the_seconds_of_a_fetch_is_written(world: World, customer: Customer) -> None:
    StripeCustomer.sync(customer)
    world.time += 6
    ended, counts = apply(world, rename(world, "Newest"))
    assert (ended, counts.stripe) == (APPLIED, 0)
    assert StripeCustomer.get(USER).name == "Newest"


def test_an_object_of_unknown_age_makes_nothing_older_than_it_was(
    world: World, customer: Customer
) -> None:
    given = world.ask("GET", f"/v1/customers/{customer.stripe_id}")
    world.time += 50
    payload = rename(world, "Newest")
    world.time += 50
    StripeCustomer.sync_from_stripe_data(StripeCustomer.get(USER), given)

    ended, counts = apply(world, payload)

    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).name == "Newest"


def test_an_object_of_unknown_age_given_to_sync_makes_nothing_older_than_it_was(
    world: World, customer: Customer
) -> None:
    path = f"/v1/customers/{customer.stripe_id}"
    given = world.ask("GET", path, {"expand": ["sources"]})
    world.time += 50
    payload = rename(world, "Newest")
    world.time += 50
    StripeCustomer.sync(StripeCustomer.get(USER), given)

    ended, counts = apply(world, payload)

    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_create_that_got_an_old_answer_again_is_true_as_of_its_own_second_only(
    world: World,
) -> None:
    world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL, name="As created")
    world.time += 50
    payload = rename(world, "Newest")
    attached = attach_card(world, Customer(stripe_id=world.stripe_customers()[0]["id"]))
    world.time += 50
    assert StripeCustomer.create(USER, EMAIL).name == "As created"

    ended, counts = apply(world, payload)
    assert (ended, counts.stripe) == (APPLIED, 0)
    ended, counts = apply(world, world.payload("payment_method.attached"))
    assert (ended, counts.stripe) == (APPLIED, 0)

    customer = StripeCustomer.get(USER)
    assert customer.name == "Newest"
    assert [card.stripe_id for card in customer.cards] == [attached]


def test_customer_created_changes_nothing_of_a_record_that_is_there(
    world: World, customer: Customer
) -> None:
    world.time += 10
    apply(world, rename(world, "Newest"))
    created = {**world.payload("customer.created"), "id": "evt_again"}
    ended, counts = apply(world, created)
    assert (ended, counts.stripe) == (APPLIED, 0)
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_finished_checkout_syncs_its_customer(world: World, customer: Customer) -> None:
    world.time += 10
    method = attach_card(world, customer)
    subscription = subscribe(world, customer)
    world.time += 10
    world.stripe.complete_checkout_session(customer.stripe_id)

    ended, counts = apply(world, world.payload("checkout.session.completed"))

    record = StripeCustomer.get(USER)
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert [card.stripe_id for card in record.cards] == [method]
    assert [found.stripe_id for found in record.subscriptions] == [subscription]


def test_a_deletion_is_final_and_asks_nobody(world: World, customer: Customer) -> None:
    world.time += 10
    attach_card(world, customer)
    apply(world, world.payload("payment_method.attached"))
    world.time += 10
    late = rename(world, "Too late")
    world.ask("DELETE", f"/v1/customers/{customer.stripe_id}")

    ended, counts = apply(world, world.payload("customer.deleted"))
    assert (ended, counts.stripe) == (APPLIED, 0)
    assert StripeCustomer.get(USER) is None
    assert all("removed_at" in card for card in world.items(record_type="Card"))

    ended, counts = apply(world, late)
    assert (ended, counts.stripe) == (("ignored", "the customer is soft-deleted"), 0)


# ---- cards and subscriptions


def test_a_card_that_is_newer_than_the_listing_is_written_without_asking_stripe(
    world: World, customer: Customer
) -> None:
    world.time += 10
    method = attach_card(world, customer)
    ended, counts = apply(world, world.payload("payment_method.attached"))
    assert (ended, counts.stripe) == (APPLIED, 0)
    assert counts.operations == ["UpdateItem", "Query", "TransactWriteItems"]
    (card,) = StripeCustomer.get(USER).cards
    assert (card.stripe_id, card.brand, card.last4) == (method, "visa", "4242")


def test_a_subscription_that_is_newer_than_the_listing_is_written_without_asking_stripe(
    world: World, customer: Customer
) -> None:
    world.time += 10
    subscription = subscribe(world, customer)
    ended, counts = apply(world, world.payload("customer.subscription.created"))
    assert (ended, counts.stripe) == (APPLIED, 0)
    (found,) = StripeCustomer.get(USER).subscriptions
    assert (found.stripe_id, found.status, len(found.items)) == (subscription, "active", 1)


def test_an_unknown_child_of_the_seconds_of_the_listing_asks_stripe(
    world: World, customer: Customer
) -> None:
    StripeCustomer.sync(customer)
    world.time += 3
    method = attach_card(world, customer)
    ended, counts = apply(world, world.payload("payment_method.attached"))
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert [card.stripe_id for card in StripeCustomer.get(USER).cards] == [method]


def test_an_unknown_child_that_was_gone_before_the_listing_is_dropped(
    world: World, customer: Customer
) -> None:
    world.time += 10
    method = attach_card(world, customer)
    attached = world.payload("payment_method.attached")
    world.ask("POST", f"/v1/payment_methods/{method}/detach")
    world.time += 10
    StripeCustomer.sync(customer)

    ended, counts = apply(world, attached)

    assert (ended, counts.stripe) == (OLDER, 0)
    assert StripeCustomer.get(USER).cards == []


def test_a_card_that_was_removed_before_its_attach_arrived_does_not_come_back(
    world: World, customer: Customer
) -> None:
    world.time += 10
    method = attach_card(world, customer)
    attached = world.payload("payment_method.attached")
    world.time += 10
    world.ask("POST", f"/v1/payment_methods/{method}", {"metadata": {"a": "1"}})
    updated = world.payload("payment_method.updated")
    world.time += 10
    world.ask("POST", f"/v1/payment_methods/{method}/detach")
    detached = world.payload("payment_method.detached")

    ended, counts = apply(world, detached)
    assert (ended, counts.stripe) == (APPLIED, 0)
    (tombstone,) = world.items(record_type="Card")
    assert "removed_at" in tombstone
    _, counts = apply(world, attached)
    assert counts.stripe == 0
    ended, counts = apply(world, updated)
    assert (ended, counts.stripe) == (OLDER, 0)

    assert StripeCustomer.get(USER).cards == []
    assert world.items(record_type="Card") == [tombstone]


def test_a_removed_card_that_seems_to_live_asks_stripe(world: World, customer: Customer) -> None:
    world.time += 10
    method = attach_card(world, customer)
    world.ask("POST", f"/v1/payment_methods/{method}", {"metadata": {"a": "1"}})
    updated = world.payload("payment_method.updated")
    world.time += 10
    world.ask("POST", f"/v1/payment_methods/{method}/detach")
    apply(world, world.payload("payment_method.detached"))
    world.time += 10

    ended, counts = apply(world, {**updated, "created": int(world.time)})

    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).cards == []


def test_a_known_card_is_removed_without_asking_stripe(world: World, customer: Customer) -> None:
    world.time += 10
    method = attach_card(world, customer)
    apply(world, world.payload("payment_method.attached"))
    world.time += 10
    world.ask("POST", f"/v1/payment_methods/{method}/detach")

    ended, counts = apply(world, world.payload("payment_method.detached"))

    assert (ended, counts.stripe) == (APPLIED, 0)
    assert StripeCustomer.get(USER).cards == []
    (tombstone,) = world.items(record_type="Card")
    assert "last4" not in tombstone


def test_a_removal_of_the_second_of_the_last_change_asks_stripe(
    world: World, customer: Customer
) -> None:
    world.time += 10
    method = attach_card(world, customer)
    world.ask("POST", f"/v1/payment_methods/{method}", {"metadata": {"a": "1"}})
    apply(world, world.payload("payment_method.updated"))
    world.ask("POST", f"/v1/payment_methods/{method}/detach")
    _, counts = apply(world, world.payload("payment_method.detached"))
    assert counts.stripe == A_FETCH
    assert StripeCustomer.get(USER).cards == []


def test_the_removal_of_the_default_card_asks_stripe_what_is_the_default_now(
    world: World, customer: Customer
) -> None:
    sources = f"/v1/customers/{customer.stripe_id}/sources"
    first = world.ask("POST", sources, {"source": "tok_visa"})["id"]
    second = world.ask("POST", sources, {"source": "tok_amex"})["id"]
    StripeCustomer.sync(customer)
    world.time += 60
    world.ask("DELETE", f"{sources}/{first}")

    ended, counts = apply(world, world.payload("customer.source.deleted"))

    record = StripeCustomer.get(USER)
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert record.default_source == second
    assert [card.stripe_id for card in record.cards] == [second]


def test_the_removal_of_another_card_of_the_older_shape_asks_nobody(
    world: World, customer: Customer
) -> None:
    sources = f"/v1/customers/{customer.stripe_id}/sources"
    first = world.ask("POST", sources, {"source": "tok_visa"})["id"]
    second = world.ask("POST", sources, {"source": "tok_amex"})["id"]
    StripeCustomer.sync(customer)
    world.time += 60
    world.ask("DELETE", f"{sources}/{second}")

    ended, counts = apply(world, world.payload("customer.source.deleted"))

    assert (ended, counts.stripe) == (APPLIED, 0)
    assert [card.stripe_id for card in StripeCustomer.get(USER).cards] == [first]


def test_a_card_of_the_older_shape_in_the_newer_one_asks_stripe_for_both(
    world: World, customer: Customer
) -> None:
    sources = f"/v1/customers/{customer.stripe_id}/sources"
    source = world.ask("POST", sources, {"source": "tok_visa"})["id"]
    world.ask("POST", f"{sources}/{source}", {"name": "Jane Roe"})
    StripeCustomer.sync(customer)
    (before,) = StripeCustomer.get(USER).cards
    world.time += 60
    world.ask("POST", f"{sources}/{source}", {"exp_year": 2040})
    payload = world.payload("payment_method.updated")
    assert payload["data"]["object"]["id"] == source

    ended, counts = apply(world, payload)

    (card,) = StripeCustomer.get(USER).cards
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert (card.brand, card.name, card.exp_year) == (before.brand, "Jane Roe", 2040)


@pytest.mark.parametrize("kind", ["customer.source.created", "customer.source.updated"])
def test_an_event_of_a_card_of_the_older_shape_asks_stripe(
    world: World, customer: Customer, kind: str
) -> None:
    world.time += 10
    sources = f"/v1/customers/{customer.stripe_id}/sources"
    source = world.ask("POST", sources, {"source": "tok_visa"})["id"]
    world.ask("POST", f"{sources}/{source}", {"exp_year": 2040})
    ended, counts = apply(world, world.payload(kind))
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).cards[0].exp_year == 2040


def test_a_subscription_with_more_items_than_it_shows_asks_stripe(
    world: World, customer: Customer
) -> None:
    world.time += 10
    subscribe(world, customer, items=12)
    payload = world.payload("customer.subscription.created")
    assert payload["data"]["object"]["items"]["has_more"]
    ended, counts = apply(world, payload)
    (found,) = StripeCustomer.get(USER).subscriptions
    assert ended == APPLIED
    assert counts.stripe > A_FETCH
    assert len(found.items) == 12


def test_a_subscription_that_says_nothing_of_its_items_asks_stripe(
    world: World, customer: Customer
) -> None:
    world.time += 10
    subscribe(world, customer)
    payload = world.payload("customer.subscription.created")
    del payload["data"]["object"]["items"]
    _, counts = apply(world, payload)
    assert counts.stripe == A_FETCH
    assert len(StripeCustomer.get(USER).subscriptions[0].items) == 1


def test_a_subscription_that_has_ended_never_lives_again(world: World, customer: Customer) -> None:
    world.time += 10
    subscription = subscribe(world, customer)
    created = world.payload("customer.subscription.created")
    world.time += 10
    world.ask("POST", f"/v1/subscriptions/{subscription}", {"metadata": {"a": "1"}})
    updated = world.payload("customer.subscription.updated")
    world.time += 10
    world.ask("DELETE", f"/v1/subscriptions/{subscription}")

    _, counts = apply(world, world.payload("customer.subscription.deleted"))
    assert counts.stripe == 0
    _, counts = apply(world, created)
    assert counts.stripe == 0
    ended, counts = apply(world, updated)
    assert (ended, counts.stripe) == (OLDER, 0)
    world.time += 10
    again = {**updated, "id": "evt_again", "created": int(world.time)}
    ended, counts = apply(world, again)
    assert (ended, counts.stripe) == (APPLIED, A_FETCH)

    (found,) = StripeCustomer.get(USER).subscriptions
    assert (found.stripe_id, found.status) == (subscription, "canceled")


def test_an_ended_subscription_still_takes_its_other_news(world: World, customer: Customer) -> None:
    world.time += 10
    subscription = subscribe(world, customer)
    world.time += 10
    world.ask("DELETE", f"/v1/subscriptions/{subscription}")
    deleted = world.payload("customer.subscription.deleted")
    apply(world, deleted)
    world.time += 10
    deleted["data"]["object"]["metadata"] = {"reason": "moved"}
    news = {
        **deleted,
        "id": "evt_news",
        "type": "customer.subscription.updated",
        "created": int(world.time),
    }
    _, counts = apply(world, news)
    assert counts.stripe == 0
    assert StripeCustomer.get(USER).subscriptions[0].metadata == {"reason": "moved"}


def test_a_fetch_that_found_a_card_unchanged_makes_earlier_events_older_all_the_same(
    world: World, customer: Customer
) -> None:
    world.time += 10
    method = attach_card(world, customer)
    apply(world, world.payload("payment_method.attached"))
    world.time += 10
    world.ask("POST", f"/v1/payment_methods/{method}", {"metadata": {"a": "1"}})
    changed = world.payload("payment_method.updated")
    world.time += 10
    world.ask("POST", f"/v1/payment_methods/{method}", {"metadata": {"a": ""}})
    world.time += 60
    before = world.items(record_type="Card")
    StripeCustomer.sync(StripeCustomer.get(USER))
    assert world.items(record_type="Card") == before

    ended, counts = apply(world, changed)

    assert (ended, counts.stripe) == (OLDER, 0)
    assert StripeCustomer.get(USER).cards[0].metadata in ({}, None)


def test_two_changes_of_a_card_in_one_batch_are_written_in_their_order(
    world: World, customer: Customer
) -> None:
    world.time += 10
    method = attach_card(world, customer)
    for year in (2040, 2041, 2042):
        world.time += 10
        card = {"card": {"exp_year": year}}
        world.ask("POST", f"/v1/payment_methods/{method}", card)
    world.stripe.webhooks.hold()
    world.stripe.webhooks.release("reversed")
    world.deliver()
    with world.counting() as counts:
        world.stream()
    assert counts.stripe == 0
    assert counts.operations.count("TransactWriteItems") == 1
    assert StripeCustomer.get(USER).cards[0].exp_year == 2042


def test_a_payment_method_that_is_no_card_changes_no_record(
    world: World, customer: Customer
) -> None:
    world.time += 10
    attach_card(world, customer)
    payload = world.payload("payment_method.attached")
    payload["data"]["object"]["type"] = "sepa_debit"
    received = StripeEvent.receive(payload)
    assert (received.state, received.reason) == ("ignored", "changes no record of ours")
    assert StripeCustomer.get(USER).cards == []


def test_the_removal_of_a_card_that_is_the_default_in_either_way_asks_stripe(
    world: World, customer: Customer
) -> None:
    method = attach_card(world, customer)
    sources = f"/v1/customers/{customer.stripe_id}/sources"
    source = world.ask("POST", sources, {"source": "tok_amex"})["id"]
    settings = {"invoice_settings": {"default_payment_method": method}}
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", settings)
    StripeCustomer.sync(customer)
    assert StripeCustomer.get(USER).default_source == source
    world.time += 60
    world.ask("DELETE", f"{sources}/{source}")

    ended, counts = apply(world, world.payload("customer.source.deleted"))

    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).default_source is None


def test_the_removal_of_a_card_that_a_subscription_charges_asks_stripe(
    world: World, customer: Customer
) -> None:
    method = attach_card(world, customer)
    subscription = subscribe(world, customer)
    path = f"/v1/subscriptions/{subscription}"
    world.ask("POST", path, {"default_payment_method": method})
    StripeCustomer.sync(customer)
    world.time += 60
    world.ask("POST", f"/v1/payment_methods/{method}/detach")

    ended, counts = apply(world, world.payload("payment_method.detached"))

    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).subscriptions[0].default_payment_method is None


def test_a_payload_that_names_a_removed_card_asks_stripe(world: World, customer: Customer) -> None:
    world.time += 60
    method = attach_card(world, customer)
    attached = world.payload("payment_method.attached")
    world.time += 60
    settings = {"invoice_settings": {"default_payment_method": method}}
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", settings)
    chosen = world.payload("customer.updated")
    world.time += 60
    world.ask("POST", f"/v1/payment_methods/{method}/detach")
    detached = world.payload("payment_method.detached")
    for payload in (attached, detached):
        assert apply(world, payload)[0] == APPLIED

    ended, counts = apply(world, chosen)

    assert (ended, counts.stripe) == (APPLIED, A_FETCH)
    assert StripeCustomer.get(USER).default_card_id is None


def test_what_a_deployment_did_not_keep_was_not_listed(table_name: str) -> None:
    world = World(table_name, stored_records=frozenset({"Subscription"}))
    with use(world.context):
        customer = StripeCustomer.create(USER, EMAIL)
        world.time += 60
        method = attach_card(world, customer)
        attached = world.payload("payment_method.attached")
        world.time += 60
        subscribe(world, customer)
        apply(world, {**world.payload("customer.subscription.created"), "api_version": None})
    both = World(table_name)
    both.stripe, both.time = world.stripe, world.time
    with use(both.new_context()):
        assert apply(both, attached)[0] == APPLIED
        assert [card.stripe_id for card in StripeCustomer.get(USER).cards] == [method]
