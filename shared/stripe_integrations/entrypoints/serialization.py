"""How a customer stands in an HTTP answer: every public field of the field table, null or not."""

from __future__ import annotations

from typing import Any

from stripe_integrations.models import Customer
from stripe_integrations.models.fields import fields_of
from stripe_integrations.models.table import Record


def customer_to_json(customer: Customer) -> dict[str, Any]:
    """A customer with its cards and subscriptions, as a JSON object.

    Times of Stripe's are Unix seconds, our own are ISO 8601; amounts are in the currency's
    smallest unit. Each card says whether it `is_default`.
    """
    return {
        **_to_json(customer),
        "cards": [{**_to_json(card), "is_default": card.is_default} for card in customer.cards],
        "subscriptions": [_to_json(subscription) for subscription in customer.subscriptions],
    }


def _to_json(record: Record) -> dict[str, Any]:
    return {
        name: field.to_json(getattr(record, name))
        for name, field in fields_of(type(record)).items()
        if not field.private
    }
