"""From a Stripe id to the user: how a webhook finds whose customer it speaks of."""

from __future__ import annotations

from pynamodb.attributes import UnicodeAttribute

from stripe_integrations.models.record import Record

_SK = "POINTER"


class Pointer(Record, discriminator="Pointer"):
    """Says whose a Stripe customer is; it outlives a soft delete, since events still come."""

    LONGEST_USER_ID = 500
    """In characters: a user id has to fit a value of Stripe's metadata, and a key of ours."""

    user_id = UnicodeAttribute()

    @classmethod
    def to(cls, stripe_id: str, user_id: str) -> Pointer:
        """A pointer that is not in the table yet."""
        return cls(_key(stripe_id), _SK, user_id=user_id)

    @classmethod
    def find(cls, stripe_id: str) -> str | None:
        """The user of this Stripe customer, strongly consistent; None where we have no such."""
        pointer = cls.read_one(_key(stripe_id), _SK)
        return pointer.user_id if pointer else None


def _key(stripe_id: str) -> str:
    return f"STRIPE#{stripe_id}"
