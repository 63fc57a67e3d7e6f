"""A user's customer: the record, its children, and the conditional writes that change them.

The items of one user share a partition, so one consistent query reads them all. Every write of a
customer or of its children is on condition that the customer's `version` is the one that was read,
and raises it: two writers can't interleave, and nothing is written under a record that was
soft-deleted in the meantime.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from pynamodb.attributes import VersionAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import (
    CustomerSoftDeletedError,
    DatabaseRefusedError,
    StaleRecordError,
)
from stripe_integrations.models.card import Card
from stripe_integrations.models.child import Child
from stripe_integrations.models.claim import CustomerClaim
from stripe_integrations.models.entitlement import Entitlement
from stripe_integrations.models.fields import (
    Document,
    Flag,
    Integer,
    Listing,
    Moment,
    Text,
    fields_of,
    read_stripe,
    required,
    value_at,
)
from stripe_integrations.models.keys import customer_key, user_key
from stripe_integrations.models.kinds import stored_kinds
from stripe_integrations.models.observation import Observation, observation_of
from stripe_integrations.models.payment_method import PaymentMethod
from stripe_integrations.models.pointer import Owner, Pointer
from stripe_integrations.models.retry import claim_expires_at
from stripe_integrations.models.subscription import Subscription
from stripe_integrations.models.table import (
    TRANSACTION_BYTES,
    TRANSACTION_ITEMS,
    Record,
    stale_if_changed,
    transact,
    unavailable,
)
from stripe_integrations.models.tax_id import TaxId

K = TypeVar("K", bound=Child)
D = TypeVar("D", Card, PaymentMethod)
Json = Mapping[str, Any]

ExtraItem = Callable[[TransactWrite], None]
"""Adds an item to the transaction that writes a customer, so that both are written or neither."""

CREATED_SHARDS = tuple(map(str, range(8)))
"""The partitions of the index of active customers: each takes 1,000 writes a second, and a backfill
writes customers of about the same `created`."""
_INDEX_PAGE_ITEMS = 200
_FOREVER = 2**33
_QUEUE = "children"
_LEASE_SECONDS = 10
"""After this, another worker acquires the lease of a customer's fetch: its holder may have died."""
MAX_EXTRA_ITEMS = 20
"""How many items callers may add to a transaction that writes a customer."""
_NO_VALUES: Mapping[str, Any] = MappingProxyType({})
NOT_DUE: Mapping[str, Any] = MappingProxyType({"queue": None, "next_attempt": None})
"""The field values of a record whose children are not due to be fetched."""
_ROOM_ITEMS = TRANSACTION_ITEMS - MAX_EXTRA_ITEMS - 3
_ROOM_BYTES = TRANSACTION_BYTES - 1024 * 1024
"""What is left in a transaction besides those, the customer, the claim and the pointer."""


