"""What cards and subscriptions have in common: a place under a customer, and a tombstone."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from stripe_integrations.context import current
from stripe_integrations.models.fields import Moment, StripeField, Text, fields_of
from stripe_integrations.models.keys import customer_key, user_key
from stripe_integrations.models.record import Record


class Child(Record):
    """A record under a customer, written only together with it."""

    KIND: ClassVar[str]

    stripe_id: StripeField[str | None]
    customer_id = Text()
    removed_at = Moment(private=True)

    @classmethod
    def under(cls, user_id: str, customer_id: str, values: dict[str, Any]) -> Self:
        """The record of one of Stripe's objects, not in the table yet.

        Parameters
        ----------
        user_id, customer_id : str
            Whose it is.
        values : dict
            Field name to value; `stripe_id` among them.
        """
        key = f"{customer_key(customer_id)}#{cls.KIND}#{values['stripe_id']}"
        return cls(user_key(user_id), key, customer_id=customer_id, **values)

    @property
    def is_attached(self) -> bool:
        """Whether the customer still has it: a removed one stays as a tombstone."""
        return self.removed_at is None

    @property
    def size(self) -> int:
        """About how many bytes its item takes, rather more than fewer."""
        return len(json.dumps(self.attribute_values, default=str))

    def tombstone(self) -> Self:
        """What is kept once Stripe has it no longer: that it was there, and no more."""
        return type(self)(
            self.pk,
            self.sk,
            customer_id=self.customer_id,
            stripe_id=self.stripe_id,
            removed_at=current().now(),
        )

    def same_as(self, other: Record | None) -> bool:
        """Whether the table already says what this record says."""
        if other is None:
            return False
        return all(getattr(self, name) == getattr(other, name) for name in fields_of(type(self)))
