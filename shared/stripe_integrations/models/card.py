"""A card, in either of Stripe's two shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from stripe_integrations.models.chargeable import Chargeable
from stripe_integrations.models.child import Json
from stripe_integrations.models.fields import (
    Document,
    Flag,
    Integer,
    Text,
    read_stripe,
    required,
)
from stripe_integrations.models.observation import Observation

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeGateway


class Card(Chargeable, discriminator="Card"):
    """A card attached to a customer.

    Follows https://docs.stripe.com/api/cards/object (shape ``card``) and
    https://docs.stripe.com/api/payment_methods/object (shape ``payment_method``).
    """

    SORT_KEY = "CARD"
    COLLECTION = "cards"
    REDUCED_FIELDS = frozenset({"livemode", "brand", "exp_month", "exp_year", "last4"})

    stripe_id = required(Text(card="id", payment_method="id"))
    livemode = Flag(payment_method="livemode")
    metadata = Document(card="metadata", payment_method="metadata")
    name = Text(card="name", payment_method="billing_details.name")
    address_line_1 = Text(card="address_line1", payment_method="billing_details.address.line1")
    address_line_1_check = Text(
        card="address_line1_check", payment_method="card.checks.address_line1_check"
    )
    address_line_2 = Text(card="address_line2", payment_method="billing_details.address.line2")
    address_city = Text(card="address_city", payment_method="billing_details.address.city")
    address_state = Text(card="address_state", payment_method="billing_details.address.state")
    address_country = Text(card="address_country", payment_method="billing_details.address.country")
    address_zip = Text(card="address_zip", payment_method="billing_details.address.postal_code")
    address_zip_check = Text(
        card="address_zip_check", payment_method="card.checks.address_postal_code_check"
    )
    brand = Text(card="brand", payment_method="card.brand")
    country = Text(card="country", payment_method="card.country")
    cvc_check = Text(card="cvc_check", payment_method="card.checks.cvc_check")
    dynamic_last4 = Text(card="dynamic_last4", payment_method="card.wallet.dynamic_last4")
    tokenization_method = Text(card="tokenization_method", payment_method="card.wallet.type")
    exp_month = Integer(card="exp_month", payment_method="card.exp_month")
    exp_year = Integer(card="exp_year", payment_method="card.exp_year")
    funding = Text(card="funding", payment_method="card.funding")
    last4 = Text(card="last4", payment_method="card.last4")
    fingerprint = Text(card="fingerprint", payment_method="card.fingerprint")

    @classmethod
    def fetch(cls, stripe: StripeGateway, stripe_customer: Json) -> list[dict[str, Any]]:
        return stripe.list_payment_methods(stripe_customer["id"], "card")

    @classmethod
    def from_stripe(
        cls, pk: str, stripe_customer: Json, objects: Iterable[Json], observation: Observation
    ) -> list[Self]:
        """Make the records of PaymentMethods and of the customer's sources.

        A card of the older shape is in both: what only one of its two shapes has is stored.
        """
        values = {method["id"]: cls.values_of(method) for method in objects}
        for source in (stripe_customer.get("sources") or {}).get("data", []):
            if source.get("object") == "card":
                card = values.setdefault(source["id"], {})
                card.update(
                    (name, value)
                    for name, value in read_stripe(cls, "card", source).items()
                    if name not in card or value not in (None, {})
                )
                card["livemode"] = stripe_customer.get("livemode")
        return [cls.under(pk, stripe_customer["id"], card, observation) for card in values.values()]

    @classmethod
    def concerns(cls, obj: Json) -> bool:
        return "card" in (obj.get("object"), obj.get("type"))

    @classmethod
    def matches_customer(cls, obj: Json, customer_id: str, event_type: str) -> bool:
        if event_type.startswith("customer.source."):
            return obj.get("object") == "card" and obj.get("customer") == customer_id
        owner = None if event_type == "payment_method.detached" else customer_id
        is_card = (obj.get("object"), obj.get("type")) == ("payment_method", "card")
        return is_card and obj.get("customer") == owner

    @classmethod
    def is_complete(cls, obj: Json) -> bool:
        """Return whether this is a PaymentMethod; a Card source rendered as one lacks fields."""
        return str(obj.get("id")).startswith("pm_")
