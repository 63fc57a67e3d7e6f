"""Receiving events, from the webhook or from the sweep: store them, linked to their customer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations.actions.events.event_types import (
    NO_CHANGE,
    changes_records,
    reason_to_ignore,
)
from stripe_integrations.actions.events.handlers import has_handlers
from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.errors import CustomerNotFoundError, NewerSchemaError
from stripe_integrations.models import Event, Pointer
from stripe_integrations.observability import Metric


def receive_event(payload: Mapping[str, Any]) -> Event:
    """Store an event: see `StripeEvent.receive`."""
    event = Event.received(payload, valid=True)
    stored = _store(event)
    current().add_metric(Metric.EVENTS_RECEIVED)
    if stored is event:
        _count_new(event)
    return stored


def link_customer(event: Event) -> Event:
    """Link an event to its customer: see `StripeCustomer.link_customer`."""
    named = event.customer_id or event.payment_method_id
    if named is None:
        return event if event.is_stored else event.store()
    owner = Pointer.find(named)
    if owner is None:
        raise CustomerNotFoundError(f"{named} is not a customer of ours")
    return event.link(owner)


def _store(event: Event) -> Event:
    reason = reason_to_ignore(event)
    if reason:
        event.ignore(reason)
        return event.store()
    if not changes_records(event) and not has_handlers(event.kind):
        event.ignore(NO_CHANGE)
    try:
        return link_customer(event)
    except (CustomerNotFoundError, NewerSchemaError):
        if not event.processed:
            event.wait()
        return event.store()


def _count_new(event: Event) -> None:
    if event.processed:
        current().add_metric(Metric.EVENTS_IGNORED)
    elif changes_records(event) and event.api_version != API_VERSION:
        current().add_metric(Metric.API_VERSION_MISMATCHES)
