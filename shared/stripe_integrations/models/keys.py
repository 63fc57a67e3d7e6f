"""The keys of what stands in a user's partition."""

from __future__ import annotations


def user_key(user_id: str) -> str:
    """The partition of everything that belongs to one user."""
    return f"USER#{user_id}"


def customer_key(stripe_id: str) -> str:
    """The sort key of a Stripe customer; what stands under it begins with it."""
    return f"CUSTOMER#{stripe_id}"
