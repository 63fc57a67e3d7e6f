"""The keys of the items in a user's partition."""

from __future__ import annotations


def user_key(user_id: str) -> str:
    """The partition key of everything that belongs to one user."""
    return f"USER#{user_id}"


def customer_key(stripe_id: str) -> str:
    """The sort key of a Stripe customer, and the prefix of the sort keys of its children."""
    return f"CUSTOMER#{stripe_id}"
