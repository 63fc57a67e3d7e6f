"""Which events concern this deployment: by their type, their mode and their account."""

from __future__ import annotations

from stripe_integrations.context import current
from stripe_integrations.models import Event, kind_of_event, stored_kinds

NO_CHANGE = "changes no record of ours"

CUSTOMER_EVENT_TYPES = (
    "customer.created",
    "customer.updated",
    "customer.deleted",
    "checkout.session.completed",
)


def applied_event_types() -> tuple[str, ...]:
    """Return the types of event that change what this deployment stores."""
    of_children = [event_type for kind in stored_kinds() for event_type in kind.EVENTS]
    return (*CUSTOMER_EVENT_TYPES, *of_children)


def changes_records(event: Event) -> bool:
    """Return whether an event changes a customer or one of its children."""
    if event.kind not in applied_event_types() or not event.names_customer:
        return False
    kind = kind_of_event(event.kind)
    # Without the payload a fetch decides.
    return kind is None or not event.data_object or kind.concerns(event.data_object)


def reason_to_ignore(event: Event) -> str | None:
    """Return why an event does not concern this deployment; None if it does."""
    if event.object != "event":
        return "not an event of Stripe's API v1"
    if event.livemode is not current().settings.livemode:
        return "of the other mode"
    if event.account:
        return "of a connected account"
    return None
