"""Updating a record from Stripe: read it, then fetch, then write if it is unchanged.

The fetch begins after the read, so the fetched state is at least as new as the stored one; the
write is on condition that nothing was written in between. That needs no clock, and the order of
concurrent fetches does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from stripe_integrations.context import current
from stripe_integrations.errors import StaleRecordError, StripeRefusedError
from stripe_integrations.models import Customer, UserRecords, stored_kinds
from stripe_integrations.models.child import Child
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.models.observation import Observation

Json = Mapping[str, Any]


def refresh_from_stripe(
    customer: Customer,
    *,
    stripe_customer: Json | None = None,
    extra_items: Iterable[ExtraItem] = (),
) -> None:
    """Update a customer and its children to their state on Stripe.

    Parameters
    ----------
    customer : Customer
        The record as it was read; changed in place.
    stripe_customer : mapping, optional
        Stripe's customer, where the caller has it; fetched nevertheless if it lacks sources, so
        that everything is from one fetch.
    extra_items : iterable of callable
        Written in the same transaction.

    Raises
    ------
    StaleRecordError
        The record was changed in the meantime.
    StripeError
        Stripe did not respond. A 404 is no deletion: with a wrong key everything is missing.
    """
    kinds = stored_kinds()
    sent = current().clock()
    is_given = stripe_customer is not None and (
        bool(stripe_customer.get("deleted"))
        or all(kind.is_included(stripe_customer) for kind in kinds)
    )
    if stripe_customer is None or not is_given:
        stripe_customer = current().stripe.retrieve_customer(customer.stripe_id)
    if stripe_customer.get("deleted"):
        customer.soft_delete_as_deleted_on_stripe(extra_items)
        return
    objects = {kind: _fetch(kind, stripe_customer) for kind in kinds}
    observation = (
        observation_of_given(customer)
        if is_given
        else Observation.of_fetch(sent, received=current().clock())
    )
    children: list[Child] = []
    for kind in kinds:
        listed = kind.from_stripe(customer.user_id, stripe_customer, objects[kind], observation)
        children += [*listed, *_tombstones(customer.attached(kind), listed, observation)]
    stored = {child.sk: child for child in customer.children}
    values = {
        **Customer.values_of(stripe_customer),
        **observation.as_fields(),
        **customer.listed(kinds, observation),
    }
    changed = [child for child in children if not child.has_state_of(stored.get(child.sk))]
    customer.update_with(values, changed, extra_items)


def observation_of_given(customer: Customer) -> Observation:
    """Return the observation of an object of unknown age that is at least as new as the record."""
    return Observation.of_fetch(customer.observed_from or 0, received=current().clock())


def read_again(customer: Customer) -> Customer:
    """Read the stored record of a customer, after a conflict.

    Raises
    ------
    StaleRecordError
        It is not stored.
    """
    record = UserRecords.read(customer.user_id).customer(customer.stripe_id)
    if record is None:
        raise StaleRecordError(f"{customer.stripe_id} is not stored")
    return record


def _fetch(kind: type[Child], stripe_customer: Json) -> list[dict[str, Any]]:
    try:
        return kind.fetch(current().stripe, stripe_customer)
    except StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        # Stripe has just returned the customer: it may be deleted now, and is fetched again.
        raise StaleRecordError(f"{stripe_customer['id']} changed during the fetch") from error


def _tombstones(
    stored: Iterable[Child], listed: Iterable[Child], observation: Observation
) -> list[Child]:
    keys = {child.sk for child in listed}
    return [child.tombstone(observation) for child in stored if child.sk not in keys]
