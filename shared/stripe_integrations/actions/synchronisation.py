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
from stripe_integrations.models import Customer
from stripe_integrations.models.child import Child
from stripe_integrations.models.customer import Also
from stripe_integrations.models.fields import read_stripe

Json = Mapping[str, Any]
R = TypeVar("R")

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.05


def until_unrivalled(attempt: Callable[[int], R]) -> R:
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


def bring_up_to_date(
    customer: Customer,
    *,
    stripe_customer: Json | None = None,
    also: Also | None = None,
) -> None:
    """Bring a customer and what the deployment keeps under it to what Stripe says.

    Parameters
    ----------
    customer : Customer
        The record as it was read; changed in place.
    stripe_customer : mapping, optional
        Stripe's customer, where the caller has it already; fetched all the same if it lacks
        sources, so that all of it is of one moment.
    also : callable, optional
        Adds an item that is written in the same transaction.

    Raises
    ------
    StaleRecordError
        Somebody else changed the record in the meantime.
    StripeError
        Stripe can't say. A 404 is no news either: with a wrong key everything is missing.
    """
    stored_records = current().settings.stored_records
    stripe_id = customer.stripe_id or ""
    if stripe_customer is None or _lacks_sources(stripe_customer, stored_records):
        stripe_customer = current().stripe.retrieve_customer(stripe_id)
    if stripe_customer.get("deleted"):
        customer.purge(gone_from_stripe=True, also=also)
        return
    children: list[Child] = []
    try:
        if "Card" in stored_records:
            children += _cards(customer, stripe_customer)
        if "Subscription" in stored_records:
            children += _subscriptions(customer)
    except StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        # Stripe had the customer a moment ago: it may be gone now, which the next try is told.
        raise StaleRecordError(f"{stripe_id} is not what it was a moment ago") from error
    customer.bring_to(customer_values(stripe_customer), children, also)


def _cards(customer: Customer, stripe_customer: Json) -> list[Child]:
    methods = current().stripe.list_card_payment_methods(customer.stripe_id or "")
    cards = cards_from_stripe(customer.user_id or "", stripe_customer, methods)
    return [*cards, *_removed(customer.cards, cards)]


def _subscriptions(customer: Customer) -> list[Child]:
    stripe_id = customer.stripe_id or ""
    listed = current().stripe.list_subscriptions(stripe_id)
    subscriptions = subscriptions_from_stripe(customer.user_id or "", stripe_id, listed)
    return [*subscriptions, *_removed(customer.subscriptions, subscriptions)]


def _lacks_sources(stripe_customer: Json, stored_records: frozenset[str]) -> bool:
    if stripe_customer.get("deleted") or "Card" not in stored_records:
        return False
    sources = stripe_customer.get("sources")
    return sources is None or bool(sources.get("has_more"))


def _removed(known: Iterable[Child], found: Iterable[Child]) -> list[Child]:
    there = {child.sk for child in found}
    return [child.tombstone() for child in known if child.sk not in there]
