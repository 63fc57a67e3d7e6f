"""What is done for each type of event: by this package, and by the deployment's own functions."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache

from stripe_integrations.context import current
from stripe_integrations.errors import EventHandlerNotFoundError
from stripe_integrations.models import Customer, Event

Handler = Callable[[Event, Customer | None], None]
"""A deployment's own function: called with the event, and with its customer's record if it has one.

It runs at least once for each event, after the record was brought up to date. Whatever it raises,
the event is tried again later; `UnprocessableEventError` sets the event aside at once.
"""

_OF_THE_CUSTOMER = (
    "customer.created",
    "customer.updated",
    "customer.deleted",
    "checkout.session.completed",
)
_OF_CARDS = (
    "customer.source.created",
    "customer.source.updated",
    "customer.source.deleted",
    "customer.source.expiring",
    "payment_method.attached",
    "payment_method.updated",
    "payment_method.automatically_updated",
    "payment_method.detached",
)
_OF_SUBSCRIPTIONS = (
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "customer.subscription.trial_will_end",
)


def applied_event_types() -> tuple[str, ...]:
    """The types of event that change what this deployment keeps; 20 at most."""
    stored_records = current().settings.stored_records
    return (
        *_OF_THE_CUSTOMER,
        *(_OF_CARDS if "Card" in stored_records else ()),
        *(_OF_SUBSCRIPTIONS if "Subscription" in stored_records else ()),
    )


def changes_records(event: Event) -> bool:
    """Whether an event changes a customer of ours, or something under one."""
    kind = event.kind or ""
    if kind not in applied_event_types() or not (event.customer_id or event.payment_method_id):
        return False
    if kind in _OF_CARDS:
        subject = event.subject
        # Without its payload nobody can tell; Stripe's answer will.
        return not subject or "card" in (subject.get("object"), subject.get("type"))
    return True


def has_handlers(kind: str) -> bool:
    """Whether the deployment handles this type of event by itself."""
    return bool(_references(kind))


def handlers_of(kind: str) -> list[Handler]:
    """The deployment's own functions for a type of event, imported where that is needed.

    Raises
    ------
    EventHandlerNotFoundError
        A function is not where `HANDLERS` says.
    """
    return [_resolve(reference) for reference in _references(kind)]


def _references(kind: str) -> list[str]:
    handlers = current().settings.event_handlers
    return [reference for pattern, reference in handlers.items() if _fits(kind, pattern)]


def _fits(kind: str, pattern: str) -> bool:
    family, star, _ = pattern.partition("*")
    return kind.startswith(family) if star else kind == pattern


@cache
def _resolve(reference: str) -> Handler:
    try:
        handler: Handler = pkgutil.resolve_name(reference)
    except (ImportError, AttributeError, ValueError) as error:
        raise EventHandlerNotFoundError(f"there is no event handler {reference}") from error
    return handler
