"""Receiving events, from the webhook or from the sweep: store them, linked to their customer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations.actions.customers.snapshot import token_of
from stripe_integrations.actions.events.event_types import (
    NO_CHANGE,
    changes_records,
    is_publish_type,
    reason_to_ignore,
    reports_unassigned_customer,
)
from stripe_integrations.actions.events.handlers import has_handlers
from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.errors import (
    ConfigurationError,
    CustomerErasedError,
    CustomerNotFoundError,
    NewerSchemaError,
)
from stripe_integrations.models import CustomerClaim, Event, Pointer
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
    if event.named_id is None:
        return event if event.is_stored else event.store()
    owner = Pointer.find(event.named_id)
    if owner is None:
        raise CustomerNotFoundError(f"{event.named_id} is not a customer of ours")
    return event.link(owner)


def _store(event: Event) -> Event:
    reason = reason_to_ignore(event)
    if reason:
        event.ignore(reason)
        event.drop_payload()
        return event.store()
    if not event.processed and not _is_relevant(event):
        event.ignore(NO_CHANGE)
    if event.named_id is None and not has_handlers(event.kind):
        event.drop_payload()
    try:
        return link_customer(event)
    except NewerSchemaError:
        return event.store()
    except CustomerNotFoundError:
        return _store_of_unknown_customer(event)
    except CustomerErasedError:
        event.ignore_as_erased()
        return event.store()


def _is_relevant(event: Event) -> bool:
    """Return whether an event changes records, is handled or is published."""
    return changes_records(event) or has_handlers(event.kind) or is_publish_type(event.kind)


def _store_of_unknown_customer(event: Event) -> Event:
    """Store an event of an unknown customer as waiting, or as ignored: without personal data."""
    if event.processed:
        event.drop_payload()
    elif not _may_be_ours(event) and not reports_unassigned_customer(event):
        event.wait()
        if not has_handlers(event.kind):
            event.drop_payload()  # if the customer is stored later, a fetch replaces it
    return event.store()


def _may_be_ours(event: Event) -> bool:
    """Return whether the payload has, or may have, a token of this deployment."""
    try:
        return CustomerClaim.is_ours(token_of(event.data_object))
    except ConfigurationError:
        return True  # the event is stored, and applying it reports the error


def _count_new(event: Event) -> None:
    if event.processed:
        current().add_metric(Metric.EVENTS_IGNORED)
    elif changes_records(event) and event.api_version != API_VERSION:
        current().add_metric(Metric.API_VERSION_MISMATCHES)
