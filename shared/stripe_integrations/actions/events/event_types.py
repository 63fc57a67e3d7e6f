"""Which events concern this deployment: by their type, their mode and their account."""

from __future__ import annotations

from stripe_integrations.actions.customers.snapshot import token_of
from stripe_integrations.config import UnassignedCustomers, matches_pattern
from stripe_integrations.context import current
from stripe_integrations.models import KINDS, Event, applied_roles, kind_of_event

NO_CHANGE = "changes no record of ours"

CUSTOMER_EVENT_TYPES = (
    "customer.created",
    "customer.updated",
    "customer.deleted",
    "checkout.session.completed",
)


def applied_event_types() -> tuple[str, ...]:
    """Return the types of event that change what this deployment stores."""
    of_children = {
        event_type: None
        for kind in KINDS
        for event_type, role in kind.EVENTS.items()
        if role in applied_roles(kind)
    }
    return (*CUSTOMER_EVENT_TYPES, *of_children)


def changes_records(event: Event) -> bool:
    """Return whether an event changes a customer or one of its children."""
    if event.kind not in applied_event_types() or event.named_id is None:
        return False
    if event.kind in CUSTOMER_EVENT_TYPES or not event.data_object:
        return True  # without the payload a fetch decides
    kind = kind_of_event(event.kind, event.data_object)
    return kind is not None and kind.EVENTS[event.kind] in applied_roles(kind)


def is_publish_type(event_type: str) -> bool:
    """Return whether events of a type are published even where they change no record."""
    return any(matches_pattern(event_type, pattern) for pattern in current().settings.publish_types)


def reports_unassigned_customer(event: Event) -> bool:
    """Return whether an event reports a new customer that this deployment stores unassigned.

    One whose metadata has a token was created by a deployment, for a user.
    """
    is_stored = current().settings.unassigned_customers is UnassignedCustomers.STORE
    return is_stored and event.kind == "customer.created" and not token_of(event.data_object)


def reason_to_ignore(event: Event) -> str | None:
    """Return why an event does not concern this deployment; None if it does."""
    if event.object != "event":
        return "not an event of Stripe's API v1"
    if event.livemode is not current().settings.livemode:
        return "of the other mode"
    if event.account:
        return "of a connected account"
    return None
