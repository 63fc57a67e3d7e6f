"""From a Stripe id to the user: how a webhook finds whose customer it speaks of."""

from __future__ import annotations

from typing import NamedTuple

from pynamodb.attributes import UnicodeAttribute

from stripe_integrations.models.table import Record

_SK = "POINTER"


class Owner(NamedTuple):
    """Whose something on Stripe is: our user's, under that Stripe customer."""

    user_id: str
    customer_id: str


class Pointer(Record, discriminator="Pointer"):
    """Says whose a Stripe customer, or one of its PaymentMethods, is.

    It outlives a soft delete, since events still come.
    """

    LONGEST_USER_ID = 500
    """In characters: a user id has to fit a value of Stripe's metadata, and a key of ours."""

    user_id = UnicodeAttribute()
    customer_id = UnicodeAttribute(null=True)

    @classmethod
    def to(cls, stripe_id: str, user_id: str, *, customer_id: str | None = None) -> Pointer:
        """A pointer that is not in the table yet.

        Parameters
        ----------
        stripe_id : str
            What it leads from: a customer's id, or a PaymentMethod's.
        user_id : str
            Whose it is.
        customer_id : str, optional
            The customer that a PaymentMethod is attached to.
        """
        return cls(_key(stripe_id), _SK, user_id=user_id, customer_id=customer_id)

    @classmethod
    def find(cls, stripe_id: str) -> Owner | None:
        """Whose it is, strongly consistent; None where we have no such."""
        pointer = cls.read_one(_key(stripe_id), _SK)
        return Owner(pointer.user_id, pointer.customer_id or stripe_id) if pointer else None


def _key(stripe_id: str) -> str:
    return f"STRIPE#{stripe_id}"
