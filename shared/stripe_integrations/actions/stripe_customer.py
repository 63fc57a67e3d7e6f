"""The customer actions, as the backend and the handlers call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stripe_integrations.actions.customers.create import create_customer
from stripe_integrations.actions.customers.rebuild import Rebuild, rebuild_customers
from stripe_integrations.actions.customers.refresh import (
    customer_values,
    observation_of_given,
    refresh_from_stripe,
    retry_on_conflict,
)
from stripe_integrations.context import current
from stripe_integrations.errors import (
    CustomerBeingCreatedError,
    CustomerNotFoundError,
    CustomerSoftDeletedError,
    InvalidFieldError,
    RecordsNotStoredError,
    StaleRecordError,
    WrongModeError,
)
from stripe_integrations.models import Customer, Event, Pointer, UserRecords
from stripe_integrations.models.fields import is_text
from stripe_integrations.observability import Metric

_NEEDED_FOR_SYNC = frozenset({"Card", "Subscription"})


class HasId(Protocol):
    """Any user: an object with a non-empty string `id`."""

    @property
    def id(self) -> str:
        """What the user is known by, for good."""


@dataclass(frozen=True)
class User:
    """A user, for callers that have no class of their own.

    Parameters
    ----------
    id : str
        What the user is known by, for good; 1 to 500 characters.
    """

    id: str


class ToDict(Protocol):
    """An object of Stripe's library, which is no mapping."""

    def to_dict(self) -> dict[str, Any]:
        """Its JSON."""


StripeData = Mapping[str, Any] | ToDict