class Customer(Record, discriminator="Customer"):
    """A Stripe customer of one of our users.

    The fields are Stripe's, under Stripe's names, except `user_id`, `is_active`, `date_purged`,
    `created_at` and `modified_at`. Follows https://docs.stripe.com/api/customers/object.
    """

    user_id = Text()
    """None where the customer is unassigned."""
    stripe_id = required(Text(customer="id"))
    livemode = required(Flag(customer="livemode"))
    metadata = Document(customer="metadata", param="metadata")
    name = Text(customer="name", param="name")
    description = Text(customer="description", param="description")
    email = Text(customer="email", param="email", settable=False)
    phone = Text(customer="phone", param="phone")
    address = Document(customer="address", param="address")
    balance = Integer(customer="balance", param="balance", clearable=False)
    currency = Text(customer="currency", settable=True)
    delinquent = Flag(customer="delinquent", settable=True)
    default_source = Text(customer="default_source", param="source", clearable=False)
    shipping = Document(customer="shipping", param="shipping")
    tax_exempt = Text(customer="tax_exempt", param="tax_exempt")
    preferred_locales = Listing(
        customer="preferred_locales", param="preferred_locales", clearable=False
    )
    invoice_prefix = Text(customer="invoice_prefix", param="invoice_prefix", clearable=False)
    invoice_settings = Document(customer="invoice_settings", param="invoice_settings")
    is_active = required(Flag())
    date_purged = Moment()
    released_from = Text(private=True)
    """The user from whom an unassigned customer was released: the metadata may still name them."""
    deleted = Flag(private=True)
    """Whether the record is soft-deleted because Stripe has deleted the customer."""
    created_at = required(Moment())
    modified_at = required(Moment())
    test_clock = Text(customer="test_clock", private=True)
    created = Integer(customer="created", private=True)
    """When Stripe created it, in Unix seconds."""
    created_shard = Text(private=True)
    """The partition of the index `by_created` that has the record; None for a soft-deleted one."""
    run_id = Text(private=True)
    """The run through the account that stored the record, which the stream does not report."""
    observed_from = Integer(private=True)
    observed_to = Integer(private=True)
    update_key = Text(private=True)
    """The idempotency key of the last update whose response was written; None after an object of
    unknown age, which may lack the update."""
    update_observed_to = Integer(private=True)
    """The end of the interval of that response: a key may be used again a day later."""
    listings = Document(private=True)
    """When all children of a kind were last listed: `observed_from` and `observed_to` by kind."""
    fetch_requests = Integer(private=True)
    """How many workers have requested a fetch so far: see `FetchLease`."""
    fetch_requests_served = Document(private=True)
    """How many of them had requested it before a kind of children was last fetched, by kind."""
    fetching_until = Integer(private=True)
    """When the lease of the customer's fetch ends, in Unix seconds."""
    queue = Text(private=True)
    """The partition of the index `by_queue`, if the children were never listed, and are due to be
    fetched. A record that a run stores has none: the run lists what its policy names."""
    next_attempt = Integer(private=True)
    """When the schedule fetches them, in Unix seconds, unless another worker has."""
    version = VersionAttribute()

    COMPUTED_FLAGS = {  # noqa: RUF012 - a ClassVar of Record
        "is_incomplete": "Whether an attached object is too large to be stored in full."
    }

    is_new = False
    """True on the object that `create` returned for a customer that this call created."""

    children: list[Child]
    """The children that were read with the customer, removed ones included."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.children = []

    @classmethod
    def new(cls, owner: Owner, moment: datetime) -> Customer:
        """Make a record that is not stored yet."""
        return cls(
            owner.pk,
            customer_key(owner.customer_id),
            user_id=owner.user_id,
            stripe_id=owner.customer_id,
            livemode=current().settings.livemode,
            is_active=True,
            created_at=moment,
            modified_at=moment,
        )

    @staticmethod
    def values_of(stripe_customer: Json) -> dict[str, Any]:
        """Read a customer's fields from Stripe's object.

        Stripe computes `currency` and `delinquent` itself; null does not report them, nor the mode
        and the creation.
        """
        values = read_stripe(Customer, "customer", stripe_customer)
        for computed in ("currency", "delinquent", "livemode", "created"):
            if values[computed] is None:
                del values[computed]
        if "created" in values and values["stripe_id"]:
            values["created_shard"] = _shard_of(values["stripe_id"])
        return values

    @property
    def owner(self) -> Owner:
        """The customer, and its user."""
        return Owner(self.user_id, self.stripe_id)

    @property
    def cards(self) -> list[Card]:
        """The attached cards; each has `is_default`."""
        return self._mark_default(self.attached(Card))

    @property
    def subscriptions(self) -> list[Subscription]:
        """The subscriptions, cancelled ones included."""
        return self.attached(Subscription)

    @property
    def tax_ids(self) -> list[TaxId]:
        """The tax ids, if the deployment stores them."""
        return self.attached(TaxId)

    @property
    def payment_methods(self) -> list[PaymentMethod]:
        """The attached payment methods other than cards, if the deployment stores them."""
        return self._mark_default(self.attached(PaymentMethod))

    @property
    def entitlements(self) -> list[Entitlement]:
        """The features that the customer may use, if the deployment stores them."""
        return self.attached(Entitlement)

    @property
    def is_incomplete(self) -> bool:
        """Whether an attached object is too large to be stored in full."""
        return any(child.is_incomplete for child in self.children if child.is_attached)

    def _mark_default(self, methods: list[D]) -> list[D]:
        for method in methods:
            method.is_default = method.stripe_id == self.default_payment_id
        return methods

    def attached(self, kind: type[K]) -> list[K]:
        """The children of a kind, without removed ones."""
        return [child for child in self.children if isinstance(child, kind) and child.is_attached]

    @property
    def default_payment_id(self) -> str | None:
        """The id of what Stripe charges by default: the invoice settings precede the source."""
        return _chosen_id(self.invoice_settings) or self.default_source

    @property
    def observation(self) -> Observation | None:
        """When the record's own fields were observed."""
        return observation_of(self.observed_from, self.observed_to)

    def includes_update(self, idempotency_key: str | None, created: int) -> bool:
        """Return whether the state includes an update of ours, whose event names its key.

        Parameters
        ----------
        idempotency_key : str or None
            The key in the event's request.
        created : int
            The event's second.
        """
        is_last = idempotency_key is not None and idempotency_key == self.update_key
        return is_last and created <= (self.update_observed_to or 0)

    def listing_observation(self, kind: type[Child]) -> Observation | None:
        """When all children of a kind were last listed; None where they never were."""
        return observation_of(*(self.listings or {}).get(kind.COLLECTION, (None, None)))

    @property
    def is_listed(self) -> bool:
        """Whether all children of every stored kind have been listed at least once."""
        is_listed = all(self.listing_observation(kind) for kind in stored_kinds())
        return self.listings is not None and is_listed

    @property
    def needs_fetch(self) -> bool:
        """Whether it is active, and its children were never listed, or are due to be fetched."""
        return self.is_active and (self.queue is not None or not self.is_listed)

    @property
    def is_being_fetched(self) -> bool:
        """Whether a worker holds the lease of its fetch."""
        return (self.fetching_until or 0) > current().clock()

    def has_served(self, request: int) -> bool:
        """Return whether it, and children of every kind, were fetched after a request."""
        served = self.fetch_requests_served or {}
        numbers = (served.get(kind.COLLECTION, 0) for kind in stored_kinds())
        return self.is_listed and min(numbers, default=0) >= request

    def served(self, kinds: Iterable[type[Child]]) -> dict[str, Any]:
        """The field value that notes which requests a fetch of children of these kinds serves."""
        if not self.fetch_requests:
            return {}
        return {"fetch_requests_served": {kind.COLLECTION: self.fetch_requests for kind in kinds}}

    def listed(self, kinds: Iterable[type[Child]], observation: Observation) -> dict[str, Any]:
        """The field value that notes when all children of these kinds were listed."""
        interval = [observation.observed_from, observation.observed_to]
        listings = {kind.COLLECTION: interval for kind in kinds}
        return {"listings": {**(self.listings or {}), **listings}}

    def child_observation(self, child: Child) -> Observation | None:
        """When a child's state was observed, by itself or in a list of all of its kind."""
        observations = (child.observation, self.listing_observation(type(child)))
        return max((seen for seen in observations if seen is not None), default=None)

    def child(self, kind: type[Child], stripe_id: str) -> Child | None:
        """The record of one child, a removed one included."""
        key = kind.key_under(self.stripe_id, stripe_id)
        return next((child for child in self.children if child.sk == key), None)

    @classmethod
    def check_is_missing(cls, transaction: TransactWrite, owner: Owner) -> None:
        """Let a transaction fail where the customer has a record."""
        missing: Condition = cls.pk.does_not_exist()
        transaction.condition_check(
            cls, owner.pk, customer_key(owner.customer_id), condition=missing
        )

    def store_in(self, transaction: TransactWrite) -> None:
        """Add the writes of a new record and its children, which `fits_transaction` has checked.

        If its children were never listed, they are due to be fetched.
        """
        self._queue_unless_listed()
        transaction.save(self)
        for child in self.children:
            for item in self._items_of_new(child):
                transaction.save(item)

    @property
    def fits_transaction(self) -> bool:
        """Whether the record and its children fit into one transaction."""
        items = sum(len(self._items_of_new(child)) for child in self.children)
        return items <= _ROOM_ITEMS and sum(c.size for c in self.children) <= _ROOM_BYTES

    def update_with(
        self,
        values: Mapping[str, Any],
        children: Iterable[Child] = (),
        extra_items: Iterable[ExtraItem] = (),
    ) -> None:
        """Write a state of the customer and its children that Stripe has reported.

        The version is raised even where nothing changes: a process that fetched an older state
        under the version that was read here can't write it any more.

        Parameters
        ----------
        values : mapping
            Field name to value.
        children : iterable
            The children to write.
        extra_items : iterable of callable
            Written in the same transaction, 20 at most.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        CustomerSoftDeletedError
            The record is soft-deleted.
        """
        if not self.is_active:
            raise CustomerSoftDeletedError(f"{self.stripe_id} is soft-deleted")
        written = list(children)
        changes = {name: value for name, value in values.items() if getattr(self, name) != value}
        if written or not all(fields_of(Customer)[name].private for name in changes):
            changes["modified_at"] = current().now()
        try:
            rest = self._write_most(written)
            self._write(changes, rest, extra_items)
        except DatabaseRefusedError:
            if not written:
                raise
            for child in written:
                self._write_alone(child)
            self._write(changes, [], extra_items)

    def request_fetch(self, *, acquires_lease: bool) -> bool:
        """Count a request to fetch the active customer, and read the number of requests so far.

        The version is not raised, so the conditions of other writes still hold.

        Parameters
        ----------
        acquires_lease : bool
            Acquire the lease of the fetch with the same write, which then is on condition that no
            other worker holds it, and that the record was not changed since it was read.

        Returns
        -------
        bool
            Whether the condition held; if not, nothing was written.

        Raises
        ------
        StaleRecordError
            A transaction that writes the record is in progress.
        """
        actions: list[Action] = [Customer.fetch_requests.add(1)]
        condition = self._is_same_record() & Customer.date_purged.does_not_exist()
        if acquires_lease:
            now = int(current().clock())
            actions.append(Customer.fetching_until.set(now + _LEASE_SECONDS))
            is_free = Customer.fetching_until.does_not_exist() | (Customer.fetching_until <= now)
            condition &= (Customer.version == self.version) & is_free
        written = self.update_without_version(actions, condition)
        if written is None:
            return False
        self.fetch_requests = written.fetch_requests
        self.fetching_until = written.fetching_until
        return True

    def soft_delete(self) -> None:
        """Soft-delete the record and free the user: a later create makes another customer.

        A claim that does not point to this customer, as after a restore, is not changed.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        CustomerSoftDeletedError
            The record is soft-deleted already.
        NewerSchemaError
            A later release has written a record of the user since.
        """
        self._soft_delete(current().now(), [], ())

    def soft_delete_as_deleted_on_stripe(
        self,
        values: Mapping[str, Any] = _NO_VALUES,
        children: Iterable[Child] = (),
        extra_items: Iterable[ExtraItem] = (),
    ) -> None:
        """Soft-delete the record of a customer that Stripe has deleted, and end its children.

        Its payment methods are gone and its subscriptions are cancelled.

        Parameters
        ----------
        values : mapping
            Field values that preceded the deletion, by name.
        children : iterable
            The states of children that preceded it.
        extra_items : iterable of callable
            Written in the same transaction, 20 at most.

        Raises
        ------
        StaleRecordError, CustomerSoftDeletedError, NewerSchemaError
            As in `soft_delete`.
        """
        moment = current().now()
        observation = Observation.of_event(int(moment.timestamp()))
        last = {child.sk: child for child in [*self.children, *children]}
        ended = [child.after_deletion(observation) for child in last.values()]
        stored = {child.sk: child for child in self.children}
        settings = values.get("invoice_settings", self.invoice_settings) or {}
        changes = {
            **values,
            "deleted": True,
            "default_source": None,
            "invoice_settings": {**settings, "default_payment_method": None},
        }
        changed = [child for child in ended if not child.has_state_of(stored.get(child.sk))]
        self._soft_delete(moment, changed, extra_items, changes)

    def write_final_states(
        self, children: Iterable[Child], extra_items: Iterable[ExtraItem] = ()
    ) -> None:
        """Write the final states of children of a customer that Stripe has deleted.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        """
        rest = self._write_most(list(children))
        self._write({"modified_at": current().now()}, rest, extra_items)

    def release(self, extra_items: Iterable[ExtraItem] = ()) -> None:
        """Delete the record, its children and its pointers, and free the user and the customer.

        Children that don't fit into one transaction remain as `UserRecords.orphans`.

        Parameters
        ----------
        extra_items : iterable of callable
            Written in the same transaction, 20 at most.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        """
        deleted: list[Record] = []
        size = 0
        for child in self.children:
            pointer = child.pointer()
            size += child.size
            if len(deleted) + 2 > _ROOM_ITEMS or size > _ROOM_BYTES:
                break
            deleted += [child, pointer] if pointer else [child]

        def compose(transaction: TransactWrite) -> None:
            transaction.delete(self, self._is_same_record())
            CustomerClaim.remove_pointer(transaction, self.pk, self.stripe_id)
            Pointer.to(self.owner).remove_in(transaction)
            for item in deleted:
                transaction.delete(item)
            for add_item in extra_items:
                add_item(transaction)

        with self._stale_if_changed():
            transact(compose)

    def erase(self, children: list[Child], extra_items: Iterable[ExtraItem] = ()) -> None:
        """Delete the record and its children.

        The children that don't fit into one transaction are deleted before, so that the last one
        leaves none.

        Parameters
        ----------
        children : list of Child
            All children, of kinds that are not stored any more too.
        extra_items : iterable of callable
            Written in the last transaction, 20 at most.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        """
        self.children = children
        self.drop_excess_children()

        def compose(transaction: TransactWrite) -> None:
            transaction.delete(self, self._is_same_record())
            for child in self.children:
                transaction.delete(child)
            for add_item in extra_items:
                add_item(transaction)

        with self._stale_if_changed():
            transact(compose)

    def move_to(
        self, owner: Owner, extra_items: Iterable[ExtraItem] = (), run_id: str | None = None
    ) -> Customer:
        """Move the record and its children to the partition of another owner, in one transaction.

        Children that don't fit into it remain as `UserRecords.orphans`, and the moved record lacks
        the observations of the lists, so that all children are due to be fetched.

        Parameters
        ----------
        owner : Owner
            The same customer, with the user who gets it, or with none.
        extra_items : iterable of callable
            Written in the same transaction, 20 at most.
        run_id : str, optional
            The run through the account that moves it: the stream does not report it then.

        Returns
        -------
        Customer
            The record in its new partition.

        Raises
        ------
        ConditionFailedError
            The record was changed since it was read, or the condition of an extra item, of which
            the first is the first item of the transaction, did not hold.
        """
        movable = self._movable_children()
        children = [child.copy_to(owner.pk) for child in movable]
        moved = self._copy_for(owner, run_id)
        if len(movable) < len(self.children):
            moved.listings = None
        moved._queue_unless_listed()

        def compose(transaction: TransactWrite) -> None:
            for add_item in extra_items:
                add_item(transaction)
            transaction.delete(self, self._is_same_record())
            transaction.save(moved)
            for stored, child in zip(movable, children, strict=True):
                transaction.delete(stored)
                transaction.save(child)

        transact(compose)
        moved.children = children
        return moved

    @property
    def can_be_moved_whole(self) -> bool:
        """Whether all children fit into the transaction that moves the record."""
        return len(self._movable_children()) == len(self.children)

    def _movable_children(self) -> list[Child]:
        """The children that fit into one transaction, each with its deletion and its copy."""
        movable: list[Child] = []
        size = 0
        for child in self.children:
            size += 2 * child.size
            if 2 * (len(movable) + 1) > _ROOM_ITEMS or size > _ROOM_BYTES:
                break
            movable.append(child)
        return movable

    def drop_excess_children(self) -> None:
        """Delete the children that don't fit into the transaction that moves or deletes the record.

        The observations of the lists, which would lack them, are deleted with them, so that all
        children are due to be fetched.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        """
        movable = self._movable_children()
        dropped = self.children[len(movable) :]
        for first in range(0, len(dropped), _ROOM_ITEMS):
            chunk = dropped[first : first + _ROOM_ITEMS]
            values = {"listings": None, **_due()}
            self._write(values, [], [partial(_delete, child) for child in chunk])
        self.children = movable

    def _copy_for(self, owner: Owner, run_id: str | None) -> Customer:
        """Return a copy in the partition of an owner, not stored yet."""
        values = {name: getattr(self, name) for name in fields_of(Customer)}
        moment = current().now()
        others = {
            "user_id": owner.user_id,
            "released_from": self.user_id,
            "created_at": moment,
            "modified_at": moment,
            "run_id": run_id,
        }
        return Customer(owner.pk, self.sk, **{**values, **others})

    def _queue_unless_listed(self) -> None:
        """Queue the fetch of the children if they were never listed; call it before the write."""
        if self.is_active and self.run_id is None and self.listings is None:
            for name, value in _due().items():
                setattr(self, name, value)

    def _stale_if_changed(self) -> AbstractContextManager[None]:
        return stale_if_changed(f"{self.stripe_id} was changed since it was read")

    def _is_same_record(self) -> Condition:
        """The condition that the record was not deleted and stored again since it was read.

        A record that is stored again begins with the first version again.
        """
        is_same: Condition = Customer.created_at == self.created_at
        return is_same

    def _soft_delete(
        self,
        moment: datetime,
        children: list[Child],
        extra_items: Iterable[ExtraItem],
        values: Mapping[str, Any] = _NO_VALUES,
    ) -> None:
        if not self.is_active:
            raise CustomerSoftDeletedError(f"{self.stripe_id} is soft-deleted")
        extra_items = list(extra_items)
        changes = {
            **values,
            "is_active": False,
            "date_purged": moment,
            "modified_at": moment,
            "created_shard": None,
            **NOT_DUE,
        }
        rest = self._write_most(children)

        def free_user(transaction: TransactWrite) -> None:
            CustomerClaim.remove_pointer(transaction, self.pk, self.stripe_id)

        is_assigned = self.user_id is not None
        try:
            self._write(changes, rest, [*([free_user] if is_assigned else []), *extra_items])
        except StaleRecordError:
            claim = UserRecords.of_partition(self.pk).claim
            if claim and claim.stripe_id == self.stripe_id:
                raise
            # Storing a pointer raises the version: at the version read here there is none.
            self._write(changes, rest, extra_items)

    def _write_most(self, children: list[Child]) -> list[Child]:
        """Write the children that don't fit into one transaction with the customer.

        Returns
        -------
        list
            The rest, to be written with the customer, last.
        """
        chunk: list[Child] = []
        items = size = 0
        for child in children:
            more = len(self._items_of(child))
            if chunk and (items + more > _ROOM_ITEMS or size + child.size > _ROOM_BYTES):
                self._write({}, chunk)
                chunk, items, size = [], 0, 0
            chunk.append(child)
            items += more
            size += child.size
        return chunk

    def _write_alone(self, child: Child) -> None:
        """Write one child by itself, reduced if DynamoDB refuses it."""
        try:
            self._write({}, [child])
        except DatabaseRefusedError:
            self._write({}, [child.reduced()])

    def _items_of(self, child: Child) -> list[Record]:
        """The items of a child: a new one may need a pointer."""
        is_new = child.is_attached and all(known.sk != child.sk for known in self.children)
        return self._items_of_new(child) if is_new else [child]

    @staticmethod
    def _items_of_new(child: Child) -> list[Record]:
        pointer = child.pointer()
        return [child, pointer] if pointer else [child]

    def _write(
        self,
        values: dict[str, Any],
        children: list[Child],
        extra_items: Iterable[ExtraItem] = (),
    ) -> None:
        items = [item for child in children for item in self._items_of(child)]

        def compose(transaction: TransactWrite) -> None:
            # A new list each time: PynamoDB appends the action of the version to it.
            actions = [_setting(name, value) for name, value in values.items()]
            transaction.update(self, actions, self._is_same_record())
            for item in items:
                transaction.save(item)
            for add_item in extra_items:
                add_item(transaction)

        with self._stale_if_changed():
            transact(compose)
        for name, value in values.items():
            setattr(self, name, value)
        by_key = {child.sk: child for child in [*self.children, *children]}
        self.children = [by_key[key] for key in sorted(by_key)]


