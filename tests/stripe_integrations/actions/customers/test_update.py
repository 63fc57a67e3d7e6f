"""`StripeCustomer.update`: one call to Stripe, and no older state over a newer one."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.errors import (
    ConflictError,
    CustomerSoftDeletedError,
    InvalidFieldError,
    StripeAccessError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import Customer
from tests.stripe_integrations.actions.customers.helpers import during_sleep
from tests.world import EMAIL, USER, Json, World, stored_event

POST = "POST /v1/customers/*"
DAY = 86_400
ADDRESS = {"line1": "1 Main Street", "city": "Brussels", "country": "BE"}


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL, name="Jane", metadata={"plan": "pro"})


def stored() -> Customer:
    return StripeCustomer.require(USER)


def on_stripe(world: World, customer: Customer) -> Json:
    return world.request("GET", f"/v1/customers/{customer.stripe_id}")


def posts(world: World, customer: Customer) -> list[str | None]:
    """The idempotency keys of the updates that took effect."""
    return [
        request.idempotency_key
        for request in world.stripe.requests
        if request.method == "POST"
        and request.path == f"/v1/customers/{customer.stripe_id}"
        and request.status == 200
        and not request.replayed
    ]


def during_post(world: World, action: Callable[[], object]) -> None:
    """Run an action in a process of its own while Stripe's response is in transit."""
    world.stripe.faults.delay(1, 1, match=POST)
    during_sleep(world, action)


