"""Changes of a customer on Stripe."""

from __future__ import annotations

from stripe_integrations.models import Customer
from tests.world import World


def rename(world: World, customer: Customer, name: str = "Newest") -> str:
    """Change a customer's name and receive the event; its id."""
    world.rename(customer.stripe_id, name)
    return world.receive()


def detach_card(world: World, method: str) -> None:
    """Detach a card from its customer."""
    world.ask("POST", f"/v1/payment_methods/{method}/detach")
