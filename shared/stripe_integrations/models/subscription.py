"""A subscription, in today's shape and in the one before 2025-03-31."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from stripe_integrations.models.child import Child, EventRole, Json
from stripe_integrations.models.fields import (
    Decimal,
    Document,
    Flag,
    Integer,
    Listing,
    Text,
    required,
    value_at,
    whole_number,
)
from stripe_integrations.models.observation import Observation

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeGateway

_FINAL_STATUSES = frozenset({"canceled", "incomplete_expired"})
_FINAL_FIELDS = ("status", "canceled_at", "cancellation_details", "ended_at")
"""The fields that the final event sets even after the customer was deleted."""


class Subscription(Child, discriminator="Subscription"):
    """A subscription of a customer; times are Unix seconds.

    `items` is the plain list of subscription items. Where they have different billing periods,
    `current_period_start` is the latest start and `current_period_end` the earliest end, which is
    the next renewal. Follows https://docs.stripe.com/api/subscriptions/object.
    """

    SORT_KEY = "SUBSCRIPTION"
    COLLECTION = "subscriptions"
    SHAPE = "subscription"
    EVENTS = {  # noqa: RUF012 - a ClassVar of Child
        "customer.subscription.created": EventRole.CREATED,
        "customer.subscription.updated": EventRole.CHANGED,
        "customer.subscription.deleted": EventRole.CHANGED,
        "customer.subscription.paused": EventRole.CHANGED,
        "customer.subscription.resumed": EventRole.CHANGED,
        "customer.subscription.pending_update_applied": EventRole.CHANGED,
        "customer.subscription.pending_update_expired": EventRole.CHANGED,
        "customer.subscription.trial_will_end": EventRole.CHANGED,
    }
    REDUCED_FIELDS = frozenset(
        {
            "livemode",
            "billing_cycle_anchor",
            "cancel_at",
            "cancel_at_period_end",
            "current_period_start",
            "current_period_end",
            "default_payment_method",
            "default_source",
            "quantity",
            "start_date",
            "trial_start",
            "trial_end",
            *_FINAL_FIELDS,
        }
    )

    stripe_id = required(Text(subscription="id"))
    livemode = Flag(subscription="livemode")
    metadata = Document(subscription="metadata")
    status = Text(subscription="status")
    items = Listing(subscription="items.data")
    application_fee_percent = Decimal(subscription="application_fee_percent")
    automatic_tax = Document(subscription="automatic_tax")
    billing_cycle_anchor = Integer(subscription="billing_cycle_anchor")
    billing_mode = Document(subscription="billing_mode")
    billing_thresholds = Document(subscription="billing_thresholds")
    cancel_at = Integer(subscription="cancel_at")
    cancel_at_period_end = Flag(subscription="cancel_at_period_end")
    canceled_at = Integer(subscription="canceled_at")
    cancellation_details = Document(subscription="cancellation_details")
    collection_method = Text(subscription="collection_method")
    currency = Text(subscription="currency")
    current_period_start = Integer(subscription="current_period_start")
    current_period_end = Integer(subscription="current_period_end")
    days_until_due = Integer(subscription="days_until_due")
    default_payment_method = Text(subscription="default_payment_method")
    default_source = Text(subscription="default_source")
    default_tax_rates = Listing(subscription="default_tax_rates")
    discounts = Listing(subscription="discounts")
    ended_at = Integer(subscription="ended_at")
    latest_invoice = Text(subscription="latest_invoice")
    next_pending_invoice_item_invoice = Integer(subscription="next_pending_invoice_item_invoice")
    pause_collection = Document(subscription="pause_collection")
    pending_invoice_item_interval = Document(subscription="pending_invoice_item_interval")
    pending_setup_intent = Text(subscription="pending_setup_intent")
    pending_update = Document(subscription="pending_update")
    quantity = Integer(subscription="quantity")
    schedule = Text(subscription="schedule")
    start_date = Integer(subscription="start_date")
    trial_start = Integer(subscription="trial_start")
    trial_end = Integer(subscription="trial_end")
    trial_settings = Document(subscription="trial_settings")

    @classmethod
    def fetch(cls, stripe: StripeGateway, stripe_customer: Json) -> list[dict[str, Any]]:
        return stripe.list_subscriptions(stripe_customer["id"])

    @classmethod
    def values_of(cls, obj: Json) -> dict[str, Any]:
        """Read the fields of one subscription.

        Since 2025-03-31 the items have the period and the quantity, and discounts are a list; the
        older subscription has them itself, and one discount. The period of several items is the one
        by which Stripe filters them: https://docs.stripe.com/api/subscriptions/list.
        """
        values = super().values_of(obj)
        items = [item for item in values["items"] or [] if isinstance(item, Mapping)]
        if values["current_period_start"] is None:
            values["current_period_start"] = _extreme(max, items, "current_period_start")
        if values["current_period_end"] is None:
            values["current_period_end"] = _extreme(min, items, "current_period_end")
        if values["quantity"] is None and len(items) == 1:
            values["quantity"] = whole_number(items[0].get("quantity"))
        if values["discounts"] is None and obj.get("discount"):
            values["discounts"] = [obj["discount"]]
        return values

    @classmethod
    def is_complete(cls, obj: Json) -> bool:
        """Return whether the payload has all items; it contains only their first page."""
        return value_at(obj, "items", "has_more") is False

    def is_resurrection_of(self, stored: Child) -> bool:
        is_final = isinstance(stored, Subscription) and stored.status in _FINAL_STATUSES
        return is_final and self.status not in _FINAL_STATUSES

    def after_deletion(self, observation: Observation) -> Self:
        """Return the record after Stripe has deleted the customer: the subscription is cancelled.

        Only its own event says when it ended.
        """
        if self.status in _FINAL_STATUSES or not self.is_attached:
            return self
        return self.with_values(status="canceled", **observation.as_fields())

    def with_final_state(self, event_type: str, obj: Json, observation: Observation) -> Self | None:
        is_final = obj.get("status") in _FINAL_STATUSES
        if event_type != "customer.subscription.deleted" or not is_final or not self.is_attached:
            return None
        values = self.values_of(obj)
        final = {name: values[name] for name in _FINAL_FIELDS}
        return self.with_values(**final, **observation.as_fields())


def _extreme(choose: Callable[[list[int]], int], items: Iterable[Json], name: str) -> int | None:
    times = [time for item in items if (time := whole_number(item.get(name))) is not None]
    return choose(times) if times else None