def lose_response(world: World, customer: Customer, **arguments: Any) -> None:
    """Update a customer on Stripe in a process that gets no response."""
    world.stripe.faults.time_out(None, match=POST, should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.update(customer, **arguments)
    world.stripe.faults.clear()


class TestUpdate:
    def test_changes_customer_on_stripe_and_record(self, world: World, customer: Customer) -> None:
        values: dict[str, Any] = {
            "name": "Jane Roe",
            "description": "text",
            "phone": "+32",
            "address": ADDRESS,
            "balance": -500,
            "shipping": {"name": "Jane", "address": ADDRESS},
            "tax_exempt": "exempt",
            "preferred_locales": ["nl"],
            "invoice_prefix": "ABC123",
            "invoice_settings": {"footer": "text"},
        }

        returned = StripeCustomer.update(customer, billing_email="new@example.com", **values)

        found = on_stripe(world, customer)
        assert (found["email"], found["name"]) == ("new@example.com", "Jane Roe")
        for record in (returned, stored()):
            for name in values:
                assert getattr(record, name) == found[name], name
            assert record.email == "new@example.com"
        assert found["balance"] == -500
        assert found["address"]["city"] == "Brussels"
        assert found["preferred_locales"] == ["nl"]
        assert found["invoice_settings"]["footer"] == "text"
        assert returned.metadata == customer.metadata

    def test_leaves_other_fields(self, world: World, customer: Customer) -> None:
        StripeCustomer.update(customer, phone="+32")
        assert (stored().name, stored().email) == ("Jane", EMAIL)

    def test_returns_children(self, world: World, customer: Customer) -> None:
        method = world.attach_card(customer.stripe_id)
        StripeCustomer.sync(customer)
        updated = StripeCustomer.update(
            stored(), invoice_settings={"default_payment_method": method}
        )
        assert [card.stripe_id for card in updated.cards if card.is_default] == [method]

    def test_calls_are_limited(self, world: World, customer: Customer) -> None:
        with world.counting() as counts:
            StripeCustomer.update(customer, name="Jane Roe")
        assert (counts.database, counts.stripe) == (1, 1)

    def test_each_call_takes_effect(self, world: World, customer: Customer) -> None:
        for name in ("A", "B", "A"):
            StripeCustomer.update(stored(), name=name)
        assert on_stripe(world, customer)["name"] == stored().name == "A"
        assert len(set(posts(world, customer))) == 3

    def test_soft_deleted_record_is_refused(self, world: World, customer: Customer) -> None:
        StripeCustomer.soft_delete(customer)
        with world.counting() as counts, pytest.raises(CustomerSoftDeletedError):
            StripeCustomer.update(customer, name="Jane Roe")
        assert counts.stripe == 0

    def test_anything_but_record_is_refused(self, world: World) -> None:
        invalid: Any = USER
        with pytest.raises(InvalidFieldError, match="customer"):
            StripeCustomer.update(invalid, name="Jane Roe")


class TestClearing:
    @pytest.mark.parametrize(
        ("field", "value", "cleared"),
        [
            ("name", "Jane", None),
            ("description", "text", None),
            ("phone", "+32", None),
            ("address", ADDRESS, None),
            ("shipping", {"name": "Jane", "address": ADDRESS}, None),
            ("tax_exempt", "exempt", "none"),
        ],
    )
    def test_none_clears(
        self, world: World, customer: Customer, field: str, value: Any, cleared: object
    ) -> None:
        StripeCustomer.update(customer, **{field: value})
        assert getattr(stored(), field)
        StripeCustomer.update(stored(), **{field: None})
        assert on_stripe(world, customer)[field] == getattr(stored(), field) == cleared

    def test_email_is_cleared(self, world: World, customer: Customer) -> None:
        StripeCustomer.update(customer, billing_email=None)
        assert on_stripe(world, customer)["email"] is stored().email is None

    def test_invoice_settings_are_cleared(self, world: World, customer: Customer) -> None:
        method = world.attach_card(customer.stripe_id)
        settings = {
            "default_payment_method": method,
            "footer": "text",
            "custom_fields": [{"name": "PO", "value": "1"}],
            "rendering_options": {"amount_tax_display": "exclude_tax"},
        }
        StripeCustomer.update(customer, invoice_settings=settings)
        assert stored().default_payment_id == method

        StripeCustomer.update(stored(), invoice_settings={"default_payment_method": None})
        found = on_stripe(world, customer)["invoice_settings"]
        assert (found["default_payment_method"], found["footer"]) == (None, "text")
        assert stored().invoice_settings == found

        StripeCustomer.update(stored(), invoice_settings=None)
        found = on_stripe(world, customer)["invoice_settings"]
        assert stored().invoice_settings == found == dict.fromkeys(settings)

    def test_empty_list_clears(self, world: World, customer: Customer) -> None:
        fields = [{"name": "PO", "value": "1"}]
        StripeCustomer.update(customer, invoice_settings={"custom_fields": fields})
        StripeCustomer.update(stored(), invoice_settings={"custom_fields": []})
        found = on_stripe(world, customer)["invoice_settings"]
        assert stored().invoice_settings == found
        assert found["custom_fields"] is None

    def test_metadata_is_cleared_key_by_key(self, world: World, customer: Customer) -> None:
        ours = {key: text for key, text in (customer.metadata or {}).items() if key != "plan"}
        StripeCustomer.update(customer, metadata={"plan": None, "seats": 3, "trial": True})
        assert stored().metadata == {**ours, "seats": "3", "trial": "true"}

        StripeCustomer.update(stored(), metadata=None)

        assert on_stripe(world, customer)["metadata"] == stored().metadata == ours
        assert set(ours) == {"stripe_integrations_user_id", "stripe_integrations_token"}

    @pytest.mark.parametrize(
        "values",
        [
            {"balance": None},
            {"invoice_prefix": None},
            {"invoice_prefix": ""},
            {"default_source": None},
            {"preferred_locales": None},
            {"preferred_locales": []},
        ],
    )
    def test_what_stripe_cannot_clear_is_refused(
        self, world: World, customer: Customer, values: dict[str, Any]
    ) -> None:
        before = len(world.stripe.requests)
        with pytest.raises(InvalidFieldError, match="can't be cleared"):
            StripeCustomer.update(customer, **values)
        assert len(world.stripe.requests) == before


class TestFields:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("billing_email", ""),
            ("billing_email", 7),
            ("email", EMAIL),
            ("currency", "eur"),
            ("currency", None),
            ("delinquent", True),
            ("user_id", "u-2"),
            ("stripe_id", "cus_1"),
            ("is_active", False),
            ("version", 7),
            ("customer", "cus_1"),
            ("nonsense", 1),
            ("name", 7),
            ("balance", "7"),
            ("preferred_locales", [None]),
            ("address", {"line1": float("nan")}),
            ("metadata", {"stripe_integrations_token": None}),
            ("metadata", {"stripe_integrations_user_id": "u-2"}),
            ("metadata", {"key": ["value"]}),
            ("metadata", {1: None}),
            ("metadata", "text"),
        ],
    )
    def test_invalid_field_is_named(
        self, world: World, customer: Customer, field: str, value: Any
    ) -> None:
        before = len(world.stripe.requests)
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.update(customer, **{field: value})
        assert refusal.value.field == field
        assert len(world.stripe.requests) == before

    def test_all_invalid_fields_are_named_at_once(self, world: World, customer: Customer) -> None:
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.update(customer, balance=None, name=7, phone="1", currency="eur")
        assert refusal.value.field_errors == (
            ("balance", "can't be cleared"),
            ("name", "must be a string"),
            ("currency", "is computed by Stripe, and can't be changed"),
        )

    @pytest.mark.parametrize("depth", [8, 100_000])
    def test_nesting_is_limited(self, world: World, customer: Customer, depth: int) -> None:
        nested: dict[str, object] = {}
        for _ in range(depth):
            nested = {"line1": nested}
        with pytest.raises(InvalidFieldError, match="nested too deeply"):
            StripeCustomer.update(customer, address=nested)

    def test_size_of_all_is_limited(self, world: World, customer: Customer) -> None:
        with pytest.raises(InvalidFieldError, match="too long"):
            StripeCustomer.update(customer, address={"line1": "x" * 70_000})


