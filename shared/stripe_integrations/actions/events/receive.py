"""The one door for events, whether the webhook brings them or the sweep has found them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations.actions.events.apply import NOTHING_TO_DO, foreign
from stripe_integrations.actions.events.handlers import changes_records, has_handlers
from stripe_integrations.actions.stripe_customer import StripeCustomer
from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.errors import CustomerNotFoundError, NewerSchemaError
from stripe_integrations.models import Event
from stripe_integrations.observability import Metric


def receive_event(payload: Mapping[str, Any]) -> Event:
    """`StripeEvent.receive`."""
    event = Event.received(payload, valid=True)
    standing = _keep(event)
    current().add_metric(Metric.EVENTS_RECEIVED)
    if standing is event:
        _note_new(event)
    return standing


def _keep(event: Event) -> Event:
    reason = foreign(event)
    if reason:
        event.end(reason)
        return event.store()
    if not changes_records(event) and not has_handlers(event.kind or ""):
        event.end(NOTHING_TO_DO)
    try:
        return StripeCustomer.link_customer(event)
    except (CustomerNotFoundError, NewerSchemaError):
        if not event.processed:
            event.wait()
        return event.store()


def _note_new(event: Event) -> None:
    if event.processed:
        current().add_metric(Metric.EVENTS_IGNORED)
    elif changes_records(event) and event.api_version != API_VERSION:
        current().add_metric(Metric.API_VERSION_MISMATCHES)
