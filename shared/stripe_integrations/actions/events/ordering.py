"""The order rule: which payloads may be written without a fetch, which dropped, which are in doubt.

Stripe sends events late, twice and out of order, and stamps them with whole seconds. A payload is
written only where it is certainly newer than what the record shows, and dropped only where it is
certainly older; whatever is in doubt is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stripe_integrations.actions.cards import card_from_payment_method
from stripe_integrations.actions.customers.refresh import customer_values
from stripe_integrations.actions.subscriptions import subscriptions_from_stripe
from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.models import Card, Customer, Event, Subscription
from stripe_integrations.models.child import Child
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.observation import (
    CLOCK_SKEW_SECONDS,
    Freshness,
    Observation,
    observation_of,
)

Json = Mapping[str, Any]

_FIRST_OF_A_CHILD = frozenset({"customer.subscription.created", "payment_method.attached"})
_LAST_OF_A_CARD = frozenset({"payment_method.detached", "customer.source.deleted"})
_FINAL_STATUSES = frozenset({"canceled", "incomplete_expired"})


class PendingChanges:
    """What a customer and its children become by the payloads of events.

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
    def has_news(self) -> bool:
        """Whether anything was taken in."""
        return bool(self._values or self._children)

    def write(self, also: Iterable[ExtraItem]) -> None:
        """Write what was taken in, under the version of the record.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read.
        """
        self._customer.update_with(self._values, self._children.values(), also)

    def take(self, event: Event) -> Freshness:
        """Take a payload in where it is newer; bring events in the order of their stamps.

        Parameters
        ----------
        event : Event
            One that changes this customer, or something under it.

        Returns
        -------
        Freshness
            How the event stands to what the record showed: only a newer one was taken in.
        """
        if is_untrusted(event) or self._customer.test_clock:
            return Freshness.AMBIGUOUS
        if not matches_customer(event, self._customer):
            return Freshness.AMBIGUOUS
        try:
            return self._take(event)
        except (AttributeError, KeyError, TypeError, ValueError):
            return Freshness.AMBIGUOUS  # what can't be read is Stripe's to say again

    def _take(self, event: Event) -> Freshness:
        match (event.kind or "").split("."):
            case ["customer", "created"]:
                order = Freshness.CURRENT
            case ["customer", "updated"]:
                order = self._take_customer(event)
            case ["customer", "subscription", _]:
                order = self._take_subscription(event)
            case ["customer", "source", "deleted"] | ["payment_method", "detached"]:
                order = self._take_removal(event)
            case ["payment_method", _]:
                order = self._take_payment_method(event)
            case _:
                order = Freshness.AMBIGUOUS
        return order

    def _take_customer(self, event: Event) -> Freshness:
        shown = self._customer.observation
        if self._values:
            shown = observation_of(self._values["observed_from"], self._values["observed_to"])
        order = _order(event, shown)
        if order is not Freshness.NEWER:
            return order
        values = customer_values(event.subject)
        if any(self._is_removed(card) for card in _cards_named(values)):
            return Freshness.AMBIGUOUS
        self._values = {**values, **Observation.of_event(event.created or 0).as_fields()}
        return order

    def _take_subscription(self, event: Event) -> Freshness:
        known = self._known(Subscription, event)
        order = self._order_of_child(Subscription, event, known)
        if order is not Freshness.NEWER:
            return order
        if value_at(event.subject, "items", "has_more") is not False:
            return Freshness.AMBIGUOUS
        (child,) = subscriptions_from_stripe(
            self._customer.user_id or "",
            self._customer.stripe_id or "",
            [event.subject],
            Observation.of_event(event.created or 0),
        )
        if isinstance(known, Subscription) and _is_resurrection(known, child):
            return Freshness.AMBIGUOUS
        if any(self._is_removed(card) for card in _cards_named(child.attribute_values)):
            return Freshness.AMBIGUOUS
        return self._keep(child)

    def _take_payment_method(self, event: Event) -> Freshness:
        """A card of the older shape is wrapped here, and lacks what only that shape has."""
        if not str(event.subject.get("id")).startswith("pm_"):
            return Freshness.AMBIGUOUS
        order = self._order_of_child(Card, event, self._known(Card, event))
        if order is not Freshness.NEWER:
            return order
        return self._keep(
            card_from_payment_method(
                self._customer.user_id or "",
                self._customer.stripe_id or "",
                event.subject,
                Observation.of_event(event.created or 0),
            )
        )

    def _take_removal(self, event: Event) -> Freshness:
        """A removed card does not come back; an unknown one is kept as removed all the same.

        An event of it that is still on its way then finds something to be older than. Where the
        card is somebody's default, that changes with it, and no event may say so.
        """
        stripe_id = str(event.subject.get("id"))
        if self._is_named(stripe_id):
            return Freshness.AMBIGUOUS
        known = self._known(Card, event)
        order = self._order_of_child(Card, event, known)
        if order is not Freshness.NEWER:
            return order
        observation = Observation.of_event(event.created or 0)
        card = known or Card.under(
            self._customer.user_id or "",
            self._customer.stripe_id or "",
            {"stripe_id": stripe_id},
            observation,
        )
        return self._keep(card.tombstone(observation))

    def _known(self, kind: type[Child], event: Event) -> Child | None:
        stripe_id = str(event.subject.get("id"))
        key = kind.key_under(self._customer.stripe_id or "", stripe_id)
        return self._children.get(key) or self._customer.child(kind, stripe_id)

    def _order_of_child(self, kind: type[Child], event: Event, known: Child | None) -> Freshness:
        if known is None:
            # It would have been listed, had it been there when all were.
            return _order(event, self._customer.listing_observation(kind))
        if event.kind in _FIRST_OF_A_CHILD:
            return Freshness.CURRENT
        taken = known.sk in self._children
        shown = known.observation if taken else self._customer.observation_of_child(known)
        order = _order(event, shown)
        if order is Freshness.NEWER and not known.is_attached and event.kind not in _LAST_OF_A_CARD:
            return Freshness.AMBIGUOUS
        return order

    def _is_named(self, card_id: str) -> bool:
        """Whether the customer, or a subscription, charges this card by default."""
        named = set(_cards_named(self._customer.attribute_values) + _cards_named(self._values))
        for child in [*self._customer.subscriptions, *self._children.values()]:
            named.update(_cards_named(child.attribute_values))
        return card_id in named

    def _is_removed(self, card_id: str) -> bool:
        key = Card.key_under(self._customer.stripe_id or "", card_id)
        card = self._children.get(key) or self._customer.child(Card, card_id)
        return card is not None and not card.is_attached

    def _keep(self, child: Child) -> Freshness:
        self._children[child.sk] = child
        return Freshness.NEWER