def default_ids(*values: Json) -> set[str]:
    """Return the ids that the values of customers and subscriptions name as defaults.

    Parameters
    ----------
    *values : mapping
        Field values by name.
    """
    named: list[object] = []
    for fields in values:
        named.append(_chosen_id(fields.get("invoice_settings")))
        named += [fields.get("default_source"), fields.get("default_payment_method")]
    return {stripe_id for stripe_id in named if isinstance(stripe_id, str)}


def _chosen_id(invoice_settings: object) -> str | None:
    """The id of the PaymentMethod that invoice settings name, which may be expanded."""
    chosen = value_at(invoice_settings, "default_payment_method")
    if isinstance(chosen, Mapping):
        chosen = chosen.get("id")
    return chosen if isinstance(chosen, str) and chosen else None


def _due() -> dict[str, Any]:
    """The field values of a record whose children are due to be fetched.

    The worker that writes them, or the stream, fetches the children before the schedule does.
    """
    return {"queue": _QUEUE, "next_attempt": claim_expires_at()}


def _delete(child: Child, transaction: TransactWrite) -> None:
    transaction.delete(child)


def _setting(name: str, value: object) -> Action:
    attribute = getattr(Customer, name)
    action: Action = attribute.remove() if value is None else attribute.set(value)
    return action


