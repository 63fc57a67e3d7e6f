"""From a Stripe id to its customer, and to the customer's user: how an event finds its records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pynamodb.attributes import UnicodeAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.transactions import TransactWrite

from stripe_integrations.models.keys import stripe_key, unassigned_key, user_key
from stripe_integrations.models.table import ConditionFailedError, Record, unavailable

_SK = "POINTER"


class Owner(NamedTuple):
    """The Stripe customer that an object on Stripe belongs to, and its user.

    Parameters
    ----------
    user_id : str or None
        The user; None where the customer is unassigned.
    customer_id : str
        The Stripe customer.
    """

    user_id: str | None
    customer_id: str

    @property
    def pk(self) -> str:
        """The partition that has the customer's records."""
        if self.user_id is None:
            return unassigned_key(self.customer_id)
        return user_key(self.user_id)


class Pointer(Record, discriminator="Pointer"):
    """The user of a Stripe customer, or the customer of a PaymentMethod.

    A customer's pointer without a user says that the customer is unassigned. It remains after a
    soft delete, since events still arrive. A PaymentMethod's has the customer alone, whose user may
    change.
    """

    MAX_USER_ID_LENGTH = 500
    """In characters: a user id has to fit a value of Stripe's metadata, and a key of ours."""

    user_id = UnicodeAttribute(null=True)
    customer_id = UnicodeAttribute(null=True)
    token = UnicodeAttribute(null=True)
    run_id = UnicodeAttribute(null=True)
    """The run through the account that gave the customer to its user, if one did."""

    @classmethod
    def to(cls, owner: Owner, token: str | None = None, run_id: str | None = None) -> Pointer:
        """A customer's pointer, not stored yet.

        Parameters
        ----------
        owner : Owner
            The customer, and its user.
        token : str, optional
            The token that the customer was created with: its metadata on Stripe may lose it.
        run_id : str, optional
            The run through the account that gives the customer to the user.
        """
        key = stripe_key(owner.customer_id)
        return cls(key, _SK, user_id=owner.user_id, token=token, run_id=run_id)

    @classmethod
    def of_payment_method(cls, stripe_id: str, customer_id: str) -> Pointer:
        """The pointer of a PaymentMethod that is attached to a customer, not stored yet."""
        return cls(stripe_key(stripe_id), _SK, customer_id=customer_id)

    @property
    def owner(self) -> Owner:
        """The customer that a customer's pointer is of, and its user."""
        return Owner(self.user_id, self.stripe_id)

    @property
    def stripe_id(self) -> str:
        """The id that it leads from, which is part of the key."""
        return self.pk.removeprefix(stripe_key(""))

    def add_to(self, transaction: TransactWrite) -> None:
        """Add the write of a customer's pointer, on condition that no other user has the customer.

        The pointer alone decides whose a customer is: claims of two users don't exclude each other.
        An unassigned customer is given to a user only by the transaction that moves its records:
        see `assign_in`. A failure returns the pointer that is stored instead: see
        `is_of_another_user`.
        """
        is_free: Condition = Pointer.pk.does_not_exist() | (Pointer.user_id == self.user_id)
        transaction.save(self, is_free, return_values="ALL_OLD")

    def create_in(self, transaction: TransactWrite) -> None:
        """Add the write of a pointer, on condition that there is none, which a failure returns."""
        transaction.save(self, Pointer.pk.does_not_exist(), return_values="ALL_OLD")

    def unassign_in(self, transaction: TransactWrite, owner: Owner) -> None:
        """Add the write of an unassigned customer's pointer, on condition that its owner has it."""
        transaction.save(self, Pointer.user_id == owner.user_id)

    def assign_in(self, transaction: TransactWrite) -> None:
        """Add the write of an unassigned customer's pointer, on condition that it is unassigned.

        A failure returns the pointer that is stored instead: see `is_of_another_user`.
        """
        is_unassigned: Condition = Pointer.pk.exists() & Pointer.user_id.does_not_exist()
        transaction.save(self, is_unassigned, return_values="ALL_OLD")

    def is_of_another_user(self, error: ConditionFailedError) -> bool:
        """Return whether a transaction failed because another user has the customer."""
        stored = error.old_item(self)
        return stored is not None and stored.user_id not in (None, self.user_id)

    def remove_in(self, transaction: TransactWrite) -> None:
        """Delete the pointer, on condition that it names this user, or is deleted already."""
        transaction.delete(self, Pointer.pk.does_not_exist() | (Pointer.user_id == self.user_id))

    def check_in(self, transaction: TransactWrite) -> None:
        """Let a transaction fail where the customer has another user, or none, by now."""
        user_id = Pointer.user_id
        is_same = user_id.does_not_exist() if self.user_id is None else user_id == self.user_id
        transaction.condition_check(
            Pointer, self.pk, self.sk, condition=Pointer.pk.exists() & is_same
        )

    @classmethod
    def check_is_free(cls, transaction: TransactWrite, customer_id: str) -> None:
        """Let a transaction fail where a customer has a pointer."""
        transaction.condition_check(
            cls, stripe_key(customer_id), _SK, condition=cls.pk.does_not_exist()
        )

    @staticmethod
    def key_of(stripe_id: str) -> tuple[str, str]:
        """The key of the pointer of a Stripe id."""
        return stripe_key(stripe_id), _SK

    @classmethod
    def read(cls, stripe_id: str) -> Pointer | None:
        """The pointer of a Stripe id, strongly consistent."""
        return cls.read_one(stripe_key(stripe_id), _SK)

    @classmethod
    def find(cls, stripe_id: str) -> Owner | None:
        """The owner of a Stripe id, strongly consistent; None if there is none."""
        pointer = cls.read(stripe_id)
        if pointer and pointer.customer_id:
            pointer = cls.read(pointer.customer_id)
        return pointer.owner if pointer else None

    @classmethod
    def token_of(cls, stripe_id: str) -> str | None:
        """The token that a customer was created with, strongly consistent; None if unknown."""
        pointer = cls.read(stripe_id)
        return pointer.token if pointer else None

    @classmethod
    def is_staged(cls, customer_id: str) -> bool:
        """Return whether a mapping gave a customer to its user: its record may be stored later."""
        pointer = cls.read(customer_id)
        return pointer is not None and pointer.run_id is not None

    @classmethod
    def read_all(cls, customer_ids: Iterable[str]) -> dict[str, Pointer]:
        """Return the stored ones among the pointers of customers, by id; strongly consistent."""
        keys = [(stripe_key(stripe_id), _SK) for stripe_id in set(customer_ids)]
        try:
            return {
                pointer.stripe_id: pointer for pointer in cls.batch_get(keys, consistent_read=True)
            }
        except PynamoDBException as error:
            raise unavailable(error) from error
