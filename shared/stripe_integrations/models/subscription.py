"""A subscription, in today's shape and in the one before 2025-03-31."""

from __future__ import annotations

from stripe_integrations.models.child import Child
from stripe_integrations.models.fields import Decimal, Document, Flag, Integer, Listing, Text


class Subscription(Child, discriminator="Subscription"):
    """A subscription of a customer; times are Unix seconds.

    `items` is the plain list of subscription items. Follows
    https://docs.stripe.com/api/subscriptions/object.
    """

    KIND = "SUBSCRIPTION"
    LISTED_AS = "subscriptions"

    stripe_id = Text(subscription="id")
    livemode = Flag(subscription="livemode")
    metadata = Document(subscription="metadata")
    status = Text(subscription="status")
    items = Listing(subscription="items.data")
    application_fee_percent = Decimal(subscription="application_fee_percent")
    automatic_tax = Document(subscription="automatic_tax")
    billing_cycle_anchor = Integer(subscription="billing_cycle_anchor")
    billing_thresholds = Document(subscription="billing_thresholds")
    cancel_at = Integer(subscription="cancel_at")
    cancel_at_period_end = Flag(subscription="cancel_at_period_end")
    canceled_at = Integer(subscription="canceled_at")
    cancellation_details = Document(subscription="cancellation_details")
    collection_method = Text(subscription="collection_method")
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
    start_date = Integer(subscription="start_date")
    trial_start = Integer(subscription="trial_start")
    trial_end = Integer(subscription="trial_end")
    trial_settings = Document(subscription="trial_settings")
