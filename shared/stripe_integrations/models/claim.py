"""The claim on a user: the lock that makes one customer per user, then the pointer to it.

It stands from the first moment of a create until the customer is soft-deleted. While it is
`creating`, it carries the idempotency token and the parameters with which Stripe is asked, so that
whoever comes second, or after a crash, asks the same question and gets the same customer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pynamodb.attributes import JSONAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.expressions.condition import Condition
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import ConflictError, StripeUnavailableError
from stripe_integrations.models.keys import user_key
from stripe_integrations.models.table import ConditionFailedError, Record, transact

_SK = "ACTIVE"
_ATTEMPTS = 8
_MOST_TOKENS = 100


class CustomerClaim(Record, discriminator="CustomerClaim"):
    """Says which customer a user has, or that one is being created."""

    token = UnicodeAttribute(null=True)
    former_tokens = JSONAttribute(null=True)
    parameters = JSONAttribute(null=True)
    since = NumberAttribute(null=True)
    stripe_id = UnicodeAttribute(null=True)

    @property
    def is_creating(self) -> bool:
        """Whether no customer has come of this claim yet."""
        return self.stripe_id is None

    @classmethod
    def claim(cls, user_id: str, parameters: dict[str, Any]) -> tuple[CustomerClaim, bool]:
        """Put up a claim, unless one stands already; one round trip tells.

        Parameters
        ----------
        user_id : str
            The user to have a customer.
        parameters : dict
            What Stripe will be asked with.

        Returns
        -------
        tuple
            The claim that stands now, and whether it is this one.
        """
        claim = cls(
            user_key(user_id),
            _SK,
            token=_new_token(),
            former_tokens=[],
            parameters=parameters,
            since=current().clock(),
        )
        for _ in range(_ATTEMPTS):
            try:
                transact(lambda t: t.save(claim, cls.pk.does_not_exist(), return_values="ALL_OLD"))
            except ConditionFailedError as error:
                standing = error.old_item(0, cls)
                if standing:
                    return standing, standing.token == claim.token
            else:
                return claim, True
        raise ConflictError("claims on this user keep coming and going")

    @classmethod
    def read(cls, user_id: str) -> CustomerClaim | None:
        """The claim that stands, strongly consistent."""
        return cls.read_one(user_key(user_id), _SK)

    def activate(self, transaction: TransactWrite, stripe_id: str) -> None:
        """Make the claim point to its customer, on condition that it is still this claim."""
        active = CustomerClaim(self.pk, self.sk, token=self.token, stripe_id=stripe_id)
        transaction.save(active, self._is_owner(), return_values="ALL_OLD")

    @classmethod
    def adopt(
        cls,
        transaction: TransactWrite,
        user_id: str,
        stripe_id: str,
        token: str,
        standing: CustomerClaim | None,
    ) -> None:
        """Point to a customer that no claim stands for any more.

        Parameters
        ----------
        transaction : TransactWrite
            What the pointer is written with.
        user_id, stripe_id, token : str
            Whose customer, which, and what Stripe was asked with for it.
        standing : CustomerClaim or None
            What the pointer takes the place of, on condition that it is still there: a claim that
            this customer came after, or a pointer to the same customer.
        """
        pointer = cls(user_key(user_id), _SK, token=token, stripe_id=stripe_id)
        unchanged: Condition
        if standing is None:
            unchanged = cls.pk.does_not_exist()
        elif standing.is_creating:
            unchanged = standing._is_owner()
        else:
            unchanged = cls.stripe_id == standing.stripe_id
        transaction.save(pointer, unchanged, return_values="ALL_OLD")

    def release(self) -> None:
        """Take the claim away, after a refusal that can't have made a customer.

        Where it is this claim no longer, nothing happens.
        """
        self._alter(lambda t: t.delete(self, self._is_owner()))

    def renew_token(self) -> CustomerClaim | None:
        """Take another token, after Stripe has kept a failure under this one.

        The old ones stay known: a customer may yet turn up that was made under one of them.

        Returns
        -------
        CustomerClaim or None
            The claim with its new token; None where it is this claim no longer.

        Raises
        ------
        StripeUnavailableError
            Stripe has failed under very many tokens: no further one is tried.
        """
        if len(self.tokens) >= _MOST_TOKENS:
            raise StripeUnavailableError("Stripe has failed under every token of this claim")
        renewed = CustomerClaim(
            self.pk,
            self.sk,
            token=_new_token(),
            former_tokens=[*self.tokens],
            parameters=self.parameters,
            since=self.since,
        )
        return renewed if self._alter(lambda t: t.save(renewed, self._is_owner())) else None

    @property
    def tokens(self) -> list[str]:
        """Every token that this claim has asked Stripe with."""
        return [*(self.former_tokens or []), self.token]

    @staticmethod
    def is_ours(token: object) -> bool:
        """Whether a token is one that this deployment has made up, and no other."""
        name, _, rest = token.partition("/") if isinstance(token, str) else ("", "", "")
        return name == current().settings.deployment_name and bool(rest)

    @staticmethod
    def remove_pointer(transaction: TransactWrite, user_id: str, stripe_id: str) -> None:
        """Take the pointer away, on condition that it points to this customer."""
        transaction.delete(
            CustomerClaim(user_key(user_id), _SK), CustomerClaim.stripe_id == stripe_id
        )

    def _is_owner(self) -> Condition:
        creating: Condition = CustomerClaim.stripe_id.does_not_exist()
        mine: Condition = creating & (CustomerClaim.token == self.token)
        return mine

    @staticmethod
    def _alter(compose: Callable[[TransactWrite], None]) -> bool:
        try:
            transact(compose)
        except ConditionFailedError:
            return False
        return True


def _new_token() -> str:
    """A token that nobody else has, and by which this deployment knows its own again."""
    return f"{current().settings.deployment_name}/{current().new_token()}"
