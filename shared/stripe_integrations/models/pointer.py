"""From a Stripe id to its user: how an event finds its customer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pynamodb.attributes import UnicodeAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.transactions import TransactWrite

from stripe_integrations.models.keys import stripe_key
from stripe_integrations.models.table import ConditionFailedError, Record, unavailable

_SK = "POINTER"


class Owner(NamedTuple):
    """The user and the Stripe customer that an object on Stripe belongs to."""

    user_id: str
    customer_id: str


class Pointer(Record, discriminator="Pointer"):
    """The owner of a Stripe customer, or of one of its PaymentMethods.

    It remains after a soft delete, since events still arrive.
    """

    MAX_USER_ID_LENGTH = 500
    """In characters: a user id has to fit a value of Stripe's metadata, and a key of ours."""

    user_id = UnicodeAttribute()
    customer_id = UnicodeAttribute(null=True)
    token = UnicodeAttribute(null=True)

    @classmethod
    def to(
        cls,
        stripe_id: str,
        user_id: str,
        *,
        customer_id: str | None = None,
        token: str | None = None,
    ) -> Pointer:
        """A new pointer, not stored yet.

        Parameters
        ----------
        stripe_id : str
            The id that it leads from: a customer's, or a PaymentMethod's.
        user_id : str
            The owner.
        customer_id : str, optional
            The customer that a PaymentMethod is attached to.
        token : str, optional
            The token that a customer was created with: its metadata on Stripe may lose it.
        """
        return cls(
            stripe_key(stripe_id), _SK, user_id=user_id, customer_id=customer_id, token=token
        )

    @property
    def stripe_id(self) -> str:
        """The id that it leads from, which is part of the key."""
        return self.pk.removeprefix(stripe_key(""))

    def add_to(self, transaction: TransactWrite) -> None:
        """Add the write of a customer's pointer, on condition that no other user has the customer.

        The pointer alone decides whose a customer is: claims of two users don't exclude each other.
        A failure returns the pointer that is stored instead: see `is_of_another_user`.
        """
        is_free: Condition = Pointer.pk.does_not_exist() | (Pointer.user_id == self.user_id)
        transaction.save(self, is_free, return_values="ALL_OLD")

    def is_of_another_user(self, error: ConditionFailedError, position: int) -> bool:
        """Return whether a transaction failed because another user has the customer.

        Parameters
        ----------
        error : ConditionFailedError
            The failure.
        position : int
            The place of `add_to` in the transaction.
        """
        stored = error.old_item(position, Pointer)
        return stored is not None and stored.user_id != self.user_id

    def remove_in(self, transaction: TransactWrite) -> None:
        """Delete the pointer, on condition that it names this user, or is deleted already."""
        transaction.delete(self, Pointer.pk.does_not_exist() | (Pointer.user_id == self.user_id))

    @classmethod
    def read(cls, stripe_id: str) -> Pointer | None:
        """The pointer of a Stripe id, strongly consistent."""
        return cls.read_one(stripe_key(stripe_id), _SK)

    @classmethod
    def find(cls, stripe_id: str) -> Owner | None:
        """The owner of a Stripe id, strongly consistent; None if there is none."""
        pointer = cls.read(stripe_id)
        return Owner(pointer.user_id, pointer.customer_id or stripe_id) if pointer else None

    @classmethod
    def token_of(cls, stripe_id: str) -> str | None:
        """The token that a customer was created with, strongly consistent; None if unknown."""
        pointer = cls.read(stripe_id)
        return pointer.token if pointer else None

    @classmethod
    def find_all(cls, stripe_ids: Iterable[str]) -> dict[str, Owner]:
        """Return the owners of those Stripe ids that have one, by id; strongly consistent."""
        keys = [(stripe_key(stripe_id), _SK) for stripe_id in stripe_ids]
        try:
            pointers = list(cls.batch_get(keys, consistent_read=True))
        except PynamoDBException as error:
            raise unavailable(error) from error
        owners = ((p.stripe_id, p.user_id, p.customer_id) for p in pointers)
        return {name: Owner(user_id, customer or name) for name, user_id, customer in owners}
