"""The base of records that belong to a customer, and what each kind of them declares."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.models.fields import (
    Flag,
    Integer,
    Moment,
    Shape,
    StripeField,
    Text,
    fields_of,
    read_stripe,
    required,
)
from stripe_integrations.models.keys import customer_key
from stripe_integrations.models.observation import Observation, observation_of
from stripe_integrations.models.pointer import Pointer
from stripe_integrations.models.table import ConditionFailedError, Record, transact

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeGateway

Json = Mapping[str, Any]


MAX_BYTES = 390_000
"""Below DynamoDB's limit of 400 KB per item, with room for the key attributes."""


class EventRole(Enum):
    """What an event of a type means for the object in its payload."""

    CREATED = "created"
    """The first event of the object: a stored record includes it, or is later."""
    CHANGED = "changed"
    """The payload is the object's new state."""
    REMOVED = "removed"
    """The customer has the object no longer."""
    UNORDERED = "unordered"
    """The payload doesn't decide which state is newer: the customer is fetched."""


class Child(Record):
    """A record of one of a customer's Stripe objects, written only together with the customer.

    A subclass is a kind: it declares its fields and the class variables below, and overrides the
    methods whose default doesn't fit. `models.kinds` registers it.
    """

    SORT_KEY: ClassVar[str]
    """The segment of the sort key."""
    COLLECTION: ClassVar[str]
    """The name of the kind's list on a customer, in Python and in HTTP responses."""
    SHAPE: ClassVar[Shape]
    """Stripe's `object` of the kind, which is the shape that its fields are read from."""
    EVENTS: ClassVar[Mapping[str, EventRole]]
    """The types of Stripe event that concern the kind. If kinds share one, `concerns` decides."""
    IS_DEFAULT: ClassVar[bool] = True
    """Whether a deployment stores the kind unless `STORED_RECORDS` says otherwise."""
    CAN_BE_DEFAULT: ClassVar[bool] = False
    """Whether the customer, or a subscription, can name an object of the kind as its default."""
    REDUCED_FIELDS: ClassVar[frozenset[str]] = frozenset()
    """The fields, besides the id, that are stored if an object is too large for an item."""
    POINTER_PREFIX: ClassVar[str | None] = None
    """The prefix of the ids that get a pointer, since their events may name no customer."""

    stripe_id: StripeField[str]
    customer_id = required(Text())
    incomplete = Flag(private=True)
    removed_at = Moment(private=True)
    is_still_default = Flag(private=True)
    """Whether Stripe still named the removed object as a default at the last fetch."""
    observed_from = Integer(private=True)
    observed_to = Integer(private=True)

    COMPUTED_FLAGS = {  # noqa: RUF012 - a ClassVar of Record
        "is_incomplete": "Whether it is too large to be stored with more than its main fields."
    }

    # ---- what a kind may override

    @classmethod
    def fetch(cls, stripe: StripeGateway, stripe_customer: Json) -> list[dict[str, Any]]:
        """List all objects of the kind that a customer has on Stripe.

        Parameters
        ----------
        stripe : StripeGateway
            Makes the calls.
        stripe_customer : mapping
            Stripe's customer with its `sources`.
        """
        raise NotImplementedError

    @classmethod
    def from_stripe(
        cls, pk: str, stripe_customer: Json, objects: Iterable[Json], observation: Observation
    ) -> list[Self]:
        """Make the records of all of a customer's objects, each once.

        Parameters
        ----------
        pk : str
            The customer's partition.
        stripe_customer : mapping
            Stripe's customer with its `sources`.
        objects : iterable of mapping
            What `fetch` returned.
        observation : Observation
            When they were observed.
        """
        return [
            cls.under(pk, stripe_customer["id"], cls.values_of(obj), observation) for obj in objects
        ]

    @classmethod
    def values_of(cls, obj: Json) -> dict[str, Any]:
        """Read the fields of one object."""
        return read_stripe(cls, cls.SHAPE, obj)

    @classmethod
    def is_included(cls, stripe_customer: Json) -> bool:
        """Return whether Stripe's customer contains all that `from_stripe` reads from it."""
        return True

    @classmethod
    def concerns(cls, obj: Json) -> bool:
        """Return whether an object that shares its event types with others is of this kind."""
        return True

    @classmethod
    def matches_customer(cls, obj: Json, customer_id: str, event_type: str) -> bool:
        """Return whether a payload is what its event type promises, of this customer."""
        return obj.get("object") == cls.SHAPE and obj.get("customer") == customer_id

    @classmethod
    def is_complete(cls, obj: Json) -> bool:
        """Return whether a payload has every field that a fetch would have."""
        return True

    def is_resurrection_of(self, stored: Child) -> bool:
        """Return whether this state can't succeed the stored one, since that is final."""
        return False

    def after_deletion(self, observation: Observation) -> Self:
        """Return the record after Stripe has deleted the customer: the object is removed with it.

        Parameters
        ----------
        observation : Observation
            When the deletion was observed.
        """
        return self.tombstone(observation) if self.is_attached else self

    def with_final_state(self, event_type: str, obj: Json, observation: Observation) -> Self | None:
        """Return the record with the values of the object's final event; None for other events.

        Whenever it arrives, a final event is not older than the stored state.
        """
        return None

    # ---- what all kinds share

    @classmethod
    def key_under(cls, customer_id: str, stripe_id: str) -> str:
        """The sort key of one of a customer's objects."""
        return f"{customer_key(customer_id)}#{cls.SORT_KEY}#{stripe_id}"

    @classmethod
    def under(
        cls, pk: str, customer_id: str, values: dict[str, Any], observation: Observation
    ) -> Self:
        """Make the record of one of a customer's objects, not stored yet.

        Parameters
        ----------
        pk, customer_id : str
            The customer, and its partition.
        values : dict
            Field name to value; `stripe_id` among them.
        observation : Observation
            When the values were observed.
        """
        key = cls.key_under(customer_id, values["stripe_id"])
        child = cls(pk, key, customer_id=customer_id, **values, **observation.as_fields())
        return child.reduced() if child.size > MAX_BYTES else child

    @property
    def is_attached(self) -> bool:
        """Whether the customer still has it: a removed one remains as a tombstone."""
        return self.removed_at is None

    @property
    def is_incomplete(self) -> bool:
        """Whether the object is too large for an item: only its main fields are stored."""
        return bool(self.incomplete)

    @property
    def size(self) -> int:
        """An upper estimate of the item's bytes."""
        return len(json.dumps(self.attribute_values, default=str))

    @property
    def observation(self) -> Observation | None:
        """When the stored state was observed."""
        return observation_of(self.observed_from, self.observed_to)

    def with_values(self, **values: Any) -> Self:
        """Return a copy with other values of some fields, not stored yet."""
        copy = self.copy_to(self.pk)
        for name, value in values.items():
            setattr(copy, name, value)
        return copy

    def copy_to(self, pk: str) -> Self:
        """Return a copy in another partition, not stored yet."""
        stored = {name: getattr(self, name) for name in fields_of(type(self))}
        return type(self)(pk, self.sk, **stored)

    def reduced(self) -> Self:
        """Return a copy with the main fields only, which fits into an item."""
        left_out = {
            name: None
            for name, field in fields_of(type(self)).items()
            if field.paths and name not in {"stripe_id", *self.REDUCED_FIELDS}
        }
        return self.with_values(**left_out, incomplete=True)

    def tombstone(self, observation: Observation) -> Self:
        """The record of a removed object: that it existed, and no more."""
        return type(self)(
            self.pk,
            self.sk,
            customer_id=self.customer_id,
            stripe_id=self.stripe_id,
            removed_at=current().now(),
            **observation.as_fields(),
        )

    def delete_orphan(self) -> None:
        """Delete a child whose customer was released, and its pointer.

        If this user has adopted the customer since, both remain, as a child of that record. If the
        customer has a pointer again, of another user or as unassigned, the child's pointer remains.
        """
        pointer = self.pointer()
        if not self._delete_if_orphan(pointer) and pointer:
            self._delete_if_orphan(None)

    def _delete_if_orphan(self, pointer: Pointer | None) -> bool:
        """Delete it, with its pointer if the customer has none; return False if that fails."""
        key = customer_key(self.customer_id)

        def compose(transaction: TransactWrite) -> None:
            transaction.condition_check(type(self), self.pk, key, Record.pk.does_not_exist())
            transaction.delete(self)
            if pointer:
                transaction.delete(pointer)
                Pointer.check_is_free(transaction, self.customer_id)

        try:
            transact(compose)
        except ConditionFailedError:
            return False
        return True

    def has_state_of(self, other: Record | None) -> bool:
        """Return whether another record has the same state, whenever it was observed."""
        if other is None:
            return False
        return all(
            getattr(self, name) == getattr(other, name)
            for name in fields_of(type(self))
            if name not in ("observed_from", "observed_to")
        )

    def pointer(self) -> Pointer | None:
        """The pointer from its id to its customer, where events may need one."""
        if not self.POINTER_PREFIX or not self.stripe_id.startswith(self.POINTER_PREFIX):
            return None
        return Pointer.of_payment_method(self.stripe_id, self.customer_id)
