"""A tax id of a customer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stripe_integrations.models.child import Child, EventRole, Json
from stripe_integrations.models.fields import Document, Flag, Text, required

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeGateway


class TaxId(Child, discriminator="TaxId"):
    """A tax id of a customer, such as a VAT number, with the state of its verification.

    Follows https://docs.stripe.com/api/tax_ids/object.
    """

    SORT_KEY = "TAX_ID"
    COLLECTION = "tax_ids"
    SHAPE = "tax_id"
    EVENTS = {  # noqa: RUF012 - a ClassVar of Child
        "customer.tax_id.created": EventRole.CREATED,
        "customer.tax_id.updated": EventRole.CHANGED,
        "customer.tax_id.deleted": EventRole.REMOVED,
    }
    IS_DEFAULT = False

    stripe_id = required(Text(tax_id="id"))
    livemode = Flag(tax_id="livemode")
    country = Text(tax_id="country")
    type = Text(tax_id="type")
    value = Text(tax_id="value")
    verification = Document(tax_id="verification")

    @classmethod
    def fetch(cls, stripe: StripeGateway, stripe_customer: Json) -> list[dict[str, Any]]:
        return stripe.list_tax_ids(stripe_customer["id"])
