"""From a Stripe id to its customer, and to the customer's user: how an event finds its records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pynamodb.attributes import BooleanAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import CustomerErasedError, CustomerOfAnotherUserError
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

    The pointer of an erased customer remains as a tombstone, with `erased_at` in Unix seconds: the
    pointers of its PaymentMethods lead to it, and nothing of the customer is stored again.
    """

    MAX_USER_ID_LENGTH = 500
    """In characters: a user id has to fit a value of Stripe's metadata, and a key of ours."""

    user_id = UnicodeAttribute(null=True)
    customer_id = UnicodeAttribute(null=True)
    token = UnicodeAttribute(null=True)
    erased_at = NumberAttribute(null=True)
    run_id = UnicodeAttribute(null=True)
    """The run through the account that gave the customer to its user, if one did."""
    has_metadata = BooleanAttribute(null=True)
    """Whether a later run has written the user and the token to the metadata of that customer."""

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
    def is_erased(self) -> bool:
        """Whether it is the tombstone of an erased customer."""
        return self.erased_at is not None

    @property
    def lacks_metadata(self) -> bool:
        """Whether a run gave the customer to its user, and its metadata was not written since."""
        return self.user_id is not None and self.run_id is not None and not self.has_metadata

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
        see `assign_in`. A failure returns the pointer that is stored instead: see `refusal`.
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

        A failure returns the pointer that is stored instead: see `refusal`.
        """
        is_stored: Condition = Pointer.pk.exists()
        transaction.save(self, is_stored & _is_unassigned(), return_values="ALL_OLD")

    def refusal(
        self, error: ConditionFailedError
    ) -> CustomerErasedError | CustomerOfAnotherUserError | None:
        """Return why the user can't have the customer, if a transaction failed for that."""
        stored = error.old_item(self)
        if stored and stored.is_erased:
            return _erased(stored)
        if stored and stored.user_id not in (None, self.user_id):
            return CustomerOfAnotherUserError(f"{self.stripe_id} is another user's")
        return None

    def note_metadata_in(self, transaction: TransactWrite) -> None:
        """Note that the metadata was written, on condition that it is the same assignment."""
        self.has_metadata = True
        transaction.save(self, Pointer.token == self.token)

    def remove_in(self, transaction: TransactWrite) -> None:
        """Delete the pointer, on condition that it names this user, or is deleted already."""
        transaction.delete(self, Pointer.pk.does_not_exist() | (Pointer.user_id == self.user_id))

    def check_in(self, transaction: TransactWrite) -> None:
        """Let a transaction fail where the customer has another user, or none, by now."""
        is_same = Pointer.user_id == self.user_id if self.user_id else _is_unassigned()
        transaction.condition_check(
            Pointer, self.pk, self.sk, condition=Pointer.pk.exists() & is_same
        )

    @classmethod
    def erase_in(cls, transaction: TransactWrite, stored: Pointer | None, customer_id: str) -> None:
        """Replace a customer's pointer by a tombstone, on condition that it is as it was read.

        Parameters
        ----------
        transaction : TransactWrite
            Gets the write.
        stored : Pointer or None
            The pointer as it was read; None where there was none.
        customer_id : str
            The customer.
        """
        is_unchanged: Condition = cls.pk.does_not_exist()
        if stored:
            user_id = stored.user_id
            is_of_user = cls.user_id == user_id if user_id else cls.user_id.does_not_exist()
            is_unchanged = cls.pk.exists() & is_of_user
        erased_at = int(current().clock())
        transaction.save(cls(stripe_key(customer_id), _SK, erased_at=erased_at), is_unchanged)

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
        """The owner of a Stripe id, strongly consistent; None if there is none.

        Raises
        ------
        CustomerErasedError
            The customer was erased.
        """
        pointer = cls.read(stripe_id)
        if pointer and pointer.customer_id:
            pointer = cls.read(pointer.customer_id)
        if pointer and pointer.is_erased:
            raise _erased(pointer)
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


def _is_unassigned() -> Condition:
    """The condition that a pointer names no user, and is no tombstone."""
    condition: Condition = Pointer.user_id.does_not_exist() & Pointer.erased_at.does_not_exist()
    return condition


def _erased(pointer: Pointer) -> CustomerErasedError:
    return CustomerErasedError(f"{pointer.stripe_id} was erased")
