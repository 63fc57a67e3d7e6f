"""Updating a record from Stripe: read it, then fetch, then write if it is unchanged.

The fetch begins after the read, so the fetched state is at least as new as the stored one; the
write is on condition that nothing was written in between. That needs no clock, and the order of
concurrent fetches does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from stripe_integrations.context import current
from stripe_integrations.errors import CustomerNotFoundError, StaleRecordError, StripeRefusedError
from stripe_integrations.models import Customer, UserRecords, read_customer, stored_kinds
from stripe_integrations.models.child import Child
from stripe_integrations.models.customer import NOT_DUE, ExtraItem, default_ids
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeResponse

Json = Mapping[str, Any]


@dataclass(frozen=True)
class FetchedCustomer:
    """The state of a customer on Stripe, fetched after its record was read.

    Parameters
    ----------
    customer : Customer
        The record as it was read.
    stripe_customer : mapping
        Stripe's Customer object; for a deleted customer it has only ``id`` and ``deleted``.
    objects : mapping
        The objects of each kind that is stored.
    observation : Observation
        When this state was observed.
    is_given : bool
        Whether the customer is a caller's object, of unknown age: it may lack the last update, and
        serves no request for a fetch.
    """

    customer: Customer
    stripe_customer: Json
    objects: Mapping[type[Child], Sequence[Json]]
    observation: Observation
    is_given: bool

    @property
    def is_deleted(self) -> bool:
        """Whether Stripe has deleted the customer."""
        return bool(self.stripe_customer.get("deleted"))

    def write(self, removed: Iterable[Child] = (), extra_items: Iterable[ExtraItem] = ()) -> None:
        """Write the fetched state, on condition that the record's version has not changed.

        Parameters
        ----------
        removed : iterable
            Tombstones of objects whose removal was reported by events.
        extra_items : iterable of callable
            Written in the same transaction.

        Raises
        ------
        StaleRecordError
            The record was changed in the meantime.
        """
        customer = self.customer
        if self.is_deleted:
            customer.soft_delete_as_deleted_on_stripe(extra_items=extra_items)
            return
        values = {
            **Customer.values_of(self.stripe_customer),
            **self.observation.as_fields(),
            "update_key": None if self.is_given else customer.update_key,
            "fetching_until": None,
            **customer.listed(self.objects, self.observation),
            **({} if self.is_given else customer.served(self.objects)),
            **NOT_DUE,
        }
        stored = {child.sk: child for child in customer.children}
        children = self._children(removed, values)
        changed = [child for child in children if not child.has_state_of(stored.get(child.sk))]
        customer.update_with(values, changed, extra_items)

    def _children(self, removed: Iterable[Child], values: Json) -> list[Child]:
        """The children that exist on Stripe, and a tombstone of each that no longer does."""
        customer = self.customer
        listed = [
            child
            for kind, objects in self.objects.items()
            for child in kind.from_stripe(
                customer.pk, self.stripe_customer, objects, self.observation
            )
        ]
        keys = {child.sk for child in listed}
        missing = [
            child.tombstone(self.observation)
            for child in customer.children
            if child.is_attached and child.sk not in keys
        ]
        known = [child for child in customer.children if not child.is_attached]
        tombstones = {
            child.sk: child for child in [*known, *removed, *missing] if child.sk not in keys
        }
        named = default_ids(values, *(child.attribute_values for child in listed))
        for key, child in tombstones.items():
            tombstones[key] = child.with_values(is_still_default=child.stripe_id in named or None)
        return [*listed, *tombstones.values()]


def fetch_from_stripe(customer: Customer, stripe_customer: Json | None = None) -> FetchedCustomer:
    """Fetch a customer and its children.

    Parameters
    ----------
    customer : Customer
        The record as it was read.
    stripe_customer : mapping, optional
        Stripe's customer, where the caller has it; fetched nevertheless if it lacks sources, so
        that everything is from one fetch.

    Raises
    ------
    StripeError
        Stripe did not respond. A 404 is not a deletion: with a wrong key everything is missing.
    """
    kinds = stored_kinds()
    sent = current().clock()
    is_given = stripe_customer is not None and (
        bool(stripe_customer.get("deleted"))
        or all(kind.is_included(stripe_customer) for kind in kinds)
    )
    if stripe_customer is None or not is_given:
        stripe_customer = current().stripe.retrieve_customer(customer.stripe_id)
    is_deleted = stripe_customer.get("deleted")
    objects = {} if is_deleted else {kind: _fetch(kind, stripe_customer) for kind in kinds}
    observation = (
        observation_of_given(customer)
        if is_given
        else Observation.of_fetch(sent, received=current().clock())
    )
    return FetchedCustomer(customer, stripe_customer, objects, observation, is_given)


def refresh_from_stripe(customer: Customer, stripe_customer: Json | None = None) -> None:
    """Fetch a customer and its children from Stripe, and write them.

    Parameters
    ----------
    customer : Customer
        The record as it was read; changed in place.
    stripe_customer : mapping, optional
        As in `fetch_from_stripe`.

    Raises
    ------
    StaleRecordError
        The record was changed in the meantime.
    StripeError
        Stripe did not respond.
    """
    fetch_from_stripe(customer, stripe_customer).write()


def refresh_until_written(customer: Customer) -> Customer:
    """Fetch a customer and its children, and write them; after a conflict, read and fetch again.

    Parameters
    ----------
    customer : Customer
        The record as it was read.

    Returns
    -------
    Customer
        The record that was written.

    Raises
    ------
    ConflictError
        Concurrent writers changed the record every time.
    CustomerNotFoundError
        The customer was released meanwhile.
    CustomerSoftDeletedError
        The record is soft-deleted.
    StripeError
        Stripe did not respond.
    """

    def attempt(number: int) -> Customer:
        record = read_again(customer) if number else customer
        refresh_from_stripe(record)
        return record

    return retry_on_conflict(attempt)


def fetch_missing_children(pk: str, stripe_id: str) -> None:
    """Fetch a customer whose children were never listed.

    Parameters
    ----------
    pk, stripe_id : str
        The partition and the customer. Does nothing if the customer is soft-deleted, is stored in
        another partition, or its children have been listed since.

    Raises
    ------
    ConflictError
        Concurrent writers changed the record every time.
    StripeError
        Stripe did not respond.
    """

    def attempt(_: int) -> None:
        record = UserRecords.of_partition(pk).customer(stripe_id)
        if record and record.needs_fetch:
            refresh_from_stripe(record)

    retry_on_conflict(attempt)


def values_of_update(response: StripeResponse, key: str, sent: float) -> dict[str, Any]:
    """Return the field values of a record from the response to an update.

    Parameters
    ----------
    response : StripeResponse
        Of the update.
    key : str
        The idempotency key of the update: its event needs no fetch then.
    sent : float
        When the request was sent, in Unix seconds, after the record was read.

    Returns
    -------
    dict
        Empty for a response that Stripe has replayed: it may be older than the record.
    """
    if response.is_replayed:
        return {}
    observation = Observation.of_fetch(sent, received=current().clock())
    return {
        **Customer.values_of(response.data),
        **observation.as_fields(),
        "update_key": key,
        "update_observed_to": observation.observed_to,
    }


def observation_of_given(customer: Customer) -> Observation:
    """Return the observation of an object of unknown age that is at least as new as the record."""
    return Observation.of_fetch(customer.observed_from or 0, received=current().clock())


def read_again(customer: Customer) -> Customer:
    """Read the stored record of a customer, after a conflict.

    Raises
    ------
    CustomerNotFoundError
        It was released meanwhile.
    """
    record = read_customer(customer.owner)
    if record is None:
        raise CustomerNotFoundError(f"{customer.stripe_id} is stored no longer")
    return record


def retrieve_if_known(stripe_id: str) -> Json:
    """Stripe's customer; empty where Stripe does not know it."""
    try:
        return current().stripe.retrieve_customer(stripe_id)
    except StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return {}


def _fetch(kind: type[Child], stripe_customer: Json) -> list[dict[str, Any]]:
    try:
        return kind.fetch(current().stripe, stripe_customer)
    except StripeRefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        # Stripe has just returned the customer: it may be deleted now, and is fetched again.
        raise StaleRecordError(f"{stripe_customer['id']} changed during the fetch") from error
