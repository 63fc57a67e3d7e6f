"""A card, in whichever of Stripe's two shapes it reached us."""

from __future__ import annotations

from stripe_integrations.models.child import Child
from stripe_integrations.models.fields import Document, Flag, Integer, Text


class Card(Child, discriminator="Card"):
    """A card attached to a customer.

    Follows https://docs.stripe.com/api/cards/object (shape ``card``) and
    https://docs.stripe.com/api/payment_methods/object (shape ``payment_method``).
    """

    KIND = "CARD"
    LISTED_AS = "cards"
    POINTED_TO = "pm_"  # a PaymentMethod that was detached names its customer no longer

    stripe_id = Text(card="id", payment_method="id")
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

    is_default = False
    """Whether it is the one that is charged by default; told by the customer it was read with."""