class TestRefusal:
    @pytest.mark.parametrize(
        ("values", "field", "reason"),
        [
            ({"tax_exempt": "perhaps"}, "tax_exempt", "rejected by Stripe"),
            (
                {"default_source": "tok_chargeDeclined"},
                "default_source",
                "rejected by Stripe (card_declined)",
            ),
            (
                {"invoice_settings": {"default_payment_method": "pm_other"}},
                "invoice_settings[default_payment_method]",
                "rejected by Stripe (resource_missing)",
            ),
        ],
    )
    def test_of_field_is_named(
        self, world: World, customer: Customer, values: dict[str, Any], field: str, reason: str
    ) -> None:
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.update(customer, **values)
        assert refusal.value.field_errors == ((field, reason),)
        assert stored().modified_at == customer.modified_at

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, StripeRefusedError),
            (401, StripeAccessError),
            (404, StripeRefusedError),
            (429, StripeUnavailableError),
            (503, StripeUnavailableError),
        ],
    )
    def test_leaves_record(
        self, world: World, customer: Customer, status: int, error: type[Exception]
    ) -> None:
        world.stripe.faults.fail_next(None, status=status, code="resource_missing")
        with pytest.raises(error):
            StripeCustomer.update(customer, name="Jane Roe")
        world.stripe.faults.clear()
        assert (stored().name, stored().is_active) == ("Jane", True)


class TestDefaultSource:
    def test_token_becomes_source_and_is_stored(self, world: World, customer: Customer) -> None:
        StripeCustomer.update(customer, default_source="tok_visa")
        replaced = stored().default_source

        updated = StripeCustomer.update(stored(), default_source="tok_amex", name="Jane Roe")

        assert updated.default_source != replaced
        for record in (updated, stored()):
            assert record.name == "Jane Roe"
            assert [card.brand for card in record.cards] == ["American Express"]
            assert record.cards[0].is_default

    def test_attached_source_becomes_default(self, world: World, customer: Customer) -> None:
        path = f"/v1/customers/{customer.stripe_id}/sources"
        cards = [world.request("POST", path, {"source": "tok_visa"})["id"] for _ in range(2)]
        StripeCustomer.update(customer, default_source=cards[1])
        assert stored().default_source == cards[1]
        assert {card.stripe_id for card in stored().cards} == set(cards)


class TestConcurrency:
    def test_overtaken_response_is_not_written(self, world: World, customer: Customer) -> None:
        def change_and_sync() -> None:
            world.rename(customer.stripe_id, "Newest")
            StripeCustomer.sync(stored())

        during_post(world, change_and_sync)
        updated = StripeCustomer.update(customer, name="Older")

        assert (updated.name, stored().name) == ("Newest", "Newest")
        assert len(posts(world, customer)) == 2  # this one, and the one of `rename`

    def test_two_updates_of_different_fields_are_both_stored(
        self, world: World, customer: Customer
    ) -> None:
        during_post(world, lambda: StripeCustomer.update(stored(), phone="+32"))
        StripeCustomer.update(customer, name="Jane Roe")
        assert (stored().name, stored().phone) == ("Jane Roe", "+32")

    def test_event_is_compared_with_response(self, world: World, customer: Customer) -> None:
        world.rename(customer.stripe_id, "Before")
        older = world.receive()
        world.time += 60
        StripeCustomer.update(stored(), name="Jane Roe")
        with world.counting() as counts:
            world.stream_events(older)
        assert (stored().name, counts.stripe) == ("Jane Roe", 0)

    def test_record_soft_deleted_in_the_meantime_is_unchanged(
        self, world: World, customer: Customer
    ) -> None:
        during_post(world, lambda: StripeCustomer.soft_delete(stored()))
        with pytest.raises(CustomerSoftDeletedError):
            StripeCustomer.update(customer, name="Jane Roe")
        (record,) = world.items(record_type="Customer")
        assert (record["name"], record["is_active"]) == ("Jane", False)

    def test_record_changed_every_time_is_conflict(self, world: World, customer: Customer) -> None:
        numbers = iter(range(100))

        def write() -> None:
            data = {"id": customer.stripe_id, "name": f"Name {next(numbers)}"}
            StripeCustomer.sync_from_stripe_data(stored(), data)

        world.stripe.faults.delay(1, None, match="* /v1/customers/*")
        during_sleep(world, write, times=inf)
        with pytest.raises(ConflictError):
            StripeCustomer.update(customer, name="Jane Roe")
        assert len(posts(world, customer)) == 1


