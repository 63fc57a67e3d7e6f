"""Writing the objects of a page: what is missing is stored, what is older is updated.

A page is compared with the stored state like an event, by the interval of its request. Wholly after
the stored state, it is written under the version; wholly before, it is skipped; where they overlap,
the customer is fetched. An object that equals the stored state needs no fetch, so a page that is
read again after a kill costs only its own call. Only a complete list of one customer, fetched under
its version, says that there are no further children: a page never does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from stripe_integrations import errors
from stripe_integrations.actions.account.page import (
    Finding,
    Json,
    Page,
    Result,
    unless_unreadable,
)
from stripe_integrations.actions.account.rebuild import restore_customer
from stripe_integrations.actions.customers.assign import remove_assignment, store_record
from stripe_integrations.actions.customers.refresh import refresh_until_written
from stripe_integrations.actions.customers.snapshot import CustomerSnapshot, names_other_owner
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import current
from stripe_integrations.models import (
    Customer,
    Owner,
    Pointer,
    Subscription,
    read_customer,
    stored_kinds,
)
from stripe_integrations.models.card import Card
from stripe_integrations.models.child import Child
from stripe_integrations.models.customer import default_ids, read_items
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.keys import customer_key
from stripe_integrations.models.observation import Freshness, Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import PaymentMethodPolicy, Run

_ENDED = ("canceled", "incomplete_expired")


class Stored(NamedTuple):
    """What is stored of a customer: the record may have only some of its children."""

    pointer: Pointer | None = None
    record: Customer | None = None


def write_customers(page: Page, run: Run) -> None:
    """Store or update the customers of a page.

    Raises
    ------
    StripeError, DatabaseUnavailableError, ConflictError
        The page is to be read again. What was written of it remains.
    """
    stored = _read_stored((obj["id"], None) for obj in page.objects)
    for obj in page.objects:
        write = partial(_write_customer, page, run, obj)
        _write_object(page, obj["id"], obj["id"], stored, write)


def write_subscriptions(page: Page, run: Run) -> None:
    """Store or update the subscriptions of a page, each under its customer.

    Raises
    ------
    StripeError, DatabaseUnavailableError, ConflictError
        The page is to be read again. What was written of it remains.
    """
    stored = _read_stored((customer_id_of(obj), obj["id"]) for obj in page.objects)
    for obj in page.objects:
        write = partial(_write_subscription, page, run, obj)
        _write_object(page, obj["id"], customer_id_of(obj), stored, write)


def _read_stored(objects: Iterable[tuple[str, str | None]]) -> dict[str, Stored] | None:
    """Read what is stored of a page's customers, each with its subscriptions of the page.

    None where a later release has written a record of one of them: each is to be read alone.

    Parameters
    ----------
    objects : iterable of tuple
        The id of a customer and, if it is a page of subscriptions, of one of its subscriptions.
    """
    with suppress(errors.NewerSchemaError):
        return _read_together(list(objects))
    return None


def _read_together(objects: list[tuple[str, str | None]]) -> dict[str, Stored]:
    pointers = Pointer.read_all(customer_id for customer_id, _ in objects)
    keys = []
    for customer_id, subscription_id in objects:
        if customer_id in pointers:
            pk = pointers[customer_id].owner.pk
            keys.append((pk, customer_key(customer_id)))
            if subscription_id:
                keys.append((pk, Subscription.key_under(customer_id, subscription_id)))
    items = read_items(keys)
    stored = {}
    for customer_id, pointer in pointers.items():
        record = items.get((pointer.owner.pk, customer_key(customer_id)))
        stored[customer_id] = Stored(pointer, record if isinstance(record, Customer) else None)
    for item in items.values():
        if isinstance(item, Child) and (record := stored[item.customer_id].record):
            record.children.append(item)
    return stored


def _write_object(
    page: Page,
    stripe_id: str,
    customer_id: str,
    stored: dict[str, Stored] | None,
    write: Callable[[Stored], Result | Finding],
) -> None:
    """Write an object; one that can't be written must not stop the run."""

    def attempt(number: int) -> Result | Finding:
        if number or stored is None:
            state = _read_again(customer_id)
        else:
            state = stored.get(customer_id, Stored())
        if state.pointer is not None and state.pointer.is_erased:
            return Result.ERASED
        try:
            return write(state)
        except (errors.CustomerNotFoundError, errors.CustomerSoftDeletedError) as error:
            raise errors.StaleRecordError("released or soft-deleted in the meantime") from error

    page.note(unless_unreadable(stripe_id, lambda: retry_on_conflict(attempt)))


def _read_again(customer_id: str) -> Stored:
    pointer = Pointer.read(customer_id)
    return Stored(pointer, read_customer(pointer.owner) if pointer else None)


# ---- customers


def _write_customer(page: Page, run: Run, obj: Json, stored: Stored) -> Result | Finding:
    pointer, record = stored
    if record:
        return _update_customer(page, run, obj, record)
    snapshot = CustomerSnapshot(obj, page.observation, is_initial=False)
    if pointer and pointer.run_id and names_other_owner(obj.get("metadata"), pointer.user_id):
        remove_assignment(pointer)
        return Finding(obj["id"], Result.CONFLICT, "its metadata names another owner")
    if pointer is None and snapshot.token:
        return restore_customer(snapshot)
    if pointer is None and not stores_unassigned():
        return Result.UNASSIGNED
    return _store_customer(page, run, snapshot, pointer)


