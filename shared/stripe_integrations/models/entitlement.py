"""A feature that a customer may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stripe_integrations.models.child import Child, EventRole, Json
from stripe_integrations.models.fields import Flag, Text, required

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeGateway


class Entitlement(Child, discriminator="Entitlement"):
    """An active entitlement of a customer: a feature that its subscriptions include.

    Follows https://docs.stripe.com/api/entitlements/active-entitlement/object.
    """

    SORT_KEY = "ENTITLEMENT"
    COLLECTION = "entitlements"
    SHAPE = "entitlement"  # Stripe's own is longer, but no payload is read
    EVENTS = {  # noqa: RUF012 - a ClassVar of Child
        # Its payload contains only the first ten entitlements.
        "entitlements.active_entitlement_summary.updated": EventRole.UNORDERED,
    }
    IS_DEFAULT = False

    stripe_id = required(Text(entitlement="id"))
    livemode = Flag(entitlement="livemode")
    feature = Text(entitlement="feature")
    lookup_key = Text(entitlement="lookup_key")

    @classmethod
    def fetch(cls, stripe: StripeGateway, stripe_customer: Json) -> list[dict[str, Any]]:
        return stripe.list_active_entitlements(stripe_customer["id"])
