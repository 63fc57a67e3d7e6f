"""`StripeCustomer`: the public actions on customers.

Those that no request of the API needs import their use case when they are called: each further
module would slow the cold starts of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stripe_integrations.actions.arguments import HasId, StripeData, require_type, user_id_of
from stripe_integrations.actions.customers.adopt import adopt_customer
from stripe_integrations.actions.customers.create import create_customer
from stripe_integrations.actions.customers.sync import (
    soft_delete_customer,
    sync_customer,
    sync_from_stripe_data,
)
from stripe_integrations.actions.customers.update import update_customer
from stripe_integrations.context import current
from stripe_integrations.errors import (
    CustomerBeingCreatedError,
    CustomerNotFoundError,
    InvalidFieldError,
)
from stripe_integrations.models import Customer, Event, UserRecords
from stripe_integrations.models.deployment import check_deployment
from stripe_integrations.observability import Metric

if TYPE_CHECKING:
    from stripe_integrations.actions.customers.erase import ErasedCustomers
    from stripe_integrations.actions.customers.find import FoundCustomer


@dataclass(frozen=True)
class User:
    """A user, for callers that have no class of their own.

    Parameters
    ----------
    id : str, int or uuid.UUID
        Identifies the user; never changes; a string has 1 to 500 characters. An integer and a UUID
        are stored as their text.
    """

    id: str | int | UUID


class StripeCustomer:
    """The actions on customers.

    Every method may raise `DatabaseUnavailableError` and, if it calls Stripe, `StripeError`. Those
    that write customers raise `ConfigurationError` where the table is another deployment's. Those
    that are given a record raise `InvalidFieldError` for anything else.
    """

    @staticmethod
    def create(
        user: HasId, billing_email: str, *, allow_existing: bool = False, **fields: Any
    ) -> Customer:
        """Create a user's customer on Stripe and its record, or return the existing one.

        Parallel calls, and calls after a crash, return the same customer.

        Parameters
        ----------
        user : object
            Any object with an `id`: a non-empty string, an integer or a UUID.
        billing_email : str
            Becomes Stripe's `email`.
        allow_existing : bool
            Whether to create a customer although Stripe has one with this e-mail that is no user's:
            without it, the setting `EXISTING_CUSTOMERS` decides.
        **fields
            Fields of the Customer model by name, such as `name`, `address` or `metadata`.
            `default_source` is sent to Stripe as `source`; `currency` and `delinquent` are stored
            in the record until Stripe reports them.

        Returns
        -------
        Customer
            With `is_new` True if this call created it.

        Raises
        ------
        InvalidFieldError
            A field is unknown, read-only or of the wrong type. Stripe was not called.
        StripeRefusedError
            Stripe refused a field; the user is free to try again.
        StripeUnavailableError
            Stripe can't be reached or fails. The next call resumes this one.
        ConflictError
            Concurrent writers created and deleted this user's customer every time.
        CustomerExistsError
            With ``EXISTING_CUSTOMERS=check``: Stripe has customers with this e-mail that are no
            user's. Nothing was created; `stripe_ids` has the ids of the newest.
        CustomerOfAnotherUserError
            Another user has adopted the customer that was created for this one: the next call
            creates another.
        CustomerErasedError
            The customer was erased while it was being created: the next call creates another.

        Examples
        --------
        >>> StripeCustomer.create(User("u-1"), "jane@example.com", name="Jane")  # doctest: +SKIP

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/create,
        https://docs.stripe.com/api/idempotent_requests and
        https://docs.stripe.com/api/customers/list.
        """
        customer = create_customer(
            user_id_of(user), billing_email, fields, allow_existing=allow_existing
        )
        is_new = customer.is_new
        current().add_metric(Metric.CUSTOMERS_CREATED if is_new else Metric.CUSTOMERS_RETURNED)
        return customer

    @staticmethod
    def adopt(user: HasId, stripe_id: str, *, take_over: bool = False) -> Customer:
        """Make a customer that exists on Stripe the user's, with its children.

        It is stored first. Then its metadata on Stripe gets the user's id and a token, as that of a
        created customer has, so that a rebuild finds it; if this fails, the schedule completes it.
        Of parallel calls for one customer, or for one user, one succeeds; the others change nothing
        on Stripe. A repeated call returns the customer.

        Parameters
        ----------
        user : object
            Any object with an `id`: a non-empty string, an integer or a UUID.
        stripe_id : str
            The Stripe customer, ``cus_…``.
        take_over : bool
            Whether to adopt it although its metadata names another deployment, or another user.

        Returns
        -------
        Customer
            With `is_new` True if this call stored it.

        Raises
        ------
        InvalidFieldError
            The user's `id` or `stripe_id` is invalid.
        CustomerNotFoundError
            Stripe has no such customer, or has deleted it.
        CustomerSoftDeletedError
            The customer was this user's, and is soft-deleted.
        CustomerBeingCreatedError
            A customer of this user is being created.
        UserHasAnotherCustomerError
            This user has another customer.
        CustomerOfAnotherUserError
            The customer is another user's, or was soft-deleted for that one.
        CustomerErasedError
            The customer was erased.
        TakeOverRequiredError
            Its metadata names another deployment or another user, and `take_over` is false.
        WrongModeError
            The customer is of the other mode.
        ConflictError
            Concurrent writers changed the user's records every time.

        Examples
        --------
        >>> StripeCustomer.adopt(User("u-1"), "cus_NffrFeUfNV2Hib")  # doctest: +SKIP

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/retrieve and
        https://docs.stripe.com/api/customers/update.
        """
        return adopt_customer(user_id_of(user), stripe_id, take_over=take_over)

    @staticmethod
    def get(user: HasId) -> Customer | None:
        """Read the user's active customer with its children from the table.

        Stripe is not called. The read is strongly consistent.

        Parameters
        ----------
        user : object
            Any object with an `id`: a non-empty string, an integer or a UUID.

        Returns
        -------
        Customer or None
            None where the user has none, or it is being created.

        Raises
        ------
        InvalidFieldError
            The user's `id` is invalid.
        """
        return UserRecords.read(user_id_of(user)).active_customer

    @staticmethod
    def get_by_stripe_id(stripe_id: str) -> Customer | None:
        """Read a customer with its children: of any user or unassigned, soft-deleted or not.

        Stripe is not called. The read is strongly consistent.

        Parameters
        ----------
        stripe_id : str
            The Stripe customer, ``cus_…``.

        Returns
        -------
        Customer or None
            None if it is not stored, or was erased.
        """
        from stripe_integrations.actions.customers.find import read_by_stripe_id  # noqa: PLC0415 - see above

        return read_by_stripe_id(require_type("stripe_id", stripe_id, str))

    @staticmethod
    def find(
        state: str | None = "active", *, created_to: int | None = None
    ) -> Iterator[FoundCustomer]:
        """Find the customers in a state; Stripe is not called.

        The active and the unassigned ones are read from an index, newest first, eventually
        consistent. For the incomplete ones the whole table is read.

        Parameters
        ----------
        state : str, optional
            What the customers are to this deployment: a `CustomerState`; None for the active and
            the unassigned ones.
        created_to : int, optional
            Unix seconds of Stripe's `created`, included: customers created later are left out. The
            incomplete ones are not filtered.

        Yields
        ------
        FoundCustomer
            Its ids; `get` reads the record.

        Raises
        ------
        InvalidFieldError
            `state` is not a state.

        Examples
        --------
        >>> for found in StripeCustomer.find("unassigned"):  # doctest: +SKIP
        ...     print(found.stripe_id)
        """
        from stripe_integrations.actions.customers.find import (  # noqa: PLC0415 - see above
            CustomerState,
            find_customers,
        )

        if state is not None and state not in list(CustomerState):
            raise InvalidFieldError("state", f"must be one of {', '.join(CustomerState)}")
        return find_customers(CustomerState(state) if state else None, created_to)

    @staticmethod
    def find_by_email(email: str) -> Iterator[FoundCustomer]:
        """Find the customers on Stripe with an e-mail, newest first, and their users.

        The table has no index of e-mails: Stripe is asked, whose list distinguishes upper and lower
        case, and lacks customers that were deleted there.

        Parameters
        ----------
        email : str
            The e-mail.

        Yields
        ------
        FoundCustomer
            Its ids; the user is the one that has or had it in this deployment.

        Raises
        ------
        InvalidFieldError
            `email` is empty.
        StripeRefusedError
            Stripe refused the e-mail.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/list.

        Examples
        --------
        >>> for found in StripeCustomer.find_by_email("jenny@example.com"):  # doctest: +SKIP
        ...     print(found.stripe_id, found.user_id)
        """
        from stripe_integrations.actions.customers.find import find_customers_by_email  # noqa: PLC0415 - see above

        if not email:
            raise InvalidFieldError("email", "must not be empty")
        return find_customers_by_email(email)

    @staticmethod
    def require(user: HasId) -> Customer:
        """Read the user's active customer, or raise.

        Parameters
        ----------
        user : object
            Any object with an `id`: a non-empty string, an integer or a UUID.

        Returns
        -------
        Customer
            The user's active customer with its children.

        Raises
        ------
        CustomerNotFoundError
            The user has none.
        CustomerBeingCreatedError
            The user's customer is being created.
        """
        records = UserRecords.read(user_id_of(user))
        if records.active_customer:
            return records.active_customer
        if records.claim and records.claim.is_creating:
            raise CustomerBeingCreatedError("the customer of this user is being created")
        raise CustomerNotFoundError("this user has no customer")

    @staticmethod
    def sync_from_stripe_data(customer: Customer, stripe_customer: StripeData) -> Customer:
        """Update the record from Stripe's customer object. Stripe is not called.

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
            The record was changed since it was read: the object may be older than it.
        CustomerSoftDeletedError
            The record is soft-deleted.
        InvalidFieldError, WrongModeError
            The object is another customer's, or of the other mode.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/object.
        """
        check_deployment()
        return sync_from_stripe_data(require_type("customer", customer, Customer), stripe_customer)

    @staticmethod
    def sync(customer: Customer, stripe_customer: StripeData | None = None) -> Customer:
        """Update a customer and its children to their state on Stripe.

        Parameters
        ----------
        customer : Customer
            The record, as it was read.
        stripe_customer : mapping or stripe.StripeObject, optional
            Stripe's customer, if the caller has it; it must have been fetched after the record was
            read. One without its `sources`, or with only some of them, is fetched again.

        Returns
        -------
        Customer
            Soft-deleted if Stripe has deleted the customer.

        Raises
        ------
        RecordsNotStoredError
            The deployment does not store cards or subscriptions; nothing was changed.
        CustomerSoftDeletedError
            The record is soft-deleted.
        CustomerNotFoundError
            The customer was released since it was read.
        StaleRecordError
            With `stripe_customer`: the record was changed since it was read.
        ConflictError
            Concurrent writers changed the record every time; nothing was written.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/retrieve,
        https://docs.stripe.com/api/payment_methods/customer_list and
        https://docs.stripe.com/api/subscriptions/list.
        """
        check_deployment()
        return sync_customer(require_type("customer", customer, Customer), stripe_customer)

    @staticmethod
    def update(
        customer: Customer, /, *, idempotency_key: str | None = None, **fields: Any
    ) -> Customer:
        """Update a customer on Stripe and its record; None clears a field.

        Concurrent changes, here and on Stripe, are safe: the record ends with the state that Stripe
        has.

        Parameters
        ----------
        customer : Customer
            The record, as it was read.
        idempotency_key : str, optional
            1 to 200 printable ASCII characters. A repeated call with the same key and values takes
            effect once within a day, and returns the current customer. By default, each call takes
            effect.
        **fields
            What `create` takes, `billing_email` included, except `currency` and `delinquent`.
            `balance`, `default_source`, `invoice_prefix` and `preferred_locales` can't be cleared.
            `metadata` changes the given keys only; None clears a key, and in place of the mapping
            all keys of the record but the reserved ones, which needs a call without
            `idempotency_key`. `default_source` is a token, which becomes a new source in place of
            the default one, or the id of an attached source.

        Returns
        -------
        Customer
            The updated record, with its children.

        Raises
        ------
        InvalidFieldError
            A field is unknown, read-only, of the wrong type, or can't be cleared: Stripe was not
            called. Or Stripe refused a field, or the key was used with other values: nothing was
            changed.
        CustomerSoftDeletedError
            The record is soft-deleted, or Stripe has deleted the customer, which soft-deletes the
            record.
        CustomerNotFoundError
            The update took effect, and the customer was released meanwhile.
        StripeUnavailableError
            Stripe can't be reached or fails. The update may have taken effect; its event, or a
            repeated call, updates the record. A failure of Stripe's that it has stored for an
            idempotency key is replayed for a day: then only another key makes the call.
        ConflictError
            The update took effect, and concurrent writers changed the record every time it was
            fetched.

        Examples
        --------
        >>> StripeCustomer.update(customer, name="Jane", phone=None)  # doctest: +SKIP

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/update and
        https://docs.stripe.com/api/idempotent_requests.
        """
        check_deployment()
        return update_customer(
            require_type("customer", customer, Customer), fields, idempotency_key
        )

    @staticmethod
    def link_customer(event: Event) -> Event:
        """Link the customer that an event names to the event's record.

        An event that names no customer stays unlinked. One that is not stored yet is stored.

        Parameters
        ----------
        event : Event
            The event's record, from the table or from `Event.received`.

        Returns
        -------
        Event
            The stored record.

        Raises
        ------
        CustomerNotFoundError
            The event names a customer that is not stored; nothing was written.
        CustomerErasedError
            The customer was erased; nothing was written.
        """
        from stripe_integrations.actions.events.receive import link_customer  # noqa: PLC0415 - see above

        return link_customer(require_type("event", event, Event))

    @staticmethod
    def soft_delete(customer: Customer) -> None:
        """Mark the record as deleted: it never changes again. Stripe is not called.

        A later `create` for the same user creates a new customer. A record that is soft-deleted
        already keeps its `date_purged`.

        Parameters
        ----------
        customer : Customer
            The record, as it was read.

        Raises
        ------
        CustomerNotFoundError
            The customer was released since it was read.
        ConflictError
            Concurrent writers changed the record every time; nothing was written.
        """
        check_deployment()
        soft_delete_customer(require_type("customer", customer, Customer))

    @staticmethod
    def release(user: HasId) -> None:
        """Make the user's active customer unknown to this deployment, to undo an adoption.

        Its keys are removed from the metadata on Stripe; nothing else changes there. Then the
        record, its children and its pointers are deleted. Events that arrive later are ignored,
        and any user may adopt the customer.

        Parameters
        ----------
        user : object
            Any object with an `id`: a non-empty string, an integer or a UUID.

        Raises
        ------
        CustomerNotFoundError
            The user has none.
        CustomerBeingCreatedError
            The user's customer is being created.
        CustomerErasedError
            The customer was erased meanwhile.
        CustomerOfAnotherUserError
            The customer's pointer names another user, as half of a backup may have it.
        StripeError
            Stripe did not respond, refused to change the metadata, or does not know the customer,
            as with the key of another account: the customer is still the user's.
        ConflictError
            The metadata is being written by an adoption or another release, or concurrent writers
            changed the record every time: the customer is still the user's.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/update.
        """
        from stripe_integrations.actions.customers.release import release_customer  # noqa: PLC0415 - see above

        check_deployment()
        release_customer(user_id_of(user))

    @staticmethod
    def erase(user: HasId, *, delete_on_stripe: bool = False) -> ErasedCustomers:
        """Remove everything that is stored about a user's customers, for good.

        The records, soft-deleted ones included, are deleted; the events keep their ids, types and
        states, and lose their payloads. Events that arrive later are stored without payloads and
        ignored. The customers can't be adopted or rebuilt any more; the user may get another one. A
        repeated call does nothing.

        Parameters
        ----------
        user : object
            Any object with an `id`: a non-empty string, an integer or a UUID.
        delete_on_stripe : bool
            Whether Stripe deletes the customers too, which cancels their subscriptions. By default,
            our keys are removed from their metadata.

        Returns
        -------
        ErasedCustomers
            The ids of the customers; none if the user has none.

        Raises
        ------
        InvalidFieldError
            The user's `id` or `delete_on_stripe` is invalid.
        CustomerBeingCreatedError
            The user's customer is being created: nothing was changed.
        StripeError
            Stripe did not respond, or refused the API key. The schedule completes the erasure.
        ConflictError
            The metadata is being written by an adoption or a release, or concurrent writers changed
            the records every time. The schedule completes the erasure.
        MessageNotSentError
            The erasure log did not accept the ids. The schedule completes the erasure.
        OutOfTimeError
            There is so much to erase that the invocation would end before. The schedule completes
            the erasure.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/delete and
        https://docs.stripe.com/api/customers/update.
        """
        from stripe_integrations.actions.customers.erase import erase_user  # noqa: PLC0415 - see above

        check_deployment()
        return erase_user(user_id_of(user), delete_on_stripe=delete_on_stripe)

    @staticmethod
    def erase_stripe_customer(stripe_id: str, *, delete_on_stripe: bool = False) -> ErasedCustomers:
        """Erase one customer by its Stripe id: an unassigned one, or any after a restore.

        If it is a user's, it is erased as by `erase`, without the user's other customers. If it is
        not stored, nothing of it will be. If another user gets it before it is erased, that user
        keeps it.

        Parameters
        ----------
        stripe_id : str
            The Stripe customer, ``cus_…``.
        delete_on_stripe : bool
            As in `erase`.

        Returns
        -------
        ErasedCustomers
            The id of the customer; none if another user has got it meanwhile.

        Raises
        ------
        InvalidFieldError
            An argument is invalid.
        StripeError, ConflictError, MessageNotSentError, OutOfTimeError
            As in `erase`.

        Notes
        -----
        Follows https://docs.stripe.com/api/customers/delete and
        https://docs.stripe.com/api/customers/update.
        """
        from stripe_integrations.actions.customers.erase import erase_stripe_customer  # noqa: PLC0415 - see above

        check_deployment()
        return erase_stripe_customer(stripe_id, delete_on_stripe=delete_on_stripe)

    @staticmethod
    def export(user: HasId) -> Iterator[dict[str, Any]]:
        """Yield everything that is stored about a user: one JSON object for each item of the table.

        These are the claim; the customers, soft-deleted ones included, and their children, of kinds
        that are not stored any more too; the pointers, and metadata that is due; and the events of
        the customers, with their payloads. Each object has all attributes of the item. Times are
        Unix seconds, or ISO 8601.

        Parameters
        ----------
        user : object
            Any object with an `id`: a non-empty string, an integer or a UUID.

        Yields
        ------
        dict
            An item, by attribute name; `record_type` says which record it is.

        Raises
        ------
        InvalidFieldError
            The user's `id` is invalid.

        Examples
        --------
        >>> for item in StripeCustomer.export(user):  # doctest: +SKIP
        ...     print(json.dumps(item))
        """
        from stripe_integrations.actions.customers.export import export_user  # noqa: PLC0415 - see above

        return export_user(user_id_of(user))
