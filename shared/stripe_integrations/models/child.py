"""What cards and subscriptions have in common: a place under a customer, and a tombstone."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from stripe_integrations.context import current
from stripe_integrations.models.fields import Integer, Moment, StripeField, Text, fields_of
from stripe_integrations.models.keys import customer_key, user_key
from stripe_integrations.models.observation import Observation, observation_of
from stripe_integrations.models.pointer import Pointer
from stripe_integrations.models.table import Record


class Child(Record):
    """A record under a customer, written only together with it."""

    KIND: ClassVar[str]
    LISTED_AS: ClassVar[str]
    """How the customer's fields begin that say when all of the kind were listed."""
    POINTED_TO: ClassVar[str] = ""
    """How the ids begin of those whose events may name no customer; none by default."""

    stripe_id: StripeField[str | None]
    customer_id = Text()
    removed_at = Moment(private=True)
    observed_from = Integer(private=True)
    observed_to = Integer(private=True)

    @classmethod
    def listing_names(cls) -> tuple[str, str]:
        """The customer's fields that say since and until when the last list of all was true."""
        return f"{cls.LISTED_AS}_observed_from", f"{cls.LISTED_AS}_observed_to"

    @classmethod
    def listed(cls, observation: Observation) -> dict[str, Any]:
        """The values of those fields."""
        return dict(
            zip(
                cls.listing_names(),
                (observation.observed_from, observation.observed_to),
                strict=True,
            )
        )

    @classmethod
    def key_under(cls, customer_id: str, stripe_id: str) -> str:
        """The sort key of one of a customer's objects."""
        return f"{customer_key(customer_id)}#{cls.KIND}#{stripe_id}"

    @classmethod
    def under(
        cls, user_id: str, customer_id: str, values: dict[str, Any], observation: Observation
    ) -> Self:
        """The record of one of Stripe's objects, not in the table yet.

        Parameters
        ----------
        user_id, customer_id : str
            Whose it is.
        values : dict
            Field name to value; `stripe_id` among them.
        observation : Observation
            When the values were true.
        """
        key = cls.key_under(customer_id, values["stripe_id"])
        return cls(
            user_key(user_id), key, customer_id=customer_id, **values, **observation.as_fields()
        )

    @property
    def is_attached(self) -> bool:
        """Whether the customer still has it: a removed one stays as a tombstone."""
        return self.removed_at is None

    @property
    def size(self) -> int:
        """About how many bytes its item takes, rather more than fewer."""
        return len(json.dumps(self.attribute_values, default=str))

    @property
    def observation(self) -> Observation | None:
        """When what it shows was true."""
        return observation_of(self.observed_from, self.observed_to)

    def tombstone(self, observation: Observation) -> Self:
        """What is kept once Stripe has it no longer: that it was there, and no more."""
        return type(self)(
            self.pk,
            self.sk,
            customer_id=self.customer_id,
            stripe_id=self.stripe_id,
            removed_at=current().now(),
            **observation.as_fields(),
        )

    def same_as(self, other: Record | None) -> bool:
        """Whether another record shows the same, as of whenever."""
        if other is None:
            return False
        return all(
            getattr(self, name) == getattr(other, name)
            for name in fields_of(type(self))
            if name not in ("observed_from", "observed_to")
        )

    def pointer(self, user_id: str) -> Pointer | None:
        """What leads to its customer by its own id, where Stripe's events may need that."""
        stripe_id = self.stripe_id or ""
        if not self.POINTED_TO or not stripe_id.startswith(self.POINTED_TO):
            return None
        return Pointer.to(stripe_id, user_id, customer_id=self.customer_id)