class CreatedEntry(NamedTuple):
    """An active customer as the index by creation has it, with a small delay.

    Parameters
    ----------
    pk, stripe_id : str
        The partition of its record, and its id.
    created : int
        When Stripe created it, in Unix seconds.
    """

    pk: str
    stripe_id: str
    created: int


def created_between(earliest: int | None, latest: int | None) -> Iterator[CreatedEntry]:
    """Find the active customers that Stripe created in a range of time, newest first.

    Parameters
    ----------
    earliest, latest : int or None
        Unix seconds, both included; None for no bound.
    """
    latest = _FOREVER if latest is None else latest
    shards = (_created_in_shard(shard, earliest or 0, latest) for shard in CREATED_SHARDS)
    return heapq.merge(*shards, key=lambda entry: -entry.created)


def _created_in_shard(shard: str, earliest: int, latest: int) -> Iterator[CreatedEntry]:
    range_of_time = Customer.created.between(earliest, latest)
    try:
        for record in Customer.by_created.query(
            shard, range_of_time, scan_index_forward=False, page_size=_INDEX_PAGE_ITEMS
        ):
            yield CreatedEntry(record.pk, record.sk.removeprefix(customer_key("")), record.created)
    except PynamoDBException as error:
        raise unavailable(error) from error


class DueFetch(NamedTuple):
    """A customer whose children are due to be fetched, as the index has it.

    Parameters
    ----------
    pk, stripe_id : str
        The partition of its record, and its id.
    """

    pk: str
    stripe_id: str