class StripeCustomer:
    """What can be done with the customers that we keep.

    Every method may raise `DatabaseUnavailableError` and, where it asks Stripe, `StripeError`.
    """

    @staticmethod
    def create(user: HasId, billing_email: str, **fields: Any) -> Customer:
        """Create a user's customer, on Stripe and here, or return the one that the user has.

        Parallel calls, and calls after a crash, come to the same customer.

        Parameters
        ----------
        user : object
            Anything with a non-empty string `id`.
        billing_email : str
            Becomes Stripe's `email`.
        **fields
            Fields of the Customer model under their own names, such as `name`, `address` or
            `metadata`. `default_source` goes to Stripe as `source`; `currency` and `delinquent`
            stand here until Stripe reports them.

        Returns
        -------
        Customer
            With `is_new` telling whether this call made it.

        Raises
        ------
        InvalidFieldError
            A field is unknown, not the caller's to choose, or of the wrong type. Nothing was
            asked of Stripe.
        StripeRefusedError
            Stripe refused a field; the user is free to try again.
        StripeUnavailableError
            Stripe can't be reached or fails. The next call takes up where this one stopped.
        ConflictError
            Others kept creating and deleting this user's customer.

        Examples
        --------
        >>> StripeCustomer.create(User("u-1"), "jane@example.com", name="Jane")  # doctest: +SKIP

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/create and
        https://docs.stripe.com/api/idempotent_requests.
        """
        customer = create_customer(_user_id(user), billing_email, fields)
        is_new = customer.is_new
        current().add_metric(Metric.CUSTOMERS_CREATED if is_new else Metric.CUSTOMERS_RETURNED)
        return customer

    @staticmethod
    def get(user: HasId) -> Customer | None:
        """The user's active customer with its cards and subscriptions, as the table has it.

        Stripe is not asked. The read is strongly consistent.

        Parameters
        ----------
        user : object
            Anything with a non-empty string `id`.

        Returns
        -------
        Customer or None
            None where the user has none, or it is being created.

        Raises
        ------
        InvalidFieldError
            The user's `id` can't be one.
        """
        return UserRecords.read(_user_id(user)).active_customer

    @staticmethod
    def require(user: HasId) -> Customer:
        """`get`, for callers that can't go on without a customer.

        Parameters
        ----------
        user : object
            Anything with a non-empty string `id`.

        Returns
        -------
        Customer
            The user's active customer with its cards and subscriptions.

        Raises
        ------
        CustomerNotFoundError
            The user has none.
        CustomerBeingCreatedError
            The user will have one as soon as a create that is under way has ended.
        """
        records = UserRecords.read(_user_id(user))
        if records.active_customer:
            return records.active_customer
        if records.active and records.active.is_creating:
            raise CustomerBeingCreatedError("the customer of this user is being created")
        raise CustomerNotFoundError("this user has no customer")

    @staticmethod
    def sync_from_stripe_data(customer: Customer, stripe_customer: StripeData) -> Customer:
        """Bring the record to what a Stripe object says. Stripe is not asked.

        Parameters
        ----------
        customer : Customer
            The record, as it was read before the object was fetched.
        stripe_customer : mapping or stripe.StripeObject
            Stripe's customer; ``deleted: true`` soft-deletes the record.

        Returns
        -------
        Customer
            The same object, changed.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read: nobody knows whether the object is newer.
        CustomerSoftDeletedError
            The record was soft-deleted: it stays as it is.
        InvalidFieldError, WrongModeError
            The object is another customer's, or of the other mode.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/object.
        """
        given = _plain(customer, stripe_customer)
        if given.get("deleted"):
            customer.purge(deleted_on_stripe=True)
        else:
            customer.update_with(
                {**customer_values(given), **observation_of_given(customer).as_fields()}
            )
        return customer

    @staticmethod
    def sync(customer: Customer, stripe_customer: StripeData | None = None) -> Customer:
        """Bring a customer, its cards and its subscriptions to what Stripe says.

        Parameters
        ----------
        customer : Customer
            The record, as it was read.
        stripe_customer : mapping or stripe.StripeObject, optional
            Stripe's customer, where the caller has it already; it must have been fetched after
            the record was read. One without its `sources`, or not with all of them, is fetched
            again.

        Returns
        -------
        Customer
            Soft-deleted where Stripe has deleted the customer.

        Raises
        ------
        RecordsNotStoredError
            The deployment leaves cards or subscriptions out; nothing was changed.
        CustomerSoftDeletedError
            The record was soft-deleted: it stays as it is.
        StaleRecordError
            With `stripe_customer`: the record was changed since it was read.
        ConflictError
            Others kept changing the record; nothing was written.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/retrieve,
        https://docs.stripe.com/api/payment_methods/customer_list and
        https://docs.stripe.com/api/subscriptions/list.
        """
        missing = _NEEDED_FOR_SYNC - current().settings.stored_records
        if missing:
            names = " and ".join(sorted(missing))
            raise RecordsNotStoredError(
                f"sync needs the {names} records; STORED_RECORDS omits them"
            )
        if not customer.is_active:
            raise CustomerSoftDeletedError(f"{customer.stripe_id} is soft-deleted")
        if stripe_customer is not None:
            given = _plain(customer, stripe_customer)
            refresh_from_stripe(customer, stripe_customer=given)
            return customer

        def attempt(number: int) -> Customer:
            record = _read_again(customer) if number else customer
            refresh_from_stripe(record)
            return record

        return retry_on_conflict(attempt)

    @staticmethod
    def link_customer(event: Event) -> Event:
        """Link the customer that an event refers to, to the event's record.

        An event that names no customer stays unlinked. One that is not in the table yet is put
        there; one that is there already is not put there twice.

        Parameters
        ----------
        event : Event
            The local record of the event, from the table or from `Event.received`.

        Returns
        -------
        Event
            The record that stands in the table.

        Raises
        ------
        CustomerNotFoundError
            The event names a customer that we don't have; nothing was written.
        """
        named = event.customer_id or event.payment_method_id
        if named is None:
            return event if event.is_stored else event.store()
        owner = Pointer.find(named)
        if owner is None:
            raise CustomerNotFoundError(f"{named} is not a customer of ours")
        return event.link(owner)

    @staticmethod
    def soft_delete(customer: Customer) -> None:
        """Mark the record as deleted: it stays as it is from now on. Stripe is not asked.

        A later `create` for the same user makes a new customer. A record that is soft-deleted
        already keeps the time at which it was.

        Parameters
        ----------
        customer : Customer
            The record, as it was read.

        Raises
        ------
        ConflictError
            Others kept changing the record; nothing was written.
        """

        def attempt(number: int) -> None:
            record = _read_again(customer) if number else customer
            if record.is_active:
                record.purge()

        retry_on_conflict(attempt)

    @staticmethod
    def rebuild(created_from: int | None = None, resume_from: str | None = None) -> Rebuild:
        """Put back, after a restore, the customers that Stripe has of ours and the table has not.

        They are known by the user's id and the deployment's name in Stripe's metadata. What stands
        in the table stays as it is. Safe to run twice, and beside another run.

        Parameters
        ----------
        created_from : int, optional
            Unix seconds: only customers that Stripe made since. By default, all.
        resume_from : str, optional
            What a call that ran out of time has returned.

        Returns
        -------
        Rebuild
            `resume_from` says where to go on; None at the end.

        Examples
        --------
        >>> StripeCustomer.rebuild(created_from=1790000000).resume_from  # doctest: +SKIP

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/list.
        """
        return rebuild_customers(created_from, resume_from)


def _user_id(user: HasId) -> str:
    user_id = getattr(user, "id", None)
    if not isinstance(user_id, str) or not user_id:
        raise InvalidFieldError("user_id", "must be a non-empty string")
    if len(user_id) > Pointer.LONGEST_USER_ID:
        raise InvalidFieldError(
            "user_id", f"must be at most {Pointer.LONGEST_USER_ID} characters long"
        )
    if not is_text(user_id):
        raise InvalidFieldError("user_id", "can't be written in UTF-8")
    return user_id


def _plain(customer: Customer, stripe_customer: StripeData) -> Mapping[str, Any]:
    """The object as plain JSON, checked to be this customer in this mode."""
    if not isinstance(stripe_customer, Mapping):
        to_dict = getattr(stripe_customer, "to_dict", None)
        stripe_customer = to_dict() if callable(to_dict) else {}
    if stripe_customer.get("id") != customer.stripe_id:
        raise InvalidFieldError("stripe_customer", f"is not {customer.stripe_id}")
    if stripe_customer.get("livemode") not in (None, current().settings.livemode):
        raise WrongModeError(f"{customer.stripe_id} is of the other mode")
    return stripe_customer


def _read_again(customer: Customer) -> Customer:
    record = UserRecords.read(customer.user_id or "").customer(customer.stripe_id or "")
    if record is None:
        raise StaleRecordError(f"{customer.stripe_id} is not there")
    return record