class TestOwnEvent:
    @pytest.mark.parametrize("key", [None, "k-1"])
    def test_needs_no_fetch(self, world: World, customer: Customer, key: str | None) -> None:
        StripeCustomer.update(customer, name="Jane Roe", idempotency_key=key)
        event = world.receive()
        with world.counting() as counts:
            world.stream_events(event)
        assert counts.stripe == 0
        assert stored_event(event).state == "applied"
        assert stored().name == "Jane Roe"

    def test_does_not_hide_another_change_of_its_second(
        self, world: World, customer: Customer
    ) -> None:
        StripeCustomer.update(customer, name="Jane Roe")
        own = world.receive()
        world.rename(customer.stripe_id, "Newest")
        world.stream_events(own, world.receive())
        assert stored().name == "Newest"

    def test_of_key_that_is_used_again_a_day_later_is_applied(
        self, world: World, customer: Customer
    ) -> None:
        StripeCustomer.update(customer, name="Jane Roe", idempotency_key="k-1")
        world.time += 2 * DAY
        lose_response(world, stored(), name="Newest", idempotency_key="k-1")
        event = world.receive()
        world.stream_events(event)
        assert stored().name == "Newest"

    @pytest.mark.parametrize("sync", [StripeCustomer.sync, StripeCustomer.sync_from_stripe_data])
    def test_replaces_older_object_that_caller_passed(
        self, world: World, customer: Customer, sync: Callable[[Customer, Json], Customer]
    ) -> None:
        path = f"/v1/customers/{customer.stripe_id}"
        older = world.request("GET", path, {"expand": ["sources"]})
        StripeCustomer.update(customer, name="Jane Roe")
        event = world.receive()
        sync(stored(), older)
        world.stream_events(event)
        assert stored().name == "Jane Roe"

    def test_replayed_one_is_fetched(self, world: World, customer: Customer) -> None:
        StripeCustomer.update(customer, name="Jane Roe")
        event = world.receive()
        world.stream_events(event)
        StripeEvent.replay(event)
        assert stored_event(event).state == "applied"
        assert world.stripe.requests[-1].method == "GET"


class TestDeletedOnStripe:
    def test_record_is_soft_deleted(self, world: World, customer: Customer) -> None:
        world.subscribe(customer.stripe_id)
        StripeCustomer.sync(customer)
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        with pytest.raises(CustomerSoftDeletedError):
            StripeCustomer.update(stored(), name="Jane Roe")
        assert StripeCustomer.get(USER) is None
        (record,) = world.items(record_type="Customer")
        assert (record["deleted"], record["name"]) == (True, "Jane")
        (subscription,) = world.items(record_type="Subscription")
        assert subscription["status"] == "canceled"

    def test_after_update_is_not_success(self, world: World, customer: Customer) -> None:
        def change_and_delete() -> None:
            StripeCustomer.sync(stored())
            world.request("DELETE", f"/v1/customers/{customer.stripe_id}")

        during_post(world, change_and_delete)
        with pytest.raises(CustomerSoftDeletedError):
            StripeCustomer.update(customer, name="Jane Roe")
        assert StripeCustomer.get(USER) is None

    def test_before_repeated_call_is_not_success(self, world: World, customer: Customer) -> None:
        StripeCustomer.update(customer, name="Jane Roe", idempotency_key="k-1")
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        with pytest.raises(CustomerSoftDeletedError):
            StripeCustomer.update(stored(), name="Jane Roe", idempotency_key="k-1")
        assert StripeCustomer.get(USER) is None

    def test_404_with_existing_customer_is_no_deletion(
        self, world: World, customer: Customer
    ) -> None:
        world.stripe.faults.fail_next(1, status=404, code="resource_missing", match=POST)
        with pytest.raises(StripeRefusedError):
            StripeCustomer.update(customer, name="Jane Roe")
        assert stored().is_active


