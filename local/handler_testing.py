"""Tests of custom handlers: realistic events and customers, without AWS and without Stripe.

::

    customer = stripe_customer(email="jenny@example.com")
    event = stripe_event("invoice.paid", customer=customer, amount_paid=500)
    handle(event, customer)

The objects are those of the project's Stripe double, of a customer who gets a card and a
subscription, whose subscription is changed and cancelled, and who is deleted in the end. The
product's own code makes the records from them, as a handler gets them. Nothing is stored. Tests
replace the AWS services that a handler calls, for example with moto.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache, partial
from itertools import chain
from typing import Any

from local.stripe_double import StripeDouble
from local.stripe_double.account import copy_json
from local.stripe_double.client import StripeDoubleClient
from stripe_integrations.actions.customers.refresh import fetch_from_stripe
from stripe_integrations.actions.customers.snapshot import CustomerSnapshot
from stripe_integrations.actions.events.handlers import handlers_of
from stripe_integrations.adapters.stripe_gateway import StripeGateway
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models import Customer, Event
from stripe_integrations.models.event_payload import customer_id_of

Json = dict[str, Any]

_API_KEY = "sk_test_double"
_PRICE = {
    "currency": "usd",
    "unit_amount": 500,
    "recurring": {"interval": "month"},
    "product_data": {"name": "Plan"},
}


def stripe_customer(user_id: str = "user-1", **fields: Any) -> Customer:
    """Make the record of a customer with a card and a subscription, as a handler gets it.

    Parameters
    ----------
    user_id : str
        The customer's user.
    **fields
        Parameters of Stripe's create call, such as `email`, `name` and `metadata`.

    Returns
    -------
    Customer
        The record, not stored.
    """
    stripe_id = _new_customer(fields)
    with _product():
        snapshot = CustomerSnapshot.from_fetch(_account().fetch(f"/v1/customers/{stripe_id}"))
        customer = snapshot.new_record(user_id)
        fetched = fetch_from_stripe(customer)
        customer.children = [
            child
            for kind, objects in fetched.objects.items()
            for child in kind.from_stripe(
                customer.pk, fetched.stripe_customer, objects, fetched.observation
            )
        ]
    return customer


def stripe_event(
    kind: str, customer: Customer | None = None, data_object: Json | None = None, **fields: Any
) -> Event:
    """Make an event as a handler gets it.

    Parameters
    ----------
    kind : str
        The event's type, ``invoice.paid`` for example.
    customer : Customer, optional
        The record of its customer, from `stripe_customer`; without one, the event is of a customer
        that is not stored.
    data_object : dict, optional
        The object that the event is about. By default, that of the Stripe double's own event of
        this type or, if it has none, of its first event about an object of the same kind.
    **fields
        Fields of the object to change, with their values.

    Returns
    -------
    Event
        The record, not stored.

    Raises
    ------
    LookupError
        The double has no such object, and `data_object` is not given.
    """
    stripe_id = customer.stripe_id if customer else _new_customer({})
    payload = _account().payload(kind, stripe_id, data_object)
    payload["data"]["object"].update(fields)
    with _product():
        event = Event.received(payload, valid=True)
    if customer:
        event.user_id, event.customer_id = customer.user_id, customer.stripe_id
    return event


def handle(event: Event, customer: Customer | None = None) -> None:
    """Call the handlers that `HANDLERS` declares for an event's type, as the deployed stack does.

    The environment variable `HANDLER_ENVIRONMENT` sets what the parameter `HandlerEnvironment` sets
    on the stack.

    Raises
    ------
    LookupError
        No handler is declared for the type.
    """
    settings = Settings.from_environment({**os.environ, "TABLE_NAME": "none"})
    with use(Context(settings)):
        handlers = handlers_of(event.kind)
        if not handlers:
            raise LookupError(f"HANDLERS declares no handler for {event.kind}")
        for handler in handlers:
            handler(event, customer)


class _Account:
    """A Stripe account whose customers go through the same history, step by step."""

    def __init__(self) -> None:
        self.double = StripeDouble(random=random.Random(1))
        self._histories: dict[str, Iterator[None]] = {}

    def request(self, method: str, path: str, given: Mapping[str, Any] | None = None) -> Json:
        """Make a request to Stripe."""
        headers = {"Authorization": f"Bearer {_API_KEY}"}
        response = self.double.request(method, path, given, headers)
        if response.status != 200:
            raise ValueError(response.body["error"]["message"])
        return response.body

    def fetch(self, path: str) -> Json:
        """Read an object."""
        return self.request("GET", path)

    def new_customer(self, fields: Mapping[str, Any]) -> str:
        """Create a customer with a card and a subscription, and return its id."""
        stripe_id = str(self.request("POST", "/v1/customers", fields)["id"])
        self._histories[stripe_id] = self._history(stripe_id)
        next(self._histories[stripe_id])
        return stripe_id

    def _history(self, customer: str) -> Iterator[None]:
        """Make the changes to a customer, step by step: each emits events."""
        path = f"/v1/customers/{customer}"
        method = "/v1/payment_methods/pm_card_visa/attach"
        card = self.request("POST", method, {"customer": customer})["id"]
        default = {"invoice_settings": {"default_payment_method": card}}
        self.request("POST", path, default)
        price = self.request("POST", "/v1/prices", _PRICE)["id"]
        subscribed = {"customer": customer, "items": [{"price": price}]}
        subscription = self.request("POST", "/v1/subscriptions", subscribed)["id"]
        yield
        self.double.complete_checkout_session(customer, subscription=subscription)
        self.request("POST", f"{path}/tax_ids", {"type": "eu_vat", "value": "DE123456789"})
        owned = f"/v1/subscriptions/{subscription}"
        self.request("POST", owned, {"cancel_at_period_end": True})
        yield
        self.request("DELETE", owned)
        self.request("POST", f"/v1/payment_methods/{card}/detach")
        yield
        self.request("DELETE", path)
        yield

    def payload(self, kind: str, customer: str, data_object: Json | None) -> Json:
        """The event of a type about a customer, or about a given object."""
        if data_object is None:
            for _ in chain([None], self._histories.get(customer, ())):
                if events := [e for e in self._events(customer) if e["type"] == kind]:
                    return events[-1]
            data_object = self._object_like(kind, customer)
        stripe_id = self.double.account.emit(kind, data_object)
        return self.fetch(f"/v1/events/{stripe_id}")

    def _object_like(self, kind: str, customer: str) -> Json:
        """The object of the first event of the same family of types."""
        family = kind.rpartition(".")[0]
        events = [e for e in self._events(customer) if e["type"].rpartition(".")[0] == family]
        if not events:
            raise LookupError(
                f"the Stripe double has no object of {kind}: pass one as `data_object`"
            )
        data_object: Json = events[0]["data"]["object"]
        return data_object

    def _events(self, customer: str) -> list[Json]:
        """The events of a customer and of no customer, oldest first."""
        return [
            copy_json(event)
            for event in self.double.account.events.values()
            if customer_id_of(event) in (customer, None)
        ]


@cache
def _account() -> _Account:
    return _Account()


def _new_customer(fields: Mapping[str, Any]) -> str:
    return _account().new_customer(fields)


def _product() -> AbstractContextManager[Context]:
    """The product's settings and its connection to the double."""
    settings = Settings(table_name="none", api_key=_API_KEY)
    gateway = partial(StripeGateway, http_client=StripeDoubleClient(_account().double))
    return use(Context(settings, make_stripe=gateway))
