"""Customers: create, retrieve, update, delete and list."""

from __future__ import annotations

import re

from . import params as p
from .account import Account, copy_json
from .entitlements import Entitlements
from .errors import Json, invalid, no_such
from .listing import account_page
from .payment_methods import PaymentMethods
from .payment_sources import PaymentSources
from .subscriptions import Subscriptions

_PREFIX = re.compile(r"[A-Z0-9]{3,12}")
_CUSTOM_FIELD = p.hash_of({"name": p.string(40).needed(), "value": p.string(140).needed()})
_INVOICE_SETTINGS = {
    "custom_fields": p.list_of(_CUSTOM_FIELD),
    "default_payment_method": p.string(),
    "footer": p.string(),
    "rendering_options": p.hash_of(
        {
            "amount_tax_display": p.choice("exclude_tax", "include_inclusive_tax"),
            "template": p.string(),
        }
    ),
}
_SHIPPING = {
    "address": p.hash_of(p.ADDRESS).needed(),
    "name": p.string().needed(),
    "phone": p.string(),
}
_TAX_EXEMPT = ("none", "exempt", "reverse")
_CHANGEABLE = {
    "address": p.hash_of(p.ADDRESS),
    "balance": p.integer(),
    "business_name": p.string(150),
    "description": p.string(),
    "email": p.email(),
    "individual_name": p.string(150),
    "invoice_prefix": p.string().fixed(),
    "invoice_settings": p.hash_of(_INVOICE_SETTINGS).fixed(),
    "metadata": p.metadata(),
    "name": p.string(256),
    "next_invoice_sequence": p.integer(1),
    "phone": p.string(20),
    "preferred_locales": p.list_of(p.string().fixed()).fixed(),
    "shipping": p.hash_of(_SHIPPING),
    "source": p.string().fixed(),
    "tax": p.hash_of({"ip_address": p.string(), "validate_location": p.string()}),
    "tax_exempt": p.Param(p.choice(*_TAX_EXEMPT).read, unsets=True),
    "validate": p.boolean(),
}
CREATE = {**_CHANGEABLE, "payment_method": p.string().fixed(), "test_clock": p.string().fixed()}
UPDATE = {**_CHANGEABLE, "default_source": p.string().fixed()}
LIST = {
    **p.PAGE,
    "created": p.interval(),
    "email": p.string(512).fixed(),
    "test_clock": p.string().fixed(),
}
# Accepted, but only returned when they are expanded, which the double doesn't support.
_NOT_RETURNED = ("tax", "validate")


