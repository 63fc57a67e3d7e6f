"""A payment method other than a card: a bank account, a wallet, a legacy source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from stripe_integrations.models.chargeable import Chargeable
from stripe_integrations.models.child import Json
from stripe_integrations.models.fields import Flag, Text, read_stripe, required
from stripe_integrations.models.observation import Observation

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeGateway


class PaymentMethod(Chargeable, discriminator="PaymentMethod"):
    """A payment method of a customer, other than a card.

    Follows https://docs.stripe.com/api/payment_methods/object, and for the older shapes
    https://docs.stripe.com/api/customer_bank_accounts/object and
    https://docs.stripe.com/api/sources/object.
    """

    SORT_KEY = "PAYMENT_METHOD"
    COLLECTION = "payment_methods"
    IS_DEFAULT = False

    stripe_id = required(Text(payment_method="id"))
    livemode = Flag(payment_method="livemode")
    type = Text(payment_method="type")
    bank_name = Text(payment_method="bank_name")
    last4 = Text(payment_method="last4")

    @classmethod
    def fetch(cls, stripe: StripeGateway, stripe_customer: Json) -> list[dict[str, Any]]:
        methods = stripe.list_payment_methods(stripe_customer["id"])
        return [method for method in methods if cls.concerns(method)]

    @classmethod
    def from_stripe(
        cls, pk: str, stripe_customer: Json, objects: Iterable[Json], observation: Observation
    ) -> list[Self]:
        """Make the records of PaymentMethods, and of the customer's sources that are not cards."""
        sources = [
            {"livemode": stripe_customer.get("livemode"), **source}
            for source in (stripe_customer.get("sources") or {}).get("data", [])
            if cls.concerns(source)
        ]
        by_id = {obj["id"]: obj for obj in [*sources, *objects]}
        return super().from_stripe(pk, stripe_customer, by_id.values(), observation)

    @classmethod
    def values_of(cls, obj: Json) -> dict[str, Any]:
        """Read the fields of one object; those of its type are in a hash named like the type."""
        kind = obj.get("type") or obj.get("object")
        details = obj.get(str(kind))
        flat = {**(details if isinstance(details, Mapping) else {}), **obj, "type": kind}
        return read_stripe(cls, cls.SHAPE, flat)

    @classmethod
    def concerns(cls, obj: Json) -> bool:
        return "card" not in (obj.get("object"), obj.get("type"))

    @classmethod
    def matches_customer(cls, obj: Json, customer_id: str, event_type: str) -> bool:
        owner = None if event_type == "payment_method.detached" else customer_id
        is_source = event_type.startswith("customer.source.")
        return (obj.get("object") != cls.SHAPE) is is_source and obj.get("customer") == owner
