"""A user's customer: the record, what stands under it, and the conditional writes it is changed by.

The items of one user stand in one partition, so one consistent query reads them all. Every write
of a customer or of anything under it is on condition that the customer's `version` is the one
that was read, and raises it: two workers can't interleave, and nothing is written under a record
that was soft-deleted in the meantime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pynamodb.attributes import VersionAttribute
from pynamodb.exceptions import PynamoDBException
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import CustomerSoftDeletedError, StaleRecordError
from stripe_integrations.models.card import Card
from stripe_integrations.models.child import Child
from stripe_integrations.models.claim import CustomerClaim
from stripe_integrations.models.fields import (
    Document,
    Flag,
    Integer,
    Listing,
    Moment,
    Text,
    fields_of,
    value_at,
)
from stripe_integrations.models.keys import customer_key, user_key
from stripe_integrations.models.observation import Observation, observation_of
from stripe_integrations.models.subscription import Subscription
from stripe_integrations.models.table import (
    TRANSACTION_BYTES,
    TRANSACTION_ITEMS,
    ConditionFailedError,
    Record,
    transact,
    unavailable,
)

ExtraItem = Callable[[TransactWrite], None]
"""Adds an item to the transaction that writes a customer, so that both are written or neither."""

MAX_EXTRA_ITEMS = 20
"""How many items callers may add to a transaction that writes a customer."""
_ROOM_ITEMS = TRANSACTION_ITEMS - MAX_EXTRA_ITEMS - 2
_ROOM_BYTES = TRANSACTION_BYTES - 1024 * 1024
"""What is left in a transaction beside those, the customer and the claim."""


class Customer(Record, discriminator="Customer"):
    """A Stripe customer of one of our users.

    The fields are Stripe's, under Stripe's names, but for `user_id`, `is_active`, `date_purged`,
    `created_at` and `modified_at`. Follows https://docs.stripe.com/api/customers/object.
    """

    user_id = Text()
    stripe_id = Text(customer="id")
    livemode = Flag(customer="livemode")
    metadata = Document(customer="metadata", param="metadata")
    name = Text(customer="name", param="name")
    description = Text(customer="description", param="description")
    email = Text(customer="email", param="email", settable=False)
    phone = Text(customer="phone", param="phone")
    address = Document(customer="address", param="address")
    balance = Integer(customer="balance", param="balance")
    currency = Text(customer="currency", settable=True)
    delinquent = Flag(customer="delinquent", settable=True)
    default_source = Text(customer="default_source", param="source")
    shipping = Document(customer="shipping", param="shipping")
    tax_exempt = Text(customer="tax_exempt", param="tax_exempt")
    preferred_locales = Listing(customer="preferred_locales", param="preferred_locales")
    invoice_prefix = Text(customer="invoice_prefix", param="invoice_prefix")
    invoice_settings = Document(customer="invoice_settings", param="invoice_settings")
    is_active = Flag()
    date_purged = Moment()
    created_at = Moment()
    modified_at = Moment()
    test_clock = Text(customer="test_clock", private=True)
    observed_from = Integer(private=True)
    observed_to = Integer(private=True)
    cards_observed_from = Integer(private=True)
    cards_observed_to = Integer(private=True)
    subscriptions_observed_from = Integer(private=True)
    subscriptions_observed_to = Integer(private=True)
    version = VersionAttribute()

    is_new = False
    """True on the object that `create` returned for a customer which that very call made."""

    children: list[Child]
    """Cards and subscriptions as they were read with the customer, removed ones included."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.children = []

    @classmethod
    def new(cls, user_id: str, stripe_id: str, moment: datetime) -> Customer:
        """A record that is not in the table yet."""
        return cls(
            user_key(user_id),
            customer_key(stripe_id),
            user_id=user_id,
            stripe_id=stripe_id,
            livemode=current().settings.livemode,
            is_active=True,
            created_at=moment,
            modified_at=moment,
        )

    @property
    def cards(self) -> list[Card]:
        """The cards attached to the customer; which one is the default, each says itself."""
        default = self.default_card_id
        cards = [child for child in self.children if isinstance(child, Card) and child.is_attached]
        for card in cards:
            card.is_default = card.stripe_id == default
        return cards

    @property
    def subscriptions(self) -> list[Subscription]:
        """The customer's subscriptions, cancelled ones included."""
        return [
            child
            for child in self.children
            if isinstance(child, Subscription) and child.is_attached
        ]

    @property
    def default_card_id(self) -> str | None:
        """Stripe's id of what is charged by default: the invoice settings' choice goes first."""
        chosen = value_at(self.invoice_settings, "default_payment_method")
        if isinstance(chosen, dict):
            chosen = chosen.get("id")
        return chosen if isinstance(chosen, str) and chosen else self.default_source

    @property
    def observation(self) -> Observation | None:
        """When the record's own fields were true."""
        return observation_of(self.observed_from, self.observed_to)

    def listing_observation(self, kind: type[Child]) -> Observation | None:
        """When the cards, or the subscriptions, that it had were last known to be all there are."""
        since, until = kind.listing_names()
        return observation_of(getattr(self, since), getattr(self, until))

    def observation_of_child(self, child: Child) -> Observation | None:
        """When what a card or subscription shows was true: as it came, or as it was last listed."""
        listed = self.listing_observation(type(child))
        known = [v for v in (child.observation, listed) if v is not None]
        return max(known, default=None)

    def child(self, kind: type[Child], stripe_id: str) -> Child | None:
        """The record of one of its cards or subscriptions, a removed one included."""
        key = kind.key_under(self.stripe_id or "", stripe_id)
        return next((child for child in self.children if child.sk == key), None)

    def update_with(
        self, values: dict[str, Any], children: Iterable[Child] = (), also: Iterable[ExtraItem] = ()
    ) -> None:
        """Bring the record and what stands under it to what Stripe says.

        The version is raised even where nothing is new: whoever fetched an older answer, and
        still has the version that was read here, must not write it any more.

        Parameters
        ----------
        values : dict
            Field name to value.
        children : iterable
            Cards and subscriptions that are to be written.
        also : iterable of callable
            Each adds an item that is written in the same transaction, 20 at most.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        CustomerSoftDeletedError
            The record was soft-deleted: it stays as it is.
        """
        if not self.is_active:
            raise CustomerSoftDeletedError(f"{self.stripe_id} is soft-deleted")
        written = list(children)
        news = {name: value for name, value in values.items() if getattr(self, name) != value}
        rest = self._write_most(written)
        if written or not all(fields_of(Customer)[name].private for name in news):
            news["modified_at"] = current().now()
        self._update(news, rest, also)

    def purge(self, *, deleted_on_stripe: bool = False, also: Iterable[ExtraItem] = ()) -> None:
        """Soft-delete the record and let go of the user, so that a later create starts anew.

        Where the user's claim does not point to this customer, as after a restore, the claim is
        left as it is.

        Parameters
        ----------
        deleted_on_stripe : bool
            Stripe has no such customer any more: its cards are gone with it.

        Raises
        ------
        StaleRecordError
            The record was changed since it was read. Read again and decide again.
        NewerSchemaError
            A later release has written a record of the user since.
        """
        if not self.is_active:
            raise CustomerSoftDeletedError(f"{self.stripe_id} is soft-deleted")
        moment = current().now()
        removed: list[Child] = []
        if deleted_on_stripe:
            gone = Observation.of_event(int(moment.timestamp()))
            removed = [card.tombstone(gone) for card in self.cards]
        user_id, stripe_id = self.user_id or "", self.stripe_id or ""
        marks = {"is_active": False, "date_purged": moment, "modified_at": moment}
        rest = self._write_most(removed)
        also = list(also)
        try:
            self._update(
                marks, rest, [lambda t: CustomerClaim.remove_pointer(t, user_id, stripe_id), *also]
            )
        except StaleRecordError:
            standing = UserRecords.read(user_id).active
            if standing and standing.stripe_id == stripe_id:
                raise
            # What points to a record raises its version: at the one read here none points to it.
            self._update(marks, rest, also)

    def _write_most(self, children: list[Child]) -> list[Child]:
        """Write the children that one transaction with the customer has no room for.

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
                self._update({}, chunk)
                chunk, items, size = [], 0, 0
            chunk.append(child)
            items += more
            size += child.size
        return chunk

    def _items_of(self, child: Child) -> list[Record]:
        """What is written for a card or subscription: with a new one, what leads to it."""
        is_new = child.is_attached and all(known.sk != child.sk for known in self.children)
        pointer = child.pointer(self.user_id or "") if is_new else None
        return [child, pointer] if pointer else [child]

    def _update(
        self, values: dict[str, Any], children: list[Child], also: Iterable[ExtraItem] = ()
    ) -> None:
        items = [item for child in children for item in self._items_of(child)]

        def compose(transaction: TransactWrite) -> None:
            # A new list each time: the version's own action is added to it.
            transaction.update(self, [_setting(name, value) for name, value in values.items()])
            for item in items:
                transaction.save(item)
            for add in also:
                add(transaction)

        try:
            transact(compose)
        except ConditionFailedError as error:
            raise StaleRecordError(f"{self.stripe_id} was changed since it was read") from error
        for name, value in values.items():
            setattr(self, name, value)
        by_key = {child.sk: child for child in [*self.children, *children]}
        self.children = [by_key[key] for key in sorted(by_key)]


def _setting(name: str, value: object) -> Action:
    attribute = getattr(Customer, name)
    action: Action = attribute.remove() if value is None else attribute.set(value)
    return action


@dataclass
class UserRecords:
    """What one user's partition holds, as one query read it."""

    active: CustomerClaim | None = None
    customers: dict[str, Customer] = field(default_factory=dict)

    _READS = 3

    @classmethod
    def read(cls, user_id: str) -> UserRecords:
        """Read a user's partition, strongly consistent.

        A query is not isolated from a transaction that commits beside it: a claim that names a
        customer the query did not see, or saw deleted, is read again.
        """
        records = cls._query(user_id)
        for _ in range(cls._READS - 1):
            if records.is_whole:
                break
            records = cls._query(user_id)
        return records

    @classmethod
    def _query(cls, user_id: str) -> UserRecords:
        records = cls()
        children: list[Child] = []
        try:
            for item in Record.query(user_key(user_id), consistent_read=True):
                match item:
                    case CustomerClaim():
                        records.active = item
                    case Customer():
                        records.customers[item.sk] = item
                    case Child():
                        children.append(item)
        except PynamoDBException as error:
            raise unavailable(error) from error
        stored = current().settings.stored_records
        for child in children:
            if type(child).__name__ not in stored:
                continue
            parent = records.customers.get(customer_key(child.customer_id or ""))
            if parent:
                parent.children.append(child)
        return records

    @property
    def is_whole(self) -> bool:
        """Whether the customer that the claim names is there, and active."""
        return not self.active or not self.active.stripe_id or self.active_customer is not None

    @property
    def active_customer(self) -> Customer | None:
        """The user's one active customer, if there is one."""
        if not self.active or not self.active.stripe_id:
            return None
        customer = self.customer(self.active.stripe_id)
        return customer if customer and customer.is_active else None

    def customer(self, stripe_id: str) -> Customer | None:
        """The record of this Stripe customer, soft-deleted or not."""
        return self.customers.get(customer_key(stripe_id))
