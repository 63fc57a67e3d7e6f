"""The work item of an erasure, stored until both passes are complete.

It is stored first, so that whatever fails later, the schedule completes the erasure. It has the
user until the records are deleted. Then it waits for a second pass, which finds what was being
written during the first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pynamodb.attributes import BooleanAttribute, JSONAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from stripe_integrations.context import current
from stripe_integrations.models.retry import claim_expires_at
from stripe_integrations.models.table import (
    Record,
    transact,
    unavailable,
)

SECOND_PASS_SECONDS = 900
"""Seconds between the passes: longer than an invocation that stores events, and than index lags."""
_PREFIX, _SK = "ERASE#", "ERASE"
_QUEUE = "erasures"


class Erasure(Record, discriminator="Erasure"):
    """A request to erase customers, by their Stripe ids.

    Several erasures of one customer may exist: each step can be repeated. `next_attempt` is when
    the claim of the worker that works on it expires, or when the second pass is due, in Unix
    seconds.
    """

    user_id = UnicodeAttribute(null=True)
    """Until the records are deleted; None where the customer is unassigned, or not stored."""
    customers = JSONAttribute()
    """The ids of the PaymentMethods, whose events may name no customer, by the customer's id."""
    delete_on_stripe = BooleanAttribute()
    are_records_deleted = BooleanAttribute()
    queue = UnicodeAttribute()
    next_attempt = NumberAttribute()

    @classmethod
    def start(
        cls,
        user_id: str | None,
        customers: Mapping[str, Collection[str]],
        *,
        delete_on_stripe: bool,
    ) -> Erasure:
        """Store a new work item, claimed by this worker.

        Parameters
        ----------
        user_id : str or None
            The user who has the customers.
        customers : mapping
            The ids of their PaymentMethods, by the customer's id.
        delete_on_stripe : bool
            Whether they are to be deleted on Stripe too.
        """
        erasure = cls(
            f"{_PREFIX}{current().new_token()}",
            _SK,
            user_id=user_id,
            customers={each: sorted(methods) for each, methods in customers.items()},
            delete_on_stripe=delete_on_stripe,
            are_records_deleted=False,
            queue=_QUEUE,
            next_attempt=claim_expires_at(),
        )
        transact(lambda t: t.save(erasure))
        return erasure

    @classmethod
    def due(cls) -> Iterator[Erasure]:
        """Find the keys of what is due, by a query that is eventually consistent."""
        now = int(current().clock())
        try:
            for erasure in cls.query(_QUEUE, cls.next_attempt <= now, index_name="by_queue"):
                yield cls(erasure.pk, erasure.sk)
        except PynamoDBException as error:
            raise unavailable(error) from error

    def claim_due(self) -> bool:
        """Claim the stored item for this worker, and read it.

        Returns
        -------
        bool
            False where nothing is due, or another worker has claimed it.
        """
        is_due: Condition = Erasure.next_attempt <= int(current().clock())
        return self.update_if([Erasure.next_attempt.set(claim_expires_at())], is_due)

    def schedule_second_pass(self) -> None:
        """Note that the records are deleted, and schedule the second pass; forget the user."""
        due = int(current().clock()) + SECOND_PASS_SECONDS
        actions: list[Action] = [
            Erasure.are_records_deleted.set(True),
            Erasure.next_attempt.set(due),
            Erasure.user_id.remove(),
        ]
        self.update_if(actions, Erasure.pk.exists())

    def finish(self) -> None:
        """Delete the work item after the second pass."""
        transact(lambda t: t.delete(self))
