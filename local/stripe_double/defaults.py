"""What Stripe does with the defaults that name a removed payment method or source."""

from __future__ import annotations

from .account import Account, copy_json
from .errors import Json


def clear(account: Account, customer: Json, removed: str) -> None:
    """Clear the customer's default PaymentMethod and the defaults of running subscriptions."""
    if customer["invoice_settings"]["default_payment_method"] == removed:
        before = copy_json(customer)
        customer["invoice_settings"]["default_payment_method"] = None
        emit_change(account, "customer.updated", before, customer)
    for identifier in account.subscriptions_of.get(customer["id"], []):
        subscription = account.subscriptions[identifier]
        if subscription["ended_at"] is not None:
            continue
        before = account.render_subscription(identifier)
        for field in ("default_payment_method", "default_source"):
            if subscription[field] == removed:
                subscription[field] = None
        after = account.render_subscription(identifier)
        emit_change(account, "customer.subscription.updated", before, after)


def emit_change(account: Account, event_type: str, before: Json, after: Json) -> None:
    """Create the event of a changed default, unless the account has it switched off."""
    if account.emits_lost_defaults:
        account.emit_change(event_type, before, after)
