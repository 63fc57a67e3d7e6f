"""Finding customers: those of users, those of no user, and incomplete ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from stripe_integrations.context import current
from stripe_integrations.models import Customer, Pointer
from stripe_integrations.models.claim import claims_in_creation
from stripe_integrations.models.customer import created_between, read_customer
from stripe_integrations.models.keys import user_of

_BATCH = 100


class CustomerState(StrEnum):
    """What a customer is to this deployment."""

    ACTIVE = "active"
    """A user has it."""
    UNASSIGNED = "unassigned"
    """No user has it yet."""
    INCOMPLETE = "incomplete"
    """It is being created, or its creation was interrupted: a create completes it."""


@dataclass(frozen=True)
class FoundCustomer:
    """A customer that was found.

    Parameters
    ----------
    user_id : str or None
        The user; None for a customer that no user has.
    stripe_id : str or None
        The Stripe customer; None for an incomplete one, which Stripe may have.
    created : int
        When Stripe created it, or when the creation of an incomplete one began, in Unix seconds.
    """

    user_id: str | None
    stripe_id: str | None
    created: int


def find_customers(state: CustomerState | None, created_to: int | None) -> Iterator[FoundCustomer]:
    """Yield customers: see `StripeCustomer.find`."""
    if state is CustomerState.INCOMPLETE:
        for claim in claims_in_creation():
            yield FoundCustomer(user_of(claim.pk), None, int(claim.claimed_at or 0))
        return
    for entry in created_between(None, created_to):
        user_id = user_of(entry.pk)
        own_state = CustomerState.ACTIVE if user_id else CustomerState.UNASSIGNED
        if state in (None, own_state):
            yield FoundCustomer(user_id, entry.stripe_id, int(entry.created))


def read_by_stripe_id(stripe_id: str) -> Customer | None:
    """Read a customer: see `StripeCustomer.get_by_stripe_id`."""
    pointer = Pointer.read(stripe_id)
    return read_customer(pointer.owner) if pointer else None


def find_customers_by_email(email: str) -> Iterator[FoundCustomer]:
    """Yield the customers that Stripe has: see `StripeCustomer.find_by_email`."""
    listed = current().stripe.list_customers(email=email)
    while batch := list(islice(listed, _BATCH)):
        pointers = Pointer.read_all(customer["id"] for customer in batch)
        for customer in batch:
            pointer = pointers.get(customer["id"])
            user_id = pointer.user_id if pointer else None
            yield FoundCustomer(user_id, customer["id"], customer["created"])
