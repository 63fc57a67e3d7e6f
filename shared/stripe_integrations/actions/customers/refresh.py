"""Bringing a record to what Stripe says: read the record, then fetch, then write if it is still so.

The fetch begins after the read, so what it brings is at least as new as what the record shows; the
write is on condition that nobody wrote in between. That needs no clock, and the order in which
fetches are asked for does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from stripe_integrations.actions.cards import cards_from_stripe
from stripe_integrations.actions.subscriptions import subscriptions_from_stripe
from stripe_integrations.context import current
from stripe_integrations.errors import ConflictError, StaleRecordError, StripeRefusedError
from stripe_integrations.models import Card, Customer, Subscription
from stripe_integrations.models.child import Child
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.models.fields import read_stripe
from stripe_integrations.models.observation import Observation

Json = Mapping[str, Any]
R = TypeVar("R")

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.05


def retry_on_conflict(attempt: Callable[[int], R]) -> R:
    """Repeat what reads and then writes, for as long as others write in between.

    Parameters
    ----------
    attempt : callable
        Reads, decides and writes; gets the number of the try, from 0. It is repeated where it
        raises `StaleRecordError`.

    Raises
    ------
    ConflictError
        Others were faster every time.
    """
    for number in range(_ATTEMPTS):
        if number:
            current().pause(_PAUSE_SECONDS * 2**number)
        try:
            return attempt(number)
        except StaleRecordError:
            continue
    raise ConflictError("others kept changing the same record")


def customer_values(stripe_customer: Json) -> dict[str, Any]:
    """A Customer's field values from Stripe's customer.

    Stripe computes `currency` and `delinquent` itself; null is not a report of them, nor of the
    mode.
    """
    values = read_stripe(Customer, "customer", stripe_customer)
    for computed in ("currency", "delinquent", "livemode"):
        if values[computed] is None:
            del values[computed]
    return values


def refresh_from_stripe(
    customer: Customer,
    *,
    stripe_customer: Json | None = None,
    also: Iterable[ExtraItem] = (),
) -> None:
    """Bring a customer and what the deployment keeps under it to what Stripe says.

    Parameters
    ----------
    customer : Customer
        The record as it was read; changed in place.
    stripe_customer : mapping, optional
        Stripe's customer, where the caller has it already; fetched all the same if it lacks
        sources, so that all of it is of one moment.
    also : iterable of callable
        Each adds an item that is written in the same transaction.

    Raises
    ------
    StaleRecordError
        Somebody else changed the record in the meantime.
    StripeError
        Stripe can't say. A 404 is no news either: with a wrong key everything is missing.
    """
    stored_records = current().settings.stored_records
    stripe_id = customer.stripe_id or ""
    sent = current().clock()
    is_given = stripe_customer is not None and not _lacks_sources(stripe_customer, stored_records)
    if stripe_customer is None or not is_given:
        stripe_customer = current().stripe.retrieve_customer(stripe_id)
    if stripe_customer.get("deleted"):
        customer.purge(deleted_on_stripe=True, also=also)
        return
    methods: list[Json] = []
    subscriptions: list[Json] = []
    try:
        if "Card" in stored_records:
            methods += current().stripe.list_card_payment_methods(stripe_id)
        if "Subscription" in stored_records:
            subscriptions += current().stripe.list_subscriptions(stripe_id)
    except StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        # Stripe had the customer a moment ago: it may be gone now, which the next try is told.
        raise StaleRecordError(f"{stripe_id} is not what it was a moment ago") from error
    observation = (
        observation_of_given(customer)
        if is_given
        else Observation.of_fetch(sent, received=current().clock())
    )
    user_id = customer.user_id or ""
    children: list[Child] = []
    values = {**customer_values(stripe_customer), **observation.as_fields()}
    if "Card" in stored_records:
        values |= Card.listed(observation)
        cards = cards_from_stripe(user_id, stripe_customer, methods, observation)
        children += [*cards, *_removed(customer.cards, cards, observation)]
    if "Subscription" in stored_records:
        values |= Subscription.listed(observation)
        listed = subscriptions_from_stripe(user_id, stripe_id, subscriptions, observation)
        children += [*listed, *_removed(customer.subscriptions, listed, observation)]
    known = {child.sk: child for child in customer.children}
    customer.update_with(
        values, [child for child in children if not child.same_as(known.get(child.sk))], also
    )


def observation_of_given(customer: Customer) -> Observation:
    """When an object of unknown age, that is not older than the record, was true."""
    return Observation.of_fetch(customer.observed_from or 0, received=current().clock())


def _lacks_sources(stripe_customer: Json, stored_records: frozenset[str]) -> bool:
    if stripe_customer.get("deleted") or "Card" not in stored_records:
        return False
    sources = stripe_customer.get("sources")
    return sources is None or bool(sources.get("has_more"))


def _removed(
    known: Iterable[Child], found: Iterable[Child], observation: Observation
) -> list[Child]:
    there = {child.sk for child in found}
    return [child.tombstone(observation) for child in known if child.sk not in there]
