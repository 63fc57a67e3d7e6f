"""Cards, from whichever of Stripe's two shapes they come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stripe_integrations.models import Card
from stripe_integrations.models.fields import read_stripe
from stripe_integrations.models.observation import Observation

Json = Mapping[str, Any]


def cards_from_stripe(
    user_id: str, customer: Json, payment_methods: Iterable[Json], observation: Observation
) -> list[Card]:
    """The cards of a customer, each once.

    Parameters
    ----------
    user_id : str
        Whose customer it is.
    customer : mapping
        Stripe's customer with its `sources`: cards of the older shape.
    payment_methods : iterable of mapping
        Its payment methods of type card. A card of the older shape comes here again, wrapped;
        what only one of its two shapes has is kept.
    observation : Observation
        When Stripe said so.

    Returns
    -------
    list of Card
    """
    values: dict[str, dict[str, Any]] = {}
    for method in payment_methods:
        values[method["id"]] = read_stripe(Card, "payment_method", method)
    for source in (customer.get("sources") or {}).get("data", []):
        if source.get("object") == "card":
            card = values.setdefault(source["id"], {})
            card.update(
                (name, value)
                for name, value in read_stripe(Card, "card", source).items()
                if name not in card or value not in (None, {})
            )
            card["livemode"] = customer.get("livemode")
    return [Card.under(user_id, customer["id"], card, observation) for card in values.values()]


def card_from_payment_method(
    user_id: str, customer_id: str, payment_method: Json, observation: Observation
) -> Card:
    """The card of a PaymentMethod that comes in this shape alone."""
    values = read_stripe(Card, "payment_method", payment_method)
    return Card.under(user_id, customer_id, values, observation)
