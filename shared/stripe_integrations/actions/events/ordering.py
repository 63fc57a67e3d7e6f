"""The order rule: which payloads are written without a fetch, which are dropped.

Stripe sends events late, twice and out of order, and stamps them with whole seconds. A payload is
written only if it is certainly newer than the stored state, and dropped only if it is certainly
older; an ambiguous one needs a fetch, unless it equals the stored state: whichever is newer, the
record has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations.actions.events.payload_trust import is_usable, matches_customer
from stripe_integrations.models import Customer, Event, kind_of_event
from stripe_integrations.models.child import Child, EventRole
from stripe_integrations.models.customer import default_ids
from stripe_integrations.models.observation import Freshness, Observation, observation_of

Json = Mapping[str, Any]


class PendingChanges:
    """The changes of a customer and its children by the payloads of events.

    Parameters
    ----------
    customer : Customer
        The record, as it was read.
    """

    def __init__(self, customer: Customer) -> None:
        self._customer = customer
        self._values: dict[str, Any] = {}
        self._children: dict[str, Child] = {}

    @property
    def are_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self._values and not self._children

    @property
    def values(self) -> Json:
        """The changed fields of the customer, by name."""
        return self._values

    @property
    def children(self) -> list[Child]:
        """The changed children."""
        return list(self._children.values())

    @property
    def removed(self) -> list[Child]:
        """The tombstones of objects that events removed."""
        return [child for child in self.children if not child.is_attached]

    def add(self, event: Event) -> Freshness:
        """Add the payload of an event if it is newer; events come in the order of their stamps.

        Parameters
        ----------
        event : Event
            One that changes this customer, or one of its children.

        Returns
        -------
        Freshness
            How the event compares to the stored state: only a newer payload was added.
        """
        if not is_usable(event, self._customer):
            return Freshness.AMBIGUOUS
        try:
            return self._add(event)
        except (AttributeError, KeyError, TypeError, ValueError):
            return Freshness.AMBIGUOUS  # the payload is malformed

    def add_final(self, event: Event) -> bool:
        """Add the final event of a child of a deleted customer: no state is newer.

        Returns
        -------
        bool
            False if it is not a final event, or its object is not stored.
        """
        data_object = event.data_object
        kind = kind_of_event(event.kind, data_object)
        if kind is None or not matches_customer(event, self._customer):
            return False
        stored = self._stored_child(kind, event)
        observation = Observation.of_event(event.created)
        try:
            child = stored and stored.with_final_state(event.kind, data_object, observation)
        except (AttributeError, KeyError, TypeError, ValueError):
            return False  # the payload is malformed
        if not child:
            return False
        self._children[child.sk] = child
        return True

    def _add(self, event: Event) -> Freshness:
        kind = kind_of_event(event.kind, event.data_object)
        if kind:
            is_removal = kind.EVENTS[event.kind] is EventRole.REMOVED
            return self._add_removal(kind, event) if is_removal else self._add_child(kind, event)
        match event.kind:
            case "customer.created":
                # A record that was stored long after its customer was created lacks the children.
                return Freshness.CURRENT if self._customer.is_listed else Freshness.AMBIGUOUS
            case "customer.updated":
                return self._add_customer(event)
        return Freshness.AMBIGUOUS

    def _add_customer(self, event: Event) -> Freshness:
        if self._customer.includes_update(event.idempotency_key, event.created):
            return Freshness.CURRENT
        observation = self._customer.observation
        if self._values:
            observation = observation_of(self._values["observed_from"], self._values["observed_to"])
        freshness = _freshness(event, observation)
        if freshness is Freshness.OLDER:
            return freshness
        values = Customer.values_of(event.data_object)
        if self._names_removed_default(values):
            return Freshness.AMBIGUOUS
        if freshness is Freshness.AMBIGUOUS:
            return Freshness.CURRENT if self._has_values(values) else freshness
        self._values = {**values, **Observation.of_event(event.created).as_fields()}
        return freshness

    def _add_child(self, kind: type[Child], event: Event) -> Freshness:
        if kind.EVENTS[event.kind] is EventRole.UNORDERED:
            return Freshness.AMBIGUOUS
        stored = self._stored_child(kind, event)
        freshness = self._freshness_of_child(kind, event, stored)
        if freshness in (Freshness.OLDER, Freshness.CURRENT):
            return freshness
        if not kind.is_complete(event.data_object):
            return Freshness.AMBIGUOUS
        child = self._child(kind, kind.values_of(event.data_object), event)
        is_resurrection = stored is not None and child.is_resurrection_of(stored)
        if is_resurrection or self._names_removed_default(child.attribute_values):
            return Freshness.AMBIGUOUS
        if freshness is Freshness.AMBIGUOUS:
            return Freshness.CURRENT if child.has_state_of(stored) else freshness
        self._children[child.sk] = child
        return freshness

    def _add_removal(self, kind: type[Child], event: Event) -> Freshness:
        """Add a tombstone, even of an unknown object: late events of it find it to be newer.

        Where the object is a default, that changes with it, and Stripe may send no event for that.
        """
        stripe_id = event.data_object["id"]
        stored = self._stored_child(kind, event)
        child = stored or self._child(kind, {"stripe_id": stripe_id}, event)
        tombstone = child.tombstone(Observation.of_event(event.created))
        freshness = self._freshness_of_child(kind, event, stored)
        if freshness is Freshness.NEWER:
            self._children[child.sk] = tombstone
        return Freshness.AMBIGUOUS if self._is_default(stripe_id) else freshness

    def _child(self, kind: type[Child], values: dict[str, Any], event: Event) -> Child:
        observation = Observation.of_event(event.created)
        return kind.under(self._customer.pk, self._customer.stripe_id, values, observation)

    def _stored_child(self, kind: type[Child], event: Event) -> Child | None:
        stripe_id = event.data_object["id"]
        key = kind.key_under(self._customer.stripe_id, stripe_id)
        return self._children.get(key) or self._customer.child(kind, stripe_id)

    def _freshness_of_child(
        self, kind: type[Child], event: Event, stored: Child | None
    ) -> Freshness:
        role = kind.EVENTS[event.kind]
        if stored is None:
            listed = self._customer.listing_observation(kind)
            if listed is None and role is EventRole.REMOVED:
                return Freshness.NEWER  # a removed object is never attached again
            # The last list of all children of the kind would have included it.
            return _freshness(event, listed)
        if role is EventRole.CREATED:
            return Freshness.CURRENT
        is_pending = stored.sk in self._children
        observation = stored.observation if is_pending else self._customer.child_observation(stored)
        freshness = _freshness(event, observation)
        if freshness is Freshness.NEWER and not stored.is_attached:
            return freshness if role is EventRole.REMOVED else Freshness.AMBIGUOUS
        return freshness

    def _has_values(self, values: Json) -> bool:
        """Return whether the customer has these values, or will have them."""
        customer = {**self._customer.attribute_values, **self._values}
        return all(customer.get(name) == value for name, value in values.items())

    def _is_default(self, stripe_id: str) -> bool:
        """Return whether the customer, or a subscription, names an object as its default."""
        children = (child.attribute_values for child in self._all_children())
        return stripe_id in default_ids(self._customer.attribute_values, self._values, *children)

    def _names_removed_default(self, values: Json) -> bool:
        """Return whether values name a removed object as default, and no fetch has confirmed it."""
        named = default_ids(values)
        return any(
            not child.is_attached and not child.is_still_default
            for child in self._all_children()
            if child.stripe_id in named
        )

    def _all_children(self) -> list[Child]:
        return [*self._customer.children, *self._children.values()]


def is_deletion(event: Event, customer: Customer) -> bool:
    """Return whether an event deletes the customer: that is final, in whatever order it comes."""
    return event.kind == "customer.deleted" and matches_customer(event, customer)


def _freshness(event: Event, observation: Observation | None) -> Freshness:
    return Observation.of_event(event.created).compared_to(observation)