class TestIdempotencyKey:
    def test_repeated_call_takes_effect_once(self, world: World, customer: Customer) -> None:
        for _ in range(2):
            StripeCustomer.update(stored(), name="Jane Roe", idempotency_key="k-1")
        assert posts(world, customer) == [f"{customer.stripe_id}/k-1"]

    def test_replayed_response_is_not_written(self, world: World, customer: Customer) -> None:
        lose_response(world, customer, name="Older", idempotency_key="k-1")
        world.time += 3600
        world.rename(customer.stripe_id, "Newest")
        StripeCustomer.sync(stored())

        updated = StripeCustomer.update(stored(), name="Older", idempotency_key="k-1")

        assert (updated.name, stored().name) == ("Newest", "Newest")

    def test_response_that_librarys_retry_gets_is_not_written(
        self, world: World, customer: Customer
    ) -> None:
        world.stripe.faults.time_out(1, match=POST)
        during_sleep(world, lambda: world.rename(customer.stripe_id, "Newest"))
        StripeCustomer.update(customer, name="Older")
        assert stored().name == on_stripe(world, customer)["name"] == "Newest"

    def test_call_without_key_takes_effect_again(self, world: World, customer: Customer) -> None:
        lose_response(world, customer, name="Jane Roe")
        StripeCustomer.update(customer, name="Jane Roe")
        assert stored().name == "Jane Roe"
        assert len(posts(world, customer)) == 2

    def test_key_used_with_other_values_is_refused(self, world: World, customer: Customer) -> None:
        StripeCustomer.update(customer, name="Jane Roe", idempotency_key="k-1")
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.update(stored(), name="Other", idempotency_key="k-1")
        assert refusal.value.field == "idempotency_key"
        assert stored().name == on_stripe(world, customer)["name"] == "Jane Roe"

    def test_metadata_is_cleared_by_naming_its_keys(self, world: World, customer: Customer) -> None:
        with world.counting() as counts, pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.update(customer, metadata=None, idempotency_key="k-1")
        assert (refusal.value.field, counts.stripe) == ("metadata", 0)
        for _ in range(2):
            StripeCustomer.update(stored(), metadata={"plan": None}, idempotency_key="k-1")
        assert "plan" not in stored().metadata
        assert posts(world, customer) == [f"{customer.stripe_id}/k-1"]

    def test_key_of_another_customer_is_another_key(self, world: World, customer: Customer) -> None:
        StripeCustomer.update(customer, name="Jane Roe", idempotency_key="k-1")
        StripeCustomer.soft_delete(stored())
        other = StripeCustomer.create(USER, EMAIL)
        StripeCustomer.update(other, name="Other", idempotency_key="k-1")
        assert stored().name == "Other"

    def test_stored_failure_is_that_of_its_key(self, world: World, customer: Customer) -> None:
        world.stripe.faults.fail_next(1, status=500, match=POST)
        for _ in range(2):
            with pytest.raises(StripeUnavailableError):
                StripeCustomer.update(stored(), name="Jane Roe", idempotency_key="k-1")
        StripeCustomer.update(stored(), name="Jane Roe", idempotency_key="k-2")
        assert stored().name == "Jane Roe"

    def test_key_in_use_is_retried_later(self, world: World, customer: Customer) -> None:
        world.stripe.faults.fail_next(None, status=409, match=POST)
        with pytest.raises(StripeUnavailableError):
            StripeCustomer.update(customer, name="Jane Roe", idempotency_key="k-1")

    @pytest.mark.parametrize("key", ["", "k" * 201, "ü", "a\nb", 7])
    def test_invalid_key_is_refused(self, world: World, customer: Customer, key: Any) -> None:
        with world.counting() as counts, pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.update(customer, name="Jane Roe", idempotency_key=key)
        assert refusal.value.field == "idempotency_key"
        assert counts.stripe == 0

    def test_longest_key_is_accepted(self, world: World, customer: Customer) -> None:
        assert StripeCustomer.update(customer, name="A", idempotency_key="k" * 200).name == "A"
