"""The registry of child kinds."""

from __future__ import annotations

import pytest

from stripe_integrations.actions.events.event_types import CUSTOMER_EVENT_TYPES
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.errors import ConfigurationError
from stripe_integrations.models import (
    KINDS,
    Card,
    Customer,
    Subscription,
    kind_of_event,
    stored_kinds,
)
from stripe_integrations.models.fields import fields_of


def stored(names: frozenset[str] | None) -> tuple[type, ...]:
    with use(Context(Settings(table_name="customers", stored_records=names))):
        return stored_kinds()


class TestStoredKinds:
    def test_default_is_cards_and_subscriptions(self) -> None:
        assert stored(None) == (Card, Subscription)

    def test_setting_selects_by_name(self) -> None:
        assert stored(frozenset({"Subscription"})) == (Subscription,)
        assert stored(frozenset()) == ()

    def test_unknown_name_is_a_configuration_error(self) -> None:
        with pytest.raises(ConfigurationError, match="STORED_RECORDS may name"):
            stored(frozenset({"Card", "Invoice"}))


class TestKinds:
    @pytest.mark.parametrize("kind", KINDS)
    def test_customer_has_collection(self, kind: type[Card]) -> None:
        assert isinstance(vars(Customer)[kind.COLLECTION], property)

    @pytest.mark.parametrize("kind", KINDS)
    def test_fields_have_paths(self, kind: type[Card]) -> None:
        assert "stripe_id" in fields_of(kind)
        assert all(
            kind.SHAPE in field.paths
            for name, field in fields_of(kind).items()
            if not field.private and name != "customer_id"
        )

    def test_sort_keys_and_collections_are_distinct(self) -> None:
        assert len({kind.SORT_KEY for kind in KINDS}) == len(KINDS)
        assert len({kind.COLLECTION for kind in KINDS}) == len(KINDS)

    @pytest.mark.parametrize("kind", KINDS)
    def test_event_types_are_not_those_of_customers(self, kind: type[Card]) -> None:
        assert not set(CUSTOMER_EVENT_TYPES) & kind.EVENTS.keys()

    @pytest.mark.parametrize(
        ("obj", "name"),
        [
            ({"object": "card"}, "Card"),
            ({"object": "source", "type": "card"}, "Card"),
            ({"object": "source", "type": "sepa_debit"}, "PaymentMethod"),
            ({"object": "bank_account"}, "PaymentMethod"),
            ({"object": "payment_method", "type": "card"}, "Card"),
            ({"object": "payment_method", "type": "us_bank_account"}, "PaymentMethod"),
            ({"object": "alipay_account"}, "PaymentMethod"),
        ],
    )
    def test_kinds_that_share_an_event_type_differ_in_objects(
        self, obj: dict[str, str], name: str
    ) -> None:
        shared = (
            "payment_method.attached" if "method" in obj["object"] else "customer.source.created"
        )
        sharing = [kind for kind in KINDS if shared in kind.EVENTS]
        assert len(sharing) > 1
        concerned = [kind.__name__ for kind in sharing if kind.concerns(obj)]
        assert concerned == [name]
        kind = kind_of_event(shared, obj)
        assert (kind and kind.__name__) == name
