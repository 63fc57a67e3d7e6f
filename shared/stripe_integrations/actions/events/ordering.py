"""The order rule: which payloads are written without a fetch, which are dropped.

Stripe sends events late, twice and out of order, and stamps them with whole seconds. A payload is
written only if it is certainly newer than the stored state, and dropped only if it is certainly
older; an ambiguous one needs a fetch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stripe_integrations.actions.events.payload_trust import is_usable, matches_customer
from stripe_integrations.models import Card, Customer, Event, kind_of_event
from stripe_integrations.models.child import Child, EventRole
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.models.fields import value_at
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

    def write(self, extra_items: Iterable[ExtraItem]) -> None:
        """Write the changes under the version of the record.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read.
        """
        self._customer.update_with(self._values, self._children.values(), extra_items)

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

    def _add(self, event: Event) -> Freshness:
        kind = kind_of_event(event.kind)
        if kind:
            return self._add_child(kind, event)
        match event.kind:
            case "customer.created":
                return Freshness.CURRENT
            case "customer.updated":
                return self._add_customer(event)
        return Freshness.AMBIGUOUS

    def _add_customer(self, event: Event) -> Freshness:
        observation = self._customer.observation
        if self._values:
            observation = observation_of(self._values["observed_from"], self._values["observed_to"])
        freshness = _freshness(event, observation)
        if freshness is not Freshness.NEWER:
            return freshness
        values = Customer.values_of(event.data_object)
        if self._names_removed_card(values):
            return Freshness.AMBIGUOUS
        self._values = {**values, **Observation.of_event(event.created).as_fields()}
        return freshness

    def _add_child(self, kind: type[Child], event: Event) -> Freshness:
        role = kind.EVENTS[event.kind]
        if role is EventRole.REMOVED:
            return self._add_removal(kind, event)
        if role is EventRole.UNORDERED:
            return Freshness.AMBIGUOUS
        stored = self._stored_child(kind, event)
        freshness = self._freshness_of_child(kind, event, stored)
        if freshness is not Freshness.NEWER:
            return freshness
        if not kind.is_complete(event.data_object):
            return Freshness.AMBIGUOUS
        child = self._child(kind, kind.values_of(event.data_object), event)
        is_resurrection = stored is not None and child.is_resurrection_of(stored)
        if is_resurrection or self._names_removed_card(child.attribute_values):
            return Freshness.AMBIGUOUS
        self._children[child.sk] = child
        return freshness

    def _add_removal(self, kind: type[Child], event: Event) -> Freshness:
        """Add a tombstone, even of an unknown object: late events of it find it to be newer.

        Where the object is a default, that changes with it, and Stripe may send no event for that.
        """
        stripe_id = event.data_object["id"]
        if self._is_default(stripe_id):
            return Freshness.AMBIGUOUS
        stored = self._stored_child(kind, event)
        freshness = self._freshness_of_child(kind, event, stored)
        if freshness is not Freshness.NEWER:
            return freshness
        child = stored or self._child(kind, {"stripe_id": stripe_id}, event)
        self._children[child.sk] = child.tombstone(Observation.of_event(event.created))
        return freshness

    def _child(self, kind: type[Child], values: dict[str, Any], event: Event) -> Child:
        observation = Observation.of_event(event.created)
        return kind.under(self._customer.user_id, self._customer.stripe_id, values, observation)

    def _stored_child(self, kind: type[Child], event: Event) -> Child | None:
        stripe_id = event.data_object["id"]
        key = kind.key_under(self._customer.stripe_id, stripe_id)
        return self._children.get(key) or self._customer.child(kind, stripe_id)

    def _freshness_of_child(
        self, kind: type[Child], event: Event, stored: Child | None
    ) -> Freshness:
        if stored is None:
            # The last list of all children of the kind would have included it.
            return _freshness(event, self._customer.listing_observation(kind))
        role = kind.EVENTS[event.kind]
        if role is EventRole.CREATED:
            return Freshness.CURRENT
        is_pending = stored.sk in self._children
        observation = stored.observation if is_pending else self._customer.child_observation(stored)
        freshness = _freshness(event, observation)
        if freshness is Freshness.NEWER and not stored.is_attached:
            return freshness if role is EventRole.REMOVED else Freshness.AMBIGUOUS
        return freshness

    def _is_default(self, stripe_id: str) -> bool:
        """Return whether the customer, or a subscription, charges this card by default."""
        named = set(_default_cards(self._customer.attribute_values) + _default_cards(self._values))
        for child in [*self._customer.children, *self._children.values()]:
            named.update(_default_cards(child.attribute_values))
        return stripe_id in named

    def _names_removed_card(self, values: Json) -> bool:
        return any(self._is_removed(card) for card in _default_cards(values))

    def _is_removed(self, card_id: str) -> bool:
        key = Card.key_under(self._customer.stripe_id, card_id)
        card = self._children.get(key) or self._customer.child(Card, card_id)
        return card is not None and not card.is_attached


def is_deletion(event: Event, customer: Customer) -> bool:
    """Return whether an event deletes the customer: that is final, in whatever order it comes."""
    return event.kind == "customer.deleted" and matches_customer(event, customer)


def _freshness(event: Event, observation: Observation | None) -> Freshness:
    return observation.freshness_of(event.created) if observation else Freshness.AMBIGUOUS


def _default_cards(values: Json) -> list[str]:
    """The cards that the values of a customer or a subscription name as defaults."""
    chosen = value_at(values.get("invoice_settings"), "default_payment_method")
    if isinstance(chosen, Mapping):
        chosen = chosen.get("id")
    named = (values.get("default_source"), values.get("default_payment_method"), chosen)
    return [card for card in named if isinstance(card, str)]
