"""The claim on a user: the lock that allows one customer per user, then the pointer to it.

It exists from the start of a create until the customer is soft-deleted. While the customer is being
created, it holds the idempotency token and the parameters of the call to Stripe: a concurrent
caller, or one after a crash, repeats the same call and gets the same customer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pynamodb.attributes import JSONAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import ConflictError, StripeUnavailableError
from stripe_integrations.limits import CLOCK_SKEW_SECONDS
from stripe_integrations.models.deployment import deployment_name
from stripe_integrations.models.keys import user_key
from stripe_integrations.models.retry import attempts
from stripe_integrations.models.table import ConditionFailedError, Record, transact, unavailable

_SK = "CLAIM"
_MAX_TOKENS = 100


class CustomerClaim(Record, discriminator="CustomerClaim"):
    """A user's claim: a pointer to their customer, or a lock while it is being created.

    `parameters` has what Stripe is called with (`stripe`), and the values that only the record
    stores (`local`); `claimed_at` is in Unix seconds. Only a claim whose customer is still being
    created has them.
    """

    token = UnicodeAttribute()
    former_tokens = JSONAttribute(null=True)
    parameters = JSONAttribute(null=True)
    claimed_at = NumberAttribute(null=True)
    stripe_id = UnicodeAttribute(null=True)
    run_id = UnicodeAttribute(null=True)
    """The run through the account whose mapping gave the customer to the user, if one did."""

    @property
    def is_creating(self) -> bool:
        """Whether the customer is still being created."""
        return self.stripe_id is None

    @classmethod
    def acquire(cls, user_id: str, parameters: dict[str, Any]) -> tuple[CustomerClaim, bool]:
        """Write a claim unless the user has one, in one round trip.

        Parameters
        ----------
        user_id : str
            The user who is to have a customer.
        parameters : dict
            See the class.

        Returns
        -------
        tuple
            The stored claim, and whether this call wrote it.
        """
        claim = cls(
            user_key(user_id),
            _SK,
            token=new_token(),
            former_tokens=[],
            parameters=parameters,
            claimed_at=current().clock(),
        )
        for _ in attempts():
            try:
                transact(lambda t: t.save(claim, cls.pk.does_not_exist(), return_values="ALL_OLD"))
            except ConditionFailedError as error:
                stored = error.old_item(claim)
                if stored:
                    return stored, stored.token == claim.token
            else:
                return claim, True
        raise ConflictError("concurrent writers wrote and removed claims of this user every time")

    @staticmethod
    def key_in(pk: str) -> tuple[str, str]:
        """The key of the claim in a user's partition."""
        return pk, _SK

    @classmethod
    def read(cls, user_id: str) -> CustomerClaim | None:
        """The stored claim, strongly consistent."""
        return cls.read_one(user_key(user_id), _SK)

    def completed(self, stripe_id: str, token: object) -> ClaimReplacement:
        """This claim as the pointer to its customer, on condition that it is still stored.

        Parameters
        ----------
        stripe_id : str
            The customer.
        token : object
            The one of the claim's tokens that the customer was created with; by default, the
            current one.
        """
        own = str(token) if token in self.tokens else self.token
        pointer = CustomerClaim(self.pk, self.sk, token=own, stripe_id=stripe_id)
        return ClaimReplacement(pointer, self._is_owner())

    @classmethod
    def assigned(
        cls,
        user_id: str,
        stripe_id: str,
        token: str,
        replaced: CustomerClaim | None,
        run_id: str | None = None,
    ) -> ClaimReplacement:
        """A pointer to a customer that has no claim of its own: it is lost, or there was none.

        Parameters
        ----------
        user_id, stripe_id, token : str
            The user, the customer, and the token that the customer's metadata has, or will have.
        replaced : CustomerClaim or None
            What the pointer replaces, on condition that it is still stored: an earlier claim, or a
            pointer to the same customer, which keeps its token.
        run_id : str, optional
            The run through the account that gives, or gave, the customer to the user.
        """
        if replaced and replaced.stripe_id == stripe_id:
            token = replaced.token
        key = user_key(user_id)
        pointer = cls(key, _SK, token=token, stripe_id=stripe_id, run_id=run_id)
        if replaced is None:
            return ClaimReplacement(pointer, cls.pk.does_not_exist())
        if replaced.is_creating:
            return ClaimReplacement(pointer, replaced._is_owner())
        return ClaimReplacement(pointer, cls.stripe_id == replaced.stripe_id)

    def release(self) -> None:
        """Delete the claim, after a refusal that can't have created a customer.

        Does nothing where another claim is stored by now.
        """
        self._write_if_stored(lambda t: t.delete(self, self._is_owner()))

    def renew_token(self) -> CustomerClaim | None:
        """Take another token, after Stripe has stored a failure for this one.

        Former tokens remain known: a customer that was created with one may still be found.

        Returns
        -------
        CustomerClaim or None
            The claim with its new token; None where another claim is stored by now.

        Raises
        ------
        StripeUnavailableError
            Stripe has failed for very many tokens: no further one is attempted.
        """
        if len(self.tokens) >= _MAX_TOKENS:
            raise StripeUnavailableError("Stripe has failed for every token of this claim")
        renewed = CustomerClaim(
            self.pk,
            self.sk,
            token=new_token(),
            former_tokens=self.tokens,
            parameters=self.parameters,
            claimed_at=self.claimed_at,
        )
        is_written = self._write_if_stored(lambda t: t.save(renewed, self._is_owner()))
        return renewed if is_written else None

    @property
    def tokens(self) -> list[str]:
        """Every token that Stripe was called with for this claim."""
        return [*(self.former_tokens or []), self.token]

    @staticmethod
    def is_ours(token: object) -> bool:
        """Return whether this deployment made a token."""
        name, _, rest = token.partition("/") if isinstance(token, str) else ("", "", "")
        return bool(rest) and name == deployment_name()

    @staticmethod
    def second_of(token: object) -> int:
        """When a token was made, in Unix seconds by our clock; 0 if it has no time.

        Metadata can be edited on Stripe: a token with a future time is not one that we made.
        """
        name, _, rest = token.partition("/") if isinstance(token, str) else ("", "", "")
        digits = rest.partition("-")[0]
        second = int(digits) if name and digits.isascii() and digits.isdecimal() else 0
        return second if second <= current().clock() + CLOCK_SKEW_SECONDS else 0

    @staticmethod
    def remove_pointer(transaction: TransactWrite, pk: str, stripe_id: str) -> None:
        """Delete a user's pointer, on condition that it points to this customer.

        Parameters
        ----------
        transaction : TransactWrite
            Gets the write.
        pk, stripe_id : str
            The user's partition, and the customer.
        """
        transaction.delete(CustomerClaim(pk, _SK), CustomerClaim.stripe_id == stripe_id)

    def _is_owner(self) -> Condition:
        is_creating: Condition = CustomerClaim.stripe_id.does_not_exist()
        is_owner: Condition = is_creating & (CustomerClaim.token == self.token)
        return is_owner

    @staticmethod
    def _write_if_stored(compose: Callable[[TransactWrite], None]) -> bool:
        try:
            transact(compose)
        except ConditionFailedError:
            return False
        return True


@dataclass(frozen=True)
class ClaimReplacement:
    """The write that makes a user's claim the pointer to a customer.

    Parameters
    ----------
    pointer : CustomerClaim
        The claim to store.
    condition : Condition
        What must hold for the claim that is stored until then.
    """

    pointer: CustomerClaim
    condition: Condition

    def add_to(self, transaction: TransactWrite) -> None:
        """Add the write to a transaction; a failure returns the claim that is stored instead."""
        transaction.save(self.pointer, self.condition, return_values="ALL_OLD")


def claims_in_creation() -> Iterator[CustomerClaim]:
    """Find the claims whose customer is still being created, by a scan of the whole table."""
    try:
        yield from CustomerClaim.scan(CustomerClaim.stripe_id.does_not_exist())
    except PynamoDBException as error:
        raise unavailable(error) from error


def new_token() -> str:
    """A unique token by which this deployment recognizes its customers, with the time."""
    return f"{deployment_name()}/{int(current().clock())}-{current().new_token()}"