def due_fetches() -> Iterator[DueFetch]:
    """Find the customers whose children are due, by an eventually consistent query."""
    is_due = Customer.next_attempt <= int(current().clock())
    try:
        for record in Customer.by_queue.query(_QUEUE, is_due):
            yield DueFetch(record.pk, record.sk.removeprefix(customer_key("")))
    except PynamoDBException as error:
        raise unavailable(error) from error


def _shard_of(stripe_id: str) -> str:
    return CREATED_SHARDS[zlib.crc32(stripe_id.encode()) % len(CREATED_SHARDS)]


def read_customer(owner: Owner) -> Customer | None:
    """Read a customer with its children, soft-deleted or not, strongly consistent."""
    return UserRecords.of_partition(owner.pk).customer(owner.customer_id)


def read_items(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Record]:
    """Read customers, without their children, or children, by their keys; strongly consistent."""
    try:
        found = Record.batch_get(list(dict.fromkeys(keys)), consistent_read=True)
        return {(item.pk, item.sk): item for item in found}
    except PynamoDBException as error:
        raise unavailable(error) from error


@dataclass
class UserRecords:
    """The items of one partition, of a user or an unassigned customer, as one query read them."""

    claim: CustomerClaim | None = None
    customers: dict[str, Customer] = field(default_factory=dict)
    orphans: list[Child] = field(default_factory=list)
    """The children whose customer was released, and that are not deleted yet."""
    unstored: list[Child] = field(default_factory=list)
    """The children of kinds that the deployment does not store any more."""

    _READS = 3

    @classmethod
    def read(cls, user_id: str) -> UserRecords:
        """Read a user's partition: see `of_partition`."""
        return cls.of_partition(user_key(user_id))

    @classmethod
    def of_partition(cls, pk: str) -> UserRecords:
        """Read the partition of a user, or of an unassigned customer, strongly consistent.

        A query is not isolated from a concurrent transaction: where the claim points to a customer
        that the query did not see, or saw deleted, the partition is read again.
        """
        records = cls._query(pk)
        for _ in range(cls._READS - 1):
            if records.is_consistent:
                break
            records = cls._query(pk)
        return records

    @classmethod
    def _query(cls, pk: str) -> UserRecords:
        records = cls()
        children: list[Child] = []
        try:
            for item in Record.query(pk, consistent_read=True):
                match item:
                    case CustomerClaim():
                        records.claim = item
                    case Customer():
                        records.customers[item.sk] = item
                    case Child():
                        children.append(item)
        except PynamoDBException as error:
            raise unavailable(error) from error
        for child in children:
            parent = records.customers.get(customer_key(child.customer_id))
            if parent is None:
                records.orphans.append(child)
            # Tombstones are read for every kind: the customer may name a removed default.
            elif isinstance(child, stored_kinds()) or not child.is_attached:
                parent.children.append(child)
            else:
                records.unstored.append(child)
        return records

    @property
    def is_consistent(self) -> bool:
        """Whether the customer that the claim points to was read, and is active."""
        return not self.claim or self.claim.is_creating or self.active_customer is not None

    @property
    def active_customer(self) -> Customer | None:
        """The user's active customer; None without one."""
        if not self.claim or not self.claim.stripe_id:
            return None
        customer = self.customer(self.claim.stripe_id)
        return customer if customer and customer.is_active else None

    @property
    def customer_ids(self) -> set[str]:
        """The user's customers: soft-deleted ones too, and the one that the claim names."""
        claimed = [self.claim.stripe_id] if self.claim and self.claim.stripe_id else []
        return {*(customer.stripe_id for customer in self.customers.values()), *claimed}

    @property
    def children(self) -> list[Child]:
        """All children in the partition, orphans and those of every kind included."""
        of_customers = [child for each in self.customers.values() for child in each.children]
        return [*of_customers, *self.unstored, *self.orphans]

    def payment_method_ids(self, customer_id: str) -> list[str]:
        """The ids of a customer's PaymentMethods, removed ones included."""
        return [
            child.stripe_id
            for child in self.children
            if child.customer_id == customer_id and child.POINTER_PREFIX
        ]

    def names(self, customer_id: str) -> bool:
        """Return whether there is a record of a customer, or a claim that points to it."""
        return customer_id in self.customer_ids

    def erase(
        self,
        owner: Owner,
        pointer: Pointer | None,
        extra_items: Iterable[ExtraItem] = (),
        *,
        leaves_tombstone: bool = True,
    ) -> None:
        """Delete what is stored about a customer, free its user, and leave a tombstone.

        Parameters
        ----------
        owner : Owner
            The customer, and the user of the partition.
        pointer : Pointer or None
            The customer's pointer, as it was read before the partition.
        extra_items : iterable of callable
            Written in the same transaction.
        leaves_tombstone : bool
            Whether the pointer becomes a tombstone; otherwise it remains.

        Raises
        ------
        StaleRecordError
            The customer was changed since it was read. Read again and decide again.
        """
        customer_id = owner.customer_id
        record = self.customer(customer_id)

        def free(transaction: TransactWrite) -> None:
            if self.claim and self.claim.stripe_id == customer_id:
                CustomerClaim.remove_pointer(transaction, owner.pk, customer_id)
            if leaves_tombstone:
                Pointer.erase_in(transaction, pointer, customer_id)
            for add_item in extra_items:
                add_item(transaction)

        if record:
            children = [child for child in self.children if child.customer_id == customer_id]
            record.erase(children, [free])
            return

        def compose(transaction: TransactWrite) -> None:
            key = customer_key(customer_id)
            transaction.condition_check(Customer, owner.pk, key, Customer.pk.does_not_exist())
            free(transaction)

        with stale_if_changed(f"{customer_id} was changed since it was read"):
            transact(compose)

    def has_orphans_of(self, stripe_id: str) -> bool:
        """Return whether a release of this customer has not deleted all children yet."""
        return any(child.customer_id == stripe_id for child in self.orphans)

    def customer(self, stripe_id: str) -> Customer | None:
        """The record of this Stripe customer, soft-deleted or not."""
        return self.customers.get(customer_key(stripe_id))
