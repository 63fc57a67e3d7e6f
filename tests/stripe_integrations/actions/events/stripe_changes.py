"""Changes of a customer on Stripe."""

from __future__ import annotations

from stripe_integrations.models import Customer
from tests.world import World


def rename(world: World, customer: Customer, name: str = "Newest") -> str:
    """Change a customer's name and receive the event; its id."""
    world.rename(customer.stripe_id, name)
    return world.receive()


def attach_card(world: World, stripe_id: str) -> str:
    """Attach a new card to a customer; its id."""
    card = {"type": "card", "card": {"token": "tok_visa"}}
    method = str(world.ask("POST", "/v1/payment_methods", card)["id"])
    world.ask("POST", f"/v1/payment_methods/{method}/attach", {"customer": stripe_id})
    return method


def detach_card(world: World, method: str) -> None:
    """Detach a card from its customer."""
    world.ask("POST", f"/v1/payment_methods/{method}/detach")
