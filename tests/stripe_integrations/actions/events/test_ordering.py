"""The order rule: newer payloads are written, older ones dropped, ambiguous ones fetched.

A fetch costs three calls to Stripe: the customer, its cards, its subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.errors import StripeUnavailableError
from stripe_integrations.models import Card, Customer, Event, Subscription
from tests.stripe_changes import detach_card
from tests.world import EMAIL, USER, Counts, Json, World, stored_event

OLDER = ("ignored", "older than the stored state")
APPLIED = ("applied", None)
FETCH_CALLS = 3

Ended = tuple[str, str | None]


def rename(world: World, customer: Customer, name: str = "Newest") -> Json:
    """Change the customer on Stripe; the event of it."""
    world.rename(customer.stripe_id, name)
    return world.payload()


def attach(world: World, customer: Customer) -> tuple[str, Json]:
    """Attach a card; its id and the event of it."""
    method = world.attach_card(customer.stripe_id)
    return method, world.payload("payment_method.attached")


def update_card(world: World, method: str, value: str = "1") -> Json:
    """Change a card on Stripe; the event of it."""
    world.request("POST", f"/v1/payment_methods/{method}", {"metadata": {"a": value}})
    return world.payload("payment_method.updated")


def detach(world: World, method: str) -> Json:
    """Detach a card on Stripe; the event of it."""
    detach_card(world, method)
    return world.payload("payment_method.detached")


def sources_of(customer: Customer) -> str:
    """Where Stripe has the cards of the older shape."""
    return f"/v1/customers/{customer.stripe_id}/sources"


def add_source(world: World, customer: Customer, source: str = "tok_visa") -> str:
    return str(world.request("POST", sources_of(customer), {"source": source})["id"])


def apply(world: World, payload: Json) -> tuple[Ended, Counts]:
    """Receive and apply an event; how it ended, and what applying it cost."""
    StripeEvent.receive(payload)
    with world.counting() as counts:
        StripeEvent.apply(payload["id"])
    event = stored_event(payload["id"])
    return (event.state, event.reason), counts


def apply_calls(world: World, payload: Json) -> tuple[Ended, int]:
    """Receive and apply an event; how it ended, and after how many calls to Stripe."""
    ended, counts = apply(world, payload)
    return ended, counts.stripe


def name() -> str | None:
    return StripeCustomer.require(USER).name


def cards() -> list[Card]:
    return StripeCustomer.require(USER).cards


def card_ids() -> list[str]:
    return [card.stripe_id for card in cards()]


def subscriptions() -> list[Subscription]:
    return StripeCustomer.require(USER).subscriptions


class TestCustomer:
    def test_newer_payload_is_written(self, world: World, customer: Customer) -> None:
        world.time += 1
        ended, counts = apply(world, rename(world, customer))
        assert (ended, counts.stripe) == (APPLIED, 0)
        assert counts.operations == ["UpdateItem", "Query", "TransactWriteItems"]
        assert name() == "Newest"

    def test_older_payload_is_dropped(self, world: World, customer: Customer) -> None:
        world.time += 10
        older = rename(world, customer, "Older")
        world.time += 10
        apply(world, rename(world, customer))
        before = world.items(record_type="Customer")

        ended, counts = apply(world, older)

        assert ended == OLDER
        assert world.items(record_type="Customer") == before
        assert (counts.database, counts.stripe) == (3, 0)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_second_change_of_the_same_second_is_fetched(
        self, world: World, customer: Customer, order: tuple[int, int]
    ) -> None:
        world.time += 10
        payloads = [rename(world, customer, "First"), rename(world, customer, "Last")]
        _, first = apply(world, payloads[order[0]])
        assert first.stripe == 0
        ended, second = apply(world, payloads[order[1]])
        assert (ended, second.stripe) == (APPLIED, FETCH_CALLS)
        assert second.operations == ["UpdateItem", "Query", "UpdateItem", "TransactWriteItems"]
        assert name() == "Last"

    def test_payload_that_equals_the_stored_state_needs_no_fetch(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 10
        first, last = [rename(world, customer, "First"), rename(world, customer, "Last")]
        StripeCustomer.sync(customer)
        before = world.items(record_type="Customer")

        assert apply_calls(world, last) == (APPLIED, 0)
        assert world.items(record_type="Customer") == before

        assert apply_calls(world, first) == (APPLIED, FETCH_CALLS)
        assert name() == "Last"

    def test_change_in_second_of_create_is_fetched(self, world: World, customer: Customer) -> None:
        assert apply_calls(world, rename(world, customer)) == (APPLIED, FETCH_CALLS)
        assert name() == "Newest"

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    def test_repeated_name_survives_any_order(
        self, world: World, customer: Customer, order: tuple[int, ...]
    ) -> None:
        payloads = []
        for value in ("A", "B", "A"):
            world.time += 10
            payloads.append(rename(world, customer, value))
        ends = {}
        for number in order:
            ends[number], calls = apply_calls(world, payloads[number])
            assert calls == 0
        assert name() == "A"
        assert ends[2] == APPLIED
        assert {ends[0], ends[1]} <= {APPLIED, OLDER}

    def test_customer_created_does_not_change_stored_record(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 10
        apply(world, rename(world, customer))
        created = {**world.payload("customer.created"), "id": "evt_again"}
        assert apply_calls(world, created) == (APPLIED, 0)
        assert name() == "Newest"

    def test_completed_checkout_is_fetched(self, world: World, customer: Customer) -> None:
        world.time += 10
        method, _ = attach(world, customer)
        subscription = world.subscribe(customer.stripe_id)
        world.time += 10
        world.stripe.complete_checkout_session(customer.stripe_id)

        completed = world.payload("checkout.session.completed")
        assert apply_calls(world, completed) == (APPLIED, FETCH_CALLS)

        assert card_ids() == [method]
        assert [found.stripe_id for found in subscriptions()] == [subscription]

    def test_deletion_is_permanent(self, world: World, customer: Customer) -> None:
        world.time += 10
        apply(world, attach(world, customer)[1])
        world.time += 10
        late = rename(world, customer, "Too late")
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")

        assert apply_calls(world, world.payload("customer.deleted")) == (APPLIED, 0)
        assert StripeCustomer.get(USER) is None
        assert all("removed_at" in card for card in world.items(record_type="Card"))

        assert apply_calls(world, late) == (("ignored", "the customer is deleted"), 0)


def in_another_version(payload: Json) -> None:
    payload["api_version"] = "2025-02-24.acacia"


def of_a_test_clock(payload: Json) -> None:
    payload["data"]["object"]["test_clock"] = "clock_1"


def from_the_future(payload: Json) -> None:
    payload["created"] += 6


def without_its_id(payload: Json) -> None:
    payload["data"]["object"] = {"customer": payload["data"]["object"]["id"]}


class TestUntrustedPayload:
    @pytest.mark.parametrize(
        "change", [in_another_version, of_a_test_clock, from_the_future, without_its_id]
    )
    def test_untrusted_payload_is_fetched(
        self, world: World, customer: Customer, change: Callable[[Json], None]
    ) -> None:
        world.time += 10
        payload = rename(world, customer)
        payload["data"]["object"]["name"] = "Not so"
        change(payload)
        assert apply_calls(world, payload) == (APPLIED, FETCH_CALLS)
        assert name() == "Newest"

    def test_omitted_payload_is_fetched(self, world: World, customer: Customer) -> None:
        world.time += 10
        payload = rename(world, customer)
        StripeEvent.receive(payload)
        stored_event(payload["id"]).update([Event.webhook_message.remove()])
        assert apply_calls(world, payload) == (APPLIED, FETCH_CALLS)
        assert name() == "Newest"

    def test_customer_of_test_clock_is_fetched(self, world: World, customer: Customer) -> None:
        world.stripe.change_customer(customer.stripe_id, test_clock="clock_1")
        StripeCustomer.sync(customer)
        world.time += 60
        payload = rename(world, customer)
        payload["data"]["object"]["test_clock"] = None
        assert apply_calls(world, payload) == (APPLIED, FETCH_CALLS)

    def test_stamp_within_clock_skew_is_trusted(self, world: World, customer: Customer) -> None:
        payload = rename(world, customer)
        payload["created"] += 5
        payload["data"]["object"]["name"] = "As in the payload"
        assert apply_calls(world, payload) == (APPLIED, 0)
        assert name() == "As in the payload"


class TestFetchWindow:
    """A fetch is compared with an event by their seconds, within what clocks may differ."""

    @pytest.mark.parametrize(
        ("distance", "ended", "calls"),
        [
            (-6, OLDER, 0),
            (-5, APPLIED, FETCH_CALLS),
            (0, APPLIED, FETCH_CALLS),
            (5, APPLIED, FETCH_CALLS),
            (6, APPLIED, 0),
        ],
    )
    def test_event_within_clock_skew_is_fetched(
        self, world: World, customer: Customer, distance: int, ended: Ended, calls: int
    ) -> None:
        world.time += 100
        StripeCustomer.sync(customer)
        payload = rename(world, customer)
        payload["created"] = int(world.time) + distance
        world.time += 20
        assert apply_calls(world, payload) == (ended, calls)
        assert name() == (None if ended == OLDER else "Newest")

    @pytest.mark.parametrize("sync", [StripeCustomer.sync_from_stripe_data, StripeCustomer.sync])
    def test_given_object_of_unknown_age_drops_nothing(
        self, world: World, customer: Customer, sync: Callable[[Customer, Json], Customer]
    ) -> None:
        path = f"/v1/customers/{customer.stripe_id}"
        given = world.request("GET", path, {"expand": ["sources"]})
        world.time += 50
        payload = rename(world, customer)
        world.time += 50
        sync(StripeCustomer.require(USER), given)

        assert apply_calls(world, payload) == (APPLIED, FETCH_CALLS)
        assert name() == "Newest"

    def test_repeated_response_of_create_is_as_old_as_the_create(self, world: World) -> None:
        world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
        with pytest.raises(StripeUnavailableError):
            StripeCustomer.create(USER, EMAIL, name="As created")
        on_stripe = Customer(stripe_id=world.stripe_customers()[0]["id"])
        world.time += 50
        renamed = rename(world, on_stripe)
        method, attached = attach(world, on_stripe)
        world.time += 50
        assert StripeCustomer.create(USER, EMAIL).name == "As created"

        for payload in (renamed, attached):
            assert apply_calls(world, payload) == (APPLIED, 0)

        assert (name(), card_ids()) == ("Newest", [method])


class TestCard:
    def test_newer_card_is_written(self, world: World, customer: Customer) -> None:
        world.time += 10
        method, attached = attach(world, customer)
        ended, counts = apply(world, attached)
        assert (ended, counts.stripe) == (APPLIED, 0)
        assert counts.operations == ["UpdateItem", "Query", "TransactWriteItems"]
        (card,) = cards()
        assert (card.stripe_id, card.brand, card.last4) == (method, "visa", "4242")

    def test_unknown_card_near_listing_is_fetched(self, world: World, customer: Customer) -> None:
        StripeCustomer.sync(customer)
        world.time += 3
        method, attached = attach(world, customer)
        assert apply_calls(world, attached) == (APPLIED, FETCH_CALLS)
        assert card_ids() == [method]

    def test_unknown_card_older_than_listing_is_dropped(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 10
        method, attached = attach(world, customer)
        detach(world, method)
        world.time += 10
        StripeCustomer.sync(customer)

        assert apply_calls(world, attached) == (OLDER, 0)
        assert card_ids() == []

    def test_card_of_kind_that_was_not_stored_is_newer(self, world: World) -> None:
        usual = world.settings.stored_records
        world.configure(stored_records=frozenset({"Subscription"}))
        customer = StripeCustomer.create(USER, EMAIL)
        world.time += 60
        method, attached = attach(world, customer)
        world.time += 60
        world.subscribe(customer.stripe_id)
        apply(world, {**world.payload("customer.subscription.created"), "api_version": None})
        world.configure(stored_records=usual)

        assert apply(world, attached)[0] == APPLIED
        assert card_ids() == [method]

    def test_batch_is_written_in_its_order(self, world: World, customer: Customer) -> None:
        world.time += 10
        method, _ = attach(world, customer)
        for year in (2040, 2041, 2042):
            world.time += 10
            world.request("POST", f"/v1/payment_methods/{method}", {"card": {"exp_year": year}})
        world.stripe.webhooks.hold()
        world.stripe.webhooks.release("reversed")
        world.deliver()
        with world.counting() as counts:
            world.stream()
        assert counts.stripe == 0
        assert counts.operations.count("TransactWriteItems") == 1
        assert cards()[0].exp_year == 2042

    def test_unchanged_card_is_as_new_as_its_fetch(self, world: World, customer: Customer) -> None:
        world.time += 10
        method, attached = attach(world, customer)
        apply(world, attached)
        world.time += 10
        changed = update_card(world, method)
        world.time += 10
        update_card(world, method, "")
        world.time += 60
        before = world.items(record_type="Card")
        StripeCustomer.sync(StripeCustomer.require(USER))
        assert world.items(record_type="Card") == before

        assert apply_calls(world, changed) == (OLDER, 0)
        assert cards()[0].metadata in ({}, None)

    def test_other_payment_method_is_ignored(self, world: World, customer: Customer) -> None:
        world.time += 10
        _, payload = attach(world, customer)
        payload["data"]["object"]["type"] = "sepa_debit"
        received = StripeEvent.receive(payload)
        assert (received.state, received.reason) == ("ignored", "changes no record of ours")


class TestRemovedCard:
    def test_known_card_is_removed(self, world: World, customer: Customer) -> None:
        world.time += 10
        method, attached = attach(world, customer)
        apply(world, attached)
        world.time += 10

        assert apply_calls(world, detach(world, method)) == (APPLIED, 0)
        assert card_ids() == []
        (tombstone,) = world.items(record_type="Card")
        assert "last4" not in tombstone

    def test_card_removed_before_attachment_stays_removed(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 10
        method, attached = attach(world, customer)
        world.time += 10
        updated = update_card(world, method)
        world.time += 10

        assert apply_calls(world, detach(world, method)) == (APPLIED, 0)
        (tombstone,) = world.items(record_type="Card")
        assert "removed_at" in tombstone
        assert apply_calls(world, attached)[1] == 0
        assert apply_calls(world, updated) == (OLDER, 0)

        assert card_ids() == []
        assert world.items(record_type="Card") == [tombstone]

    def test_resurrection_is_fetched(self, world: World, customer: Customer) -> None:
        world.time += 10
        method, _ = attach(world, customer)
        updated = update_card(world, method)
        world.time += 10
        apply(world, detach(world, method))
        world.time += 10

        newer = {**updated, "created": int(world.time)}
        assert apply_calls(world, newer) == (APPLIED, FETCH_CALLS)
        assert card_ids() == []

    def test_payload_that_equals_the_stored_state_needs_no_fetch(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 10
        method, _ = attach(world, customer)
        first, last = [update_card(world, method, "1"), update_card(world, method, "2")]
        StripeCustomer.sync(customer)
        before = world.items(record_type="Card")

        assert apply_calls(world, last) == (APPLIED, 0)
        assert apply_calls(world, first) == (APPLIED, FETCH_CALLS)
        assert world.items(record_type="Card") == before

    def test_removal_in_second_of_last_change_is_fetched(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 10
        method, _ = attach(world, customer)
        apply(world, update_card(world, method))
        assert apply_calls(world, detach(world, method)) == (APPLIED, FETCH_CALLS)
        assert card_ids() == []

    def test_removal_of_card_that_subscription_charges_is_fetched(
        self, world: World, customer: Customer
    ) -> None:
        method, _ = attach(world, customer)
        path = f"/v1/subscriptions/{world.subscribe(customer.stripe_id)}"
        world.request("POST", path, {"default_payment_method": method})
        StripeCustomer.sync(customer)
        world.time += 60

        assert apply_calls(world, detach(world, method)) == (APPLIED, FETCH_CALLS)
        assert subscriptions()[0].default_payment_method is None

    def test_payload_that_names_removed_card_is_fetched(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 60
        method, attached = attach(world, customer)
        world.time += 60
        settings = {"invoice_settings": {"default_payment_method": method}}
        world.request("POST", f"/v1/customers/{customer.stripe_id}", settings)
        chosen = world.payload()
        world.time += 60
        for payload in (attached, detach(world, method)):
            assert apply(world, payload)[0] == APPLIED

        assert apply_calls(world, chosen) == (APPLIED, FETCH_CALLS)
        assert StripeCustomer.require(USER).default_payment_id is None


class TestSource:
    """Cards of the older shape."""

    @pytest.mark.parametrize(("removed", "calls"), [(0, FETCH_CALLS), (1, 0)])
    def test_removal_of_default_is_fetched(
        self, world: World, customer: Customer, removed: int, calls: int
    ) -> None:
        tokens = ("tok_visa", "tok_amex")
        added = [add_source(world, customer, token) for token in tokens]
        StripeCustomer.sync(customer)
        world.time += 60
        world.request("DELETE", f"{sources_of(customer)}/{added.pop(removed)}")

        assert apply_calls(world, world.payload("customer.source.deleted")) == (APPLIED, calls)

        assert card_ids() == added
        assert StripeCustomer.require(USER).default_source == added[0]

    def test_removal_of_default_beside_payment_method_is_fetched(
        self, world: World, customer: Customer
    ) -> None:
        method, _ = attach(world, customer)
        source = add_source(world, customer)
        settings = {"invoice_settings": {"default_payment_method": method}}
        world.request("POST", f"/v1/customers/{customer.stripe_id}", settings)
        StripeCustomer.sync(customer)
        assert StripeCustomer.require(USER).default_source == source
        world.time += 60
        world.request("DELETE", f"{sources_of(customer)}/{source}")

        removal = world.payload("customer.source.deleted")
        assert apply_calls(world, removal) == (APPLIED, FETCH_CALLS)
        assert StripeCustomer.require(USER).default_source is None

    def test_payment_method_event_of_source_is_fetched(
        self, world: World, customer: Customer
    ) -> None:
        path = f"{sources_of(customer)}/{add_source(world, customer)}"
        world.request("POST", path, {"name": "Jane Roe"})
        StripeCustomer.sync(customer)
        (before,) = cards()
        world.time += 60
        world.request("POST", path, {"exp_year": 2040})
        payload = world.payload("payment_method.updated")
        assert payload["data"]["object"]["id"] == before.stripe_id

        assert apply_calls(world, payload) == (APPLIED, FETCH_CALLS)

        (card,) = cards()
        assert (card.brand, card.name, card.exp_year) == (before.brand, "Jane Roe", 2040)

    @pytest.mark.parametrize("kind", ["customer.source.created", "customer.source.updated"])
    def test_change_is_fetched(self, world: World, customer: Customer, kind: str) -> None:
        world.time += 10
        path = f"{sources_of(customer)}/{add_source(world, customer)}"
        world.request("POST", path, {"exp_year": 2040})
        assert apply_calls(world, world.payload(kind)) == (APPLIED, FETCH_CALLS)
        assert cards()[0].exp_year == 2040


class TestSubscription:
    @pytest.fixture
    def subscription(self, world: World, customer: Customer) -> str:
        world.time += 10
        return world.subscribe(customer.stripe_id)

    def test_newer_subscription_is_written(self, world: World, subscription: str) -> None:
        created = world.payload("customer.subscription.created")
        assert apply_calls(world, created) == (APPLIED, 0)
        (found,) = subscriptions()
        assert (found.stripe_id, found.status, len(found.items)) == (subscription, "active", 1)

    def test_partial_list_of_items_is_fetched(self, world: World, customer: Customer) -> None:
        world.time += 10
        world.subscribe(customer.stripe_id, items=12)
        payload = world.payload("customer.subscription.created")
        assert payload["data"]["object"]["items"]["has_more"]
        ended, calls = apply_calls(world, payload)
        assert ended == APPLIED
        assert calls > FETCH_CALLS
        assert len(subscriptions()[0].items) == 12
        # Nothing precedes the creation: what is stored includes it, however long its list is.
        assert apply_calls(world, {**payload, "id": "evt_again"}) == (APPLIED, 0)

    def test_missing_items_are_fetched(self, world: World, subscription: str) -> None:
        payload = world.payload("customer.subscription.created")
        del payload["data"]["object"]["items"]
        assert apply_calls(world, payload) == (APPLIED, FETCH_CALLS)
        assert len(subscriptions()[0].items) == 1

    def test_ended_subscription_stays_ended(self, world: World, subscription: str) -> None:
        path = f"/v1/subscriptions/{subscription}"
        world.time += 10
        world.request("POST", path, {"metadata": {"a": "1"}})
        updated = world.payload("customer.subscription.updated")
        world.time += 10
        world.request("DELETE", path)

        for kind in ("deleted", "created"):
            assert apply_calls(world, world.payload(f"customer.subscription.{kind}"))[1] == 0
        assert apply_calls(world, updated) == (OLDER, 0)
        world.time += 10
        again = {**updated, "id": "evt_again", "created": int(world.time)}
        assert apply_calls(world, again) == (APPLIED, FETCH_CALLS)

        (found,) = subscriptions()
        assert (found.stripe_id, found.status) == (subscription, "canceled")

    def test_ended_subscription_takes_other_changes(self, world: World, subscription: str) -> None:
        world.time += 10
        world.request("DELETE", f"/v1/subscriptions/{subscription}")
        deleted = world.payload("customer.subscription.deleted")
        apply(world, deleted)
        world.time += 10
        deleted["data"]["object"]["metadata"] = {"reason": "moved"}
        changes = {"id": "evt_2", "created": int(world.time)}
        updated = {**deleted, "type": "customer.subscription.updated", **changes}
        assert apply_calls(world, updated) == (APPLIED, 0)
        assert subscriptions()[0].metadata == {"reason": "moved"}
