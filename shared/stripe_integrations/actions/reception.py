"""The one door for events, whether the webhook brings them or the sweep has found them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations.actions.application import NOTHING_TO_DO, foreign
from stripe_integrations.actions.customers import StripeCustomer
from stripe_integrations.actions.event_handlers import changes_records, has_handlers
from stripe_integrations.errors import CustomerNotFoundError
from stripe_integrations.models import Event


def receive_event(payload: Mapping[str, Any]) -> Event:
    """`StripeEvent.receive`."""
    event = Event.received(payload, valid=True)
    reason = foreign(event)
    if reason:
        event.end(reason)
        return event.store()
    if not changes_records(event) and not has_handlers(event.kind or ""):
        event.end(NOTHING_TO_DO)
    try:
        return StripeCustomer.link_customer(event)
    except CustomerNotFoundError:
        if not event.processed:
            event.wait()
        return event.store()
