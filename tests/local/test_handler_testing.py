"""Events and customers for the tests of custom handlers."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from local.handler_testing import handle, stripe_customer, stripe_event
from stripe_integrations.actions.events.event_types import CUSTOMER_EVENT_TYPES
from stripe_integrations.errors import UnprocessableEventError
from stripe_integrations.models import Customer, Event


class TestCustomer:
    def test_has_fields_card_and_subscription(self) -> None:
        customer = stripe_customer("u-7", email="jenny@example.com", metadata={"plan": "pro"})
        assert (customer.user_id, customer.email) == ("u-7", "jenny@example.com")
        assert (customer.metadata, customer.is_active) == ({"plan": "pro"}, True)
        (card,), (subscription,) = customer.cards, customer.subscriptions
        assert (card.last4, card.is_default) == ("4242", True)
        assert (subscription.status, subscription.customer_id) == ("active", customer.stripe_id)

    def test_is_new_each_time(self) -> None:
        assert stripe_customer().stripe_id != stripe_customer().stripe_id

    def test_with_unknown_field_is_refused(self) -> None:
        with pytest.raises(ValueError, match="nickname"):
            stripe_customer(nickname="Jenny")


class TestEvent:
    @pytest.mark.parametrize(
        ("kind", "data_object", "fields"),
        [
            *((kind, kind.rpartition(".")[0], {}) for kind in CUSTOMER_EVENT_TYPES),
            ("payment_method.attached", "payment_method", {"type": "card"}),
            ("payment_method.detached", "payment_method", {"customer": None}),
            ("customer.tax_id.created", "tax_id", {"type": "eu_vat"}),
            ("customer.subscription.updated", "subscription", {"cancel_at_period_end": True}),
            ("customer.subscription.deleted", "subscription", {"status": "canceled"}),
            ("customer.subscription.trial_will_end", "subscription", {"status": "active"}),
            ("invoice.paid", "invoice", {"status": "paid", "amount_paid": 500}),
            ("invoice.voided", "invoice", {"amount_paid": 500}),
            ("price.created", "price", {"unit_amount": 500}),
        ],
    )
    def test_has_object_of_its_type(
        self, kind: str, data_object: str, fields: dict[str, Any]
    ) -> None:
        customer = stripe_customer()
        event = stripe_event(kind, customer=customer)
        assert (event.kind, event.user_id) == (kind, "user-1")
        assert event.data_object["object"] == data_object
        assert fields.items() <= event.data_object.items()
        if "customer" in event.data_object and kind != "payment_method.detached":
            assert event.data_object["customer"] == customer.stripe_id

    def test_has_changed_fields(self) -> None:
        event = stripe_event("invoice.paid", customer=stripe_customer(), amount_paid=700)
        assert event.data_object["amount_paid"] == 700

    def test_without_customer_is_of_unknown_customer(self) -> None:
        event = stripe_event("invoice.paid")
        assert (event.user_id, event.customer_id) == (None, event.data_object["customer"])

    def test_needs_data_object_if_the_double_has_none(self) -> None:
        customer = stripe_customer()
        with pytest.raises(LookupError, match=r"no object of charge\.refunded"):
            stripe_event("charge.refunded", customer=customer)
        charge = {"id": "ch_1", "object": "charge", "customer": customer.stripe_id}
        event = stripe_event("charge.refunded", customer=customer, data_object=charge, amount=5)
        assert event.data_object == {**charge, "amount": 5}
        assert event.stripe_id.startswith("evt_")


class TestHandle:
    @pytest.fixture
    def called(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Event, Customer | None]]:
        """The calls of the declared handler."""
        called: list[tuple[Event, Customer | None]] = []

        def note(event: Event, customer: Customer | None) -> None:
            called.append((event, customer))
            if customer is None:
                raise UnprocessableEventError("of no customer")

        declaration, hooks = ModuleType("stripe_event_handlers"), ModuleType("hooks_of_test")
        declaration.__dict__["HANDLERS"] = {"invoice.*": "hooks_of_test:note"}
        hooks.__dict__["note"] = note
        for module in (declaration, hooks):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return called

    def test_calls_declared_handlers(self, called: list[tuple[Event, Customer | None]]) -> None:
        customer = stripe_customer()
        event = stripe_event("invoice.paid", customer=customer)
        handle(event, customer)
        assert called == [(event, customer)]

    def test_raises_what_a_handler_raises(self, called: list[Any]) -> None:
        with pytest.raises(UnprocessableEventError, match="of no customer"):
            handle(stripe_event("invoice.voided"))

    def test_refuses_type_without_handler(self, called: list[Any]) -> None:
        with pytest.raises(LookupError, match=r"no handler for customer\.created"):
            handle(stripe_event("customer.created"))