def _store_customer(
    page: Page, run: Run, snapshot: CustomerSnapshot, pointer: Pointer | None
) -> Result:
    """Store a customer that has no record, with its payment methods where they are listed."""
    owner = pointer.owner if pointer else Owner(None, snapshot.stripe_id)
    customer = snapshot.fill(Customer.new(owner, current().now()))
    customer.run_id = run.run_id
    wants_methods = _wants_methods(run, customer)
    has_all_sources = not value_at(snapshot.stripe_customer, "sources", "has_more")
    if wants_methods and has_all_sources:
        _add_methods(customer, snapshot.stripe_customer, page.observation)
    is_whole = customer.fits_transaction
    if not is_whole:
        customer.children, customer.listings = [], None
    if not store_record(customer, pointer):
        raise errors.StaleRecordError("another worker has stored the customer")
    if wants_methods and not (has_all_sources and is_whole):
        refresh_until_written(customer)
    return Result.STORED


def _add_methods(customer: Customer, stripe_customer: Json, observation: Observation) -> None:
    """List the payment methods of a customer that is not stored, after it was seen to be missing.

    It is stored on condition that it is still missing, so this list is as current as one that is
    fetched under a version.
    """
    kinds = [kind for kind in stored_kinds() if kind.CAN_BE_DEFAULT]
    objects = {kind: kind.fetch(current().stripe, stripe_customer) for kind in kinds}
    until = Observation.of_fetch(current().clock(), received=current().clock())
    listed = Observation(observed_from=observation.observed_from, observed_to=until.observed_to)
    customer.children = [
        child
        for kind, listing in objects.items()
        for child in kind.from_stripe(customer.pk, stripe_customer, listing, listed)
    ]
    customer.listings = customer.listed(kinds, listed)["listings"]


def _update_customer(page: Page, run: Run, obj: Json, record: Customer) -> Result:
    if not record.is_active:
        return Result.FROZEN
    values = Customer.values_of(obj)
    result = Result.UNCHANGED
    if _differs(record, values):
        match page.observation.compared_to(record.observation):
            case Freshness.AMBIGUOUS:
                refresh_until_written(_with_children(record))
                return Result.FETCHED
            case Freshness.NEWER:
                record.update_with({**values, **page.observation.as_fields()})
                result = Result.UPDATED
    return _fetch_methods(run, record) or result


# ---- subscriptions


def _write_subscription(page: Page, run: Run, obj: Json, stored: Stored) -> Result | Finding:
    pointer, record = stored
    if record is None:
        found = _find_customer(run, obj, pointer)
        if not isinstance(found, Customer):
            return found
        record = found
    if not record.is_active:
        return Result.FROZEN
    values = Subscription.values_of(obj)
    child = Subscription.under(record.pk, record.stripe_id, values, page.observation)
    known = record.child(Subscription, obj["id"])
    listed = record.listing_observation(Subscription)
    observation = record.child_observation(known) if known else listed
    result = Result.UNCHANGED
    if not child.has_state_of(known):
        freshness = page.observation.compared_to(observation) if observation else Freshness.NEWER
        is_final = known is not None and child.is_resurrection_of(known)
        if freshness is Freshness.NEWER and (is_final or not Subscription.is_complete(obj)):
            freshness = Freshness.AMBIGUOUS
        if freshness is Freshness.AMBIGUOUS:
            refresh_until_written(_with_children(record))
            return Result.FETCHED
        if freshness is Freshness.NEWER:
            record.update_with({}, [child])
            result = Result.UPDATED if known else Result.STORED
    return _fetch_methods(run, record) or result


def _find_customer(run: Run, obj: Json, pointer: Pointer | None) -> Customer | Result | Finding:
    """Store the customer of a subscription that is not stored: no list has those of test clocks."""
    customer_id = customer_id_of(obj)
    if obj.get("status") in _ENDED:
        return Result.ENDED
    if pointer is None and not stores_unassigned():
        return Result.UNASSIGNED
    sent = current().clock()
    stripe_customer = current().stripe.retrieve_customer(customer_id)
    if stripe_customer.get("deleted"):
        return Result.ENDED
    observation = Observation.of_fetch(sent, received=current().clock())
    single = Page([stripe_customer], observation)
    write_customers(single, run)
    record = _read_again(customer_id).record
    if record:
        return record
    return single.findings[0] if single.findings else Result(next(iter(single.results)))


# ---- what both share


def _fetch_methods(run: Run, record: Customer) -> Result | None:
    """Fetch a customer whose payment methods are to be listed, and were not yet."""
    has_subscription = any(isinstance(child, Subscription) for child in record.children)
    if record.listing_observation(Card) or not _wants_methods(
        run, record, has_subscription=has_subscription
    ):
        return None
    refresh_until_written(_with_children(record))
    return Result.FETCHED


def _wants_methods(run: Run, customer: Customer, *, has_subscription: bool = False) -> bool:
    """Return whether the run lists the payment methods of a customer."""
    if not any(kind.CAN_BE_DEFAULT for kind in stored_kinds()):
        return False
    match run.payment_methods:
        case PaymentMethodPolicy.ALL:
            return True
        case PaymentMethodPolicy.NONE:
            return False
    return has_subscription or bool(default_ids(customer.attribute_values))


def stores_unassigned() -> bool:
    """Return whether the deployment stores customers that no user has."""
    return current().settings.unassigned_customers is UnassignedCustomers.STORE


def _differs(record: Customer, values: dict[str, Any]) -> bool:
    return any(getattr(record, name) != value for name, value in values.items())


def _with_children(record: Customer) -> Customer:
    """Read a record again, with all of its children."""
    stored = read_customer(record.owner)
    if stored is None:
        raise errors.StaleRecordError("the customer was moved since it was read")
    return stored


def customer_id_of(obj: Json) -> str:
    """The id of a subscription's customer, which may be expanded."""
    customer = obj["customer"]
    return str(value_at(customer, "id") if isinstance(customer, dict) else customer)