def _order(event: Event, shown: Observation | None) -> Freshness:
    return shown.order(event.created or 0) if shown else Freshness.AMBIGUOUS


def is_deletion(event: Event, customer: Customer) -> bool:
    """Whether an event says that the customer is deleted: for good, in whatever order it comes."""
    return event.kind == "customer.deleted" and matches_customer(event, customer)


def matches_customer(event: Event, customer: Customer) -> bool:
    """Whether the payload is the object that the type promises, of this customer and this mode."""
    subject = event.subject
    kind = event.kind or ""
    if subject.get("livemode", customer.livemode) is not customer.livemode:
        return False
    if not isinstance(subject.get("id"), str):
        return False
    named = subject.get("customer")
    if kind.startswith("customer.subscription."):
        return subject.get("object") == "subscription" and named == customer.stripe_id
    if kind.startswith("customer.source."):
        return subject.get("object") == "card" and named == customer.stripe_id
    if kind.startswith("payment_method."):
        owner = None if kind == "payment_method.detached" else customer.stripe_id
        is_card = (subject.get("object"), subject.get("type")) == ("payment_method", "card")
        return is_card and named == owner
    return subject.get("object") == "customer" and subject["id"] == customer.stripe_id


def is_untrusted(event: Event) -> bool:
    """Whether a payload can't be taken at its word, whenever it was made."""
    return (
        event.replayed_at is not None
        or value_at(event.webhook_message, "created") != event.created
        or event.api_version != API_VERSION
        or event.subject.get("test_clock") is not None
        or (event.created or 0) > current().clock() + CLOCK_SKEW_SECONDS
    )


def _cards_named(values: Json) -> list[str]:
    """The cards that a customer's or a subscription's values name as defaults."""
    settings = values.get("invoice_settings")
    chosen = value_at(settings, "default_payment_method")
    if isinstance(chosen, Mapping):
        chosen = chosen.get("id")
    named = (values.get("default_source"), values.get("default_payment_method"), chosen)
    return [card for card in named if isinstance(card, str)]


def _is_resurrection(known: Subscription, child: Subscription) -> bool:
    """Whether a subscription that has ended would live again: nothing on Stripe does."""
    return known.status in _FINAL_STATUSES and child.status not in _FINAL_STATUSES
