"""The keys of a customer's items."""

from __future__ import annotations


def user_key(user_id: str) -> str:
    """The partition key of everything that belongs to one user."""
    return f"USER#{user_id}"


def user_of(pk: str) -> str | None:
    """The user whose partition has this key; None if it is not of a user."""
    prefix = user_key("")
    return pk.removeprefix(prefix) if pk.startswith(prefix) else None


def unassigned_key(customer_id: str) -> str:
    """The partition key of everything that belongs to a customer of no user."""
    return f"UNASSIGNED#{customer_id}"


def customer_key(stripe_id: str) -> str:
    """The sort key of a Stripe customer, and the prefix of the sort keys of its children."""
    return f"CUSTOMER#{stripe_id}"


def run_key(run_id: str) -> str:
    """The partition key of everything that belongs to one run through the Stripe account."""
    return f"RUN#{run_id}"


def stripe_key(stripe_id: str) -> str:
    """The partition key of a Stripe id's pointer, and of the work item of its metadata."""
    return f"STRIPE#{stripe_id}"
