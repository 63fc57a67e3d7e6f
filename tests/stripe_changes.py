"""Changes of a customer on Stripe, with the events that report them."""

from __future__ import annotations

from stripe_integrations.models import Customer
from tests.world import World


def rename(world: World, customer: Customer, name: str = "Newest") -> str:
    """Change a customer's name and receive the event; its id."""
    world.rename(customer.stripe_id, name)
    return world.receive()


def rename_later(world: World, customer: Customer, name: str = "Newest") -> str:
    """Change a name so late that the event is certainly newer than the record; its id."""
    world.time += 10
    return rename(world, customer, name)


def rename_often(world: World, customer: Customer, times: int) -> list[str]:
    """Change a name several times, each event certainly newer than the one before; their ids."""
    return [rename_later(world, customer, f"Name {number}") for number in range(times)]


def detach_card(world: World, method: str) -> None:
    """Detach a card from its customer."""
    world.request("POST", f"/v1/payment_methods/{method}/detach")
