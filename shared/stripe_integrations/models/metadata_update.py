"""The work item of an adoption: a customer's metadata on Stripe is due to be written.

The metadata names the user and the token that the customer's pointer has, so that a rebuild finds
the customer after a restore. It can't be written in the transaction that stores the pointer. So
that transaction stores this item, which remains until the metadata is written: any worker that
finds it makes the metadata equal to the pointer.
"""

from __future__ import annotations

from collections.abc import Iterator

from pynamodb.attributes import BooleanAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.models.keys import stripe_key
from stripe_integrations.models.retry import claim_expires_at
from stripe_integrations.models.table import (
    ConditionFailedError,
    Record,
    transact,
    unavailable,
)

_SK = "METADATA"
_QUEUE = "metadata"


class MetadataUpdate(Record, discriminator="MetadataUpdate"):
    """That the metadata of a customer on Stripe is due to be written.

    `claim` identifies the worker that writes it, and `next_attempt` is when that claim expires, in
    Unix seconds. Only one worker at a time writes a customer's metadata: the call of another one
    could arrive at Stripe late, when the pointer has changed. `take_over` says whether it replaces
    the token of another deployment.
    """

    claim = UnicodeAttribute()
    queue = UnicodeAttribute()
    next_attempt = NumberAttribute()
    take_over = BooleanAttribute()

    @classmethod
    def of(cls, stripe_id: str, *, take_over: bool = False) -> MetadataUpdate:
        """The item of a customer, claimed by this worker and not stored yet."""
        return cls(
            stripe_key(stripe_id),
            _SK,
            claim=current().new_token(),
            queue=_QUEUE,
            next_attempt=claim_expires_at(),
            take_over=take_over,
        )

    @classmethod
    def acquire(cls, stripe_id: str) -> MetadataUpdate | None:
        """Store the item of a customer, claimed; None where another worker has claimed it."""
        update = cls.of(stripe_id)
        is_free: Condition = cls.pk.does_not_exist() | _is_due()
        try:
            transact(lambda t: t.save(update, is_free))
        except ConditionFailedError:
            return None
        return update

    def claim_due(self) -> bool:
        """Claim the stored item for this worker, and read it.

        Returns
        -------
        bool
            False where nothing is due, or another worker has claimed it.
        """
        actions: list[Action] = [
            MetadataUpdate.claim.set(self.claim),
            MetadataUpdate.next_attempt.set(self.next_attempt),
        ]
        is_free: Condition = _is_due() | (MetadataUpdate.claim == self.claim)
        return self.update_if(actions, MetadataUpdate.pk.exists() & is_free)

    @classmethod
    def due(cls) -> Iterator[MetadataUpdate]:
        """Find what is due, by a query that is eventually consistent; to be claimed first."""
        now = int(current().clock())
        try:
            for update in cls.query(_QUEUE, cls.next_attempt <= now, index_name="by_queue"):
                yield cls.of(update.stripe_id)
        except PynamoDBException as error:
            raise unavailable(error) from error

    @property
    def stripe_id(self) -> str:
        """The customer's id, which is part of the key."""
        return self.pk.removeprefix(stripe_key(""))

    def add_to(self, transaction: TransactWrite) -> None:
        """Store the item in the transaction that changes the pointer; its claim begins here.

        On condition that no other worker is writing the metadata, as an erasure may be.
        """
        self.next_attempt = claim_expires_at()
        transaction.save(self, MetadataUpdate.pk.does_not_exist() | _is_due())

    @classmethod
    def check_is_free(cls, transaction: TransactWrite, stripe_id: str) -> None:
        """Let a transaction fail where a worker is writing the metadata, as an erasure may be."""
        is_free: Condition = cls.pk.does_not_exist() | _is_due()
        transaction.condition_check(cls, stripe_key(stripe_id), _SK, condition=is_free)

    def remove_in(self, transaction: TransactWrite) -> None:
        """Delete the item, on condition that this worker's claim is stored."""
        transaction.delete(self, MetadataUpdate.claim == self.claim)

    def finish(self) -> None:
        """Delete the item, unless another worker has claimed it."""
        try:
            transact(self.remove_in)
        except ConditionFailedError:
            return


def _is_due() -> Condition:
    is_due: Condition = MetadataUpdate.next_attempt <= int(current().clock())
    return is_due
