"""The records, and the conditional writes that keep the promises."""

from stripe_integrations.models.card import Card
from stripe_integrations.models.claim import CustomerClaim
from stripe_integrations.models.customer import Customer, UserRecords
from stripe_integrations.models.event import Event
from stripe_integrations.models.pointer import Pointer
from stripe_integrations.models.subscription import Subscription
from stripe_integrations.models.sweep_cursor import Sweep

__all__ = [
    "Card",
    "Customer",
    "CustomerClaim",
    "Event",
    "Pointer",
    "Subscription",
    "Sweep",
    "UserRecords",
]
