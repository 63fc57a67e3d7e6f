"""What cards and other payment methods have in common: the customer is charged by them."""

from __future__ import annotations

from stripe_integrations.models.child import Child, EventRole, Json


class Chargeable(Child):
    """A PaymentMethod of Stripe, or a source, the older form of one.

    Its kinds share their event types.
    """

    SHAPE = "payment_method"
    EVENTS = {  # noqa: RUF012 - a ClassVar of Child
        "customer.source.created": EventRole.UNORDERED,
        "customer.source.updated": EventRole.UNORDERED,
        "customer.source.expiring": EventRole.UNORDERED,
        "customer.source.deleted": EventRole.REMOVED,
        "payment_method.attached": EventRole.CREATED,
        "payment_method.updated": EventRole.CHANGED,
        "payment_method.automatically_updated": EventRole.CHANGED,
        "payment_method.detached": EventRole.REMOVED,
    }
    CAN_BE_DEFAULT = True
    COMPUTED_FLAGS = {  # noqa: RUF012 - a ClassVar of Record
        **Child.COMPUTED_FLAGS,
        "is_default": "Whether it is charged by default.",
    }
    POINTER_PREFIX = "pm_"  # a detached PaymentMethod names its customer no longer

    is_default = False
    """Whether it is charged by default; set by the customer that it was read with."""

    @classmethod
    def is_included(cls, stripe_customer: Json) -> bool:
        sources = stripe_customer.get("sources")
        return sources is not None and not sources.get("has_more")
