"""The records, and the conditional writes that keep the promises."""

from stripe_integrations.models.card import Card
from stripe_integrations.models.claim import CustomerClaim
from stripe_integrations.models.customer import Customer, UserRecords, read_customer
from stripe_integrations.models.event import Event, EventState
from stripe_integrations.models.kinds import (
    KINDS,
    applied_roles,
    kind_of_event,
    stored_kinds,
)
from stripe_integrations.models.pointer import Owner, Pointer
from stripe_integrations.models.subscription import Subscription
from stripe_integrations.models.sweep_cursor import SweepCursor

__all__ = [
    "KINDS",
    "Card",
    "Customer",
    "CustomerClaim",
    "Event",
    "EventState",
    "Owner",
    "Pointer",
    "Subscription",
    "SweepCursor",
    "UserRecords",
    "applied_roles",
    "kind_of_event",
    "read_customer",
    "stored_kinds",
]