class Customers:
    """The customers of an account."""

    def __init__(
        self,
        account: Account,
        payment_sources: PaymentSources,
        payment_methods: PaymentMethods,
        subscriptions: Subscriptions,
        entitlements: Entitlements,
    ) -> None:
        self._account = account
        self._sources = payment_sources
        self._methods = payment_methods
        self._subscriptions = subscriptions
        self._entitlements = entitlements

    def create(self, given: Json) -> Json:
        """POST /v1/customers."""
        account = self._account
        self._check_prefix(given.get("invoice_prefix"), None)
        source = None
        if "source" in given:
            source = self._sources.accepted(given.pop("source"), "source")
        settings = given.get("invoice_settings", {})
        method = None
        if "payment_method" in given:
            named = given.pop("payment_method")
            method = self._methods.usable(named, "payment_method", None)
            if settings.get("default_payment_method") == named:
                settings["default_payment_method"] = method["id"]
        default = settings.get("default_payment_method")
        if default is not None and (method is None or default != method["id"]):
            raise _not_the_customers(default)
        customer = self._new(given)
        account.add_customer(customer)
        account.emit("customer.created", customer)
        if source is not None:
            self._sources.add(customer, source, None)
        if method is not None:
            self._methods.add(customer, method)
        result: Json = copy_json(customer)
        return result

    def retrieve(self, _: Json, customer: str) -> Json:
        """GET /v1/customers/{id}: 200 for a deleted customer too."""
        if customer in self._account.deleted_customers:
            return _deleted(customer)
        result: Json = copy_json(self._account.customer(customer))
        return result

    def update(self, given: Json, customer: str) -> Json:
        """POST /v1/customers/{id}."""
        found = self._account.customer(customer)
        self._check_prefix(given.get("invoice_prefix"), customer)
        self._check_defaults(given, customer)
        source = None
        if "source" in given:
            source = self._sources.accepted(given.pop("source"), "source")
        before = copy_json(found)
        if "invoice_prefix" in given:
            del self._account.customer_by_prefix[found["invoice_prefix"]]
            self._account.customer_by_prefix[given["invoice_prefix"]] = customer
        _change(found, given)
        self._account.index_email(found)
        self._account.emit_change("customer.updated", before, found)
        if source is not None:
            self._replace_source(found, self._sources.add(found, source, None)["id"])
        result: Json = copy_json(found)
        return result

    def delete(self, _: Json, customer: str) -> Json:
        """DELETE /v1/customers/{id}: subscriptions end and all else is removed first."""
        found = self._account.customer(customer)
        last = copy_json(found)
        # Cleared first, so that the removal of a default is no update of the customer.
        found["default_source"] = None
        found["invoice_settings"]["default_payment_method"] = None
        for subscription in list(self._account.subscriptions_of.get(customer, [])):
            self._subscriptions.end(subscription, None)
        self._entitlements.revoke_all(customer)
        for source in list(self._account.payment_sources.get(customer, {})):
            self._sources.remove(found, source)
        for method in list(self._account.payment_methods_of.get(customer, [])):
            self._methods.remove(found, self._account.payment_methods[method])
        self._account.deleted_customers.add(customer)
        self._account.customers_by_creation.discard(customer)
        self._account.emit("customer.deleted", last)
        return _deleted(customer)

    def list_page(self, given: Json) -> Json:
        """GET /v1/customers: newest first, without deleted customers.

        Customers of a test clock are only listed with ``test_clock``.
        """
        account, email = self._account, given.get("email")

        def listed(customer: Json) -> bool:
            return (
                customer["id"] not in account.deleted_customers
                and email in (None, customer["email"])
                and customer["test_clock"] == given.get("test_clock")
            )

        result: Json = copy_json(
            account_page(
                account.customers_by_creation,
                account.customers,
                given,
                url="/v1/customers",
                kind="customer",
                is_listed=listed,
                among=account.customers_by_email.get(email, ()) if email is not None else None,
            )
        )
        return result

    def _new(self, given: Json) -> Json:
        account = self._account
        customer: Json = {
            "id": account.new_id("cus"),
            "object": "customer",
            "address": None,
            "balance": 0,
            "created": account.now(),
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": None,
            "discount": None,
            "email": None,
            "invoice_prefix": account.new_invoice_prefix(),
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": account.livemode,
            "metadata": {},
            "name": None,
            "next_invoice_sequence": 1,
            "phone": None,
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
        }
        _change(customer, given)
        return customer

    def _check_prefix(self, prefix: str | None, customer: str | None) -> None:
        if prefix is None:
            return
        if not _PREFIX.fullmatch(prefix):
            message = "invoice_prefix must be 3 to 12 uppercase letters or digits"
            raise invalid(message, "invoice_prefix")
        if self._account.customer_by_prefix.get(prefix, customer) != customer:
            raise invalid("Another customer has this invoice_prefix", "invoice_prefix")

    def _check_defaults(self, given: Json, customer: str) -> None:
        source = given.get("default_source")
        if source is not None and not self._sources.belongs(source, customer):
            raise no_such("source", source, "default_source")
        method = given.get("invoice_settings", {}).get("default_payment_method")
        if method is not None and not self._methods.belongs(method, customer):
            raise _not_the_customers(method)

    def _replace_source(self, customer: Json, source: str) -> None:
        replaced = customer["default_source"]
        if replaced == source:
            return
        before = copy_json(customer)
        customer["default_source"] = source
        self._account.emit_change("customer.updated", before, customer)
        self._sources.remove(customer, replaced)


def _change(customer: Json, given: Json) -> None:
    changes = {key: value for key, value in given.items() if key not in _NOT_RETURNED}
    if "metadata" in changes:
        changes["metadata"] = p.merge_metadata(customer["metadata"], changes["metadata"])
    if "address" in changes:
        changes["address"] = p.full_address(changes["address"])
    if changes.get("shipping") is not None:
        changes["shipping"] = {
            "address": p.full_address(changes["shipping"]["address"]),
            "name": changes["shipping"]["name"],
            "phone": changes["shipping"].get("phone"),
        }
    if "invoice_settings" in changes:
        changes["invoice_settings"] = _settings(customer, changes["invoice_settings"])
    if "tax_exempt" in changes:
        changes["tax_exempt"] = changes["tax_exempt"] or "none"
    customer.update(changes)


def _settings(customer: Json, given: Json) -> Json:
    settings = {**customer["invoice_settings"], **given}
    if settings["custom_fields"] == []:
        settings["custom_fields"] = None
    options = settings["rendering_options"]
    if options is not None:
        keys = ("amount_tax_display", "template")
        settings["rendering_options"] = {key: options.get(key) for key in keys}
    return settings


def _deleted(customer: str) -> Json:
    return {"id": customer, "object": "customer", "deleted": True}


def _not_the_customers(method: str) -> Exception:
    return no_such("PaymentMethod", method, "invoice_settings[default_payment_method]")
