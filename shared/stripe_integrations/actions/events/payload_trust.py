"""Whether the payload of an event may be used without a fetch."""

from __future__ import annotations

from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.limits import CLOCK_SKEW_SECONDS
from stripe_integrations.models import Customer, Event, kind_of_event
from stripe_integrations.models.fields import value_at


def is_usable(event: Event, customer: Customer) -> bool:
    """Return whether a payload may be compared with the stored state of its customer."""
    if is_untrusted(event) or customer.test_clock:
        return False
    return matches_customer(event, customer)


def is_untrusted(event: Event) -> bool:
    """Return whether a payload can't be used, whatever it contains.

    It was not stored, is replayed, is of another API version or of a test clock, or its stamp is
    unreadable or in the future.
    """
    return (
        not event.data_object
        or event.replayed_at is not None
        or value_at(event.webhook_message, "created") != event.created
        or event.api_version != API_VERSION
        or event.data_object.get("test_clock") is not None
        or event.created > current().clock() + CLOCK_SKEW_SECONDS
    )


def matches_customer(event: Event, customer: Customer) -> bool:
    """Return whether a payload is what its type promises, of this customer and mode."""
    data_object = event.data_object
    if data_object.get("livemode", customer.livemode) is not customer.livemode:
        return False
    if not isinstance(data_object.get("id"), str):
        return False
    kind = kind_of_event(event.kind, data_object)
    if kind:
        return kind.matches_customer(data_object, customer.stripe_id, event.kind)
    return data_object.get("object") == "customer" and data_object["id"] == customer.stripe_id
