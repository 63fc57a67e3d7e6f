"""The objects of one Stripe account, with their ids, times and events."""

from __future__ import annotations

import random as random_module
import string
from collections.abc import Callable, Mapping
from typing import Any

from .creation import CreationIndex
from .errors import Json, no_such
from .listing import first_page
from .webhooks import Webhooks

_ALPHABET = string.ascii_letters + string.digits
_PREFIX_ALPHABET = "0123456789ABCDEF"
_ID_LENGTHS = {"cus": 14, "prod": 14, "si": 14, "req": 14, "cs_test": 58, "cs_live": 58}
_DEFAULT_ID_LENGTH = 24
EVENT_RETENTION = 30 * 24 * 3600
"""Seconds for which Stripe lists and returns an event."""


class Account:
    """The objects of one Stripe account, in order of creation.

    Objects are stored in the shape in which Stripe returns them unexpanded. Lists that are nested
    in other objects (sources, subscriptions, items) are stored separately. Responses are copies.

    Attributes
    ----------
    customers_by_creation, subscriptions_by_creation, events_by_creation
        The order of the lists of all customers, subscriptions and events. Deleted customers are
        not in it.
    customers_by_email
        The ids of the customers that have or had an e-mail, by e-mail.
    customer_by_prefix
        The id of the customer with an invoice prefix, by prefix.
    emits_lost_defaults
        Whether removing the default of a customer or of a subscription emits ``customer.updated``
        and ``customer.subscription.updated`` in addition to the events of the removal. Whether
        Stripe sends them is not documented; the defaults change in both cases.
    """

    def __init__(
        self,
        now: Callable[[], float],
        random: random_module.Random,
        *,
        livemode: bool,
        api_version: str,
    ) -> None:
        self.clock = now
        self.random = random
        self.livemode = livemode
        self.api_version = api_version
        self.customers: dict[str, Json] = {}
        self.customers_by_creation = CreationIndex()
        self.customers_by_email: dict[str, tuple[str, ...]] = {}
        self.customer_by_prefix: dict[str, str] = {}
        self.deleted_customers: set[str] = set()
        self.payment_sources: dict[str, dict[str, Json]] = {}
        self.payment_source_owner: dict[str, str] = {}
        self.sources: dict[str, Json] = {}
        self.payment_methods: dict[str, Json] = {}
        self.products: dict[str, Json] = {}
        self.prices: dict[str, Json] = {}
        self.subscriptions: dict[str, Json] = {}
        self.subscriptions_by_creation = CreationIndex()
        self.subscription_items: dict[str, list[Json]] = {}
        self.subscriptions_of: dict[str, list[str]] = {}
        self.payment_methods_of: dict[str, list[str]] = {}
        self.tax_ids: dict[str, dict[str, Json]] = {}
        self.features: dict[str, Json] = {}
        self.entitlements: dict[str, dict[str, Json]] = {}
        self.invoices: dict[str, Json] = {}
        self.events: dict[str, Json] = {}
        self.events_by_creation = CreationIndex()
        self.used_payment_methods: set[str] = set()
        self.decline_codes: dict[str, str] = {}
        self.failing_cards: set[str] = set()
        self.card_created: dict[str, int] = {}
        self.webhooks = Webhooks(self)
        self.request: Json = {"id": None, "idempotency_key": None}
        self.emits_lost_defaults = True

    def now(self) -> int:
        """Return the current Unix time in whole seconds, as Stripe's objects have it."""
        return int(self.clock())

    def new_id(self, prefix: str, random: random_module.Random | None = None) -> str:
        """Return a new id, ``cus_…`` for the prefix ``cus``."""
        length = _ID_LENGTHS.get(prefix, _DEFAULT_ID_LENGTH)
        return f"{prefix}_{''.join((random or self.random).choices(_ALPHABET, k=length))}"

    def new_invoice_prefix(self, random: random_module.Random | None = None) -> str:
        """Return an invoice prefix that no customer has."""
        while True:
            prefix = "".join((random or self.random).choices(_PREFIX_ALPHABET, k=8))
            if prefix not in self.customer_by_prefix:
                return prefix

    def customer(self, identifier: str, param: str | None = None) -> Json:
        """Return a customer that isn't deleted, or raise ``resource_missing``."""
        if identifier not in self.customers or identifier in self.deleted_customers:
            raise no_such("customer", identifier, param)
        return self.customers[identifier]

    def add_customer(self, customer: Json) -> None:
        """Store a new customer."""
        self.customers[customer["id"]] = customer
        self.customers_by_creation.add(customer["id"], customer["created"])
        self.customer_by_prefix[customer["invoice_prefix"]] = customer["id"]
        self.index_email(customer)

    def index_email(self, customer: Json) -> None:
        """Let a customer be found by the e-mail that it has now."""
        email = customer["email"]
        if email is not None:
            known = self.customers_by_email.get(email, ())
            if customer["id"] not in known:
                self.customers_by_email[email] = (*known, customer["id"])

    def add_subscription(self, subscription: Json, items: list[Json]) -> None:
        """Store a new subscription with its items."""
        identifier = subscription["id"]
        self.subscriptions[identifier] = subscription
        self.subscriptions_by_creation.add(identifier, subscription["created"])
        self.subscription_items[identifier] = items
        self.subscriptions_of.setdefault(subscription["customer"], []).append(identifier)

    def render_subscription(self, identifier: str) -> Json:
        """Return a copy of a subscription with its first items."""
        url = f"/v1/subscription_items?subscription={identifier}"
        subscription: Json = copy_json(self.subscriptions[identifier])
        subscription["items"] = copy_json(first_page(self.subscription_items[identifier], url))
        return subscription

    def emit(
        self, event_type: str, subject: Json, previous: Mapping[str, Any] | None = None
    ) -> str:
        """Create an event, queue it for the endpoints that enable its type, return its id."""
        data: Json = {"object": copy_json(subject)}
        if previous is not None:
            data["previous_attributes"] = copy_json(dict(previous))
        event: Json = {
            "id": self.new_id("evt"),
            "object": "event",
            "api_version": self.api_version,
            "created": self.now(),
            "data": data,
            "livemode": self.livemode,
            "pending_webhooks": 0,
            "request": dict(self.request),
            "type": event_type,
        }
        self.events[event["id"]] = event
        self.events_by_creation.add(event["id"], event["created"])
        self.webhooks.enqueue(event)
        return str(event["id"])

    def emit_change(self, event_type: str, before: Json, after: Json) -> None:
        """Create an update event with the previous values, unless nothing changed."""
        previous = difference(before, after)
        if previous:
            self.emit(event_type, after, previous)


def copy_json(value: Any) -> Any:
    """Return a deep copy of JSON data; many times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copy_json(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [copy_json(entry) for entry in value]
    return value


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Json:
    """Return Stripe's ``previous_attributes``: the old values of the keys that changed.

    Example
    -------
    >>> difference({"metadata": {"a": "1"}}, {"metadata": {"a": "1", "b": "2"}})
    {'metadata': {'b': None}}
    """
    previous: Json = {}
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            nested = difference(old, new)
            if nested:
                previous[key] = nested
        elif old != new:
            previous[key] = old
    return previous
