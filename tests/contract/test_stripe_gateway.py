"""Every call that the product makes to Stripe, against Stripe's own description of its API."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

import stripe_integrations
from stripe_integrations.actions.customers.request import update_request
from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.adapters.stripe_gateway import StripeGateway, StripeResponse
from stripe_integrations.config import API_VERSION, Settings
from stripe_integrations.context import Context, use
from stripe_integrations.errors import StripeRefusedError
from stripe_integrations.models import Card, Customer, Subscription
from stripe_integrations.models.entitlement import Entitlement
from stripe_integrations.models.fields import fields_of, read_stripe
from stripe_integrations.models.tax_id import TaxId

CUSTOMER = "cus_contract"
KEY = "idempotency-key-of-the-contract-test"
RECORD = Customer(stripe_id=CUSTOMER, metadata={"plan": "gold"})
SETTABLE = {
    "email": "jane@example.com",
    "name": "Jane Doe",
    "description": "text",
    "phone": "+49 30 1234",
    "address": {"line1": "Street 1", "city": "Berlin", "country": "DE", "postal_code": "10115"},
    "shipping": {"name": "Jane Doe", "phone": "1", "address": {"line1": "Street 1"}},
    "balance": -500,
    "metadata": {"plan": "gold"},
    "source": "tok_visa",
    "tax_exempt": "exempt",
    "preferred_locales": ["de", "en"],
    "invoice_prefix": "ABC123",
    "invoice_settings": {"footer": "text", "default_payment_method": "pm_contract"},
}
with use(Context(Settings(table_name="none"))):
    KINDS = applied_event_types()
CALLS: dict[str, Any] = {
    "create_customer": lambda gateway: gateway.create_customer(SETTABLE, KEY),
    "update_customer": lambda gateway: gateway.update_customer(CUSTOMER, SETTABLE, KEY),
    "delete_customer": lambda gateway: gateway.delete_customer(CUSTOMER),
    "retrieve_customer": lambda gateway: gateway.retrieve_customer(CUSTOMER),
    "list_customers": lambda gateway: list(
        gateway.list_customers(1, "jane@example.com", created_until=2)
    ),
    "list_customers_page": lambda gateway: gateway.list_customers_page(1, 2, CUSTOMER)[0],
    "list_subscriptions_page": lambda gateway: gateway.list_subscriptions_page(
        1, 2, "sub_contract"
    )[0],
    "list_payment_methods": lambda gateway: gateway.list_payment_methods(CUSTOMER, "card"),
    "list_subscriptions": lambda gateway: gateway.list_subscriptions(CUSTOMER),
    "list_tax_ids": lambda gateway: gateway.list_tax_ids(CUSTOMER),
    "list_active_entitlements": lambda gateway: gateway.list_active_entitlements(CUSTOMER),
    "list_events": lambda gateway: gateway.list_events(1, KINDS, "evt_contract")[0],
}


class FurtherPages(stripe.RequestsClient):
    """Says of every list, once, that it has more: so further pages are fetched as well.

    stripe-mock's lists are complete. Records what was sent, and the lists that had more.
    """

    def __init__(self) -> None:
        super().__init__(timeout=10)
        self.sent: list[tuple[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.extended: set[str] = set()

    def request(  # type: ignore[override]
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None, **_: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        path = re.sub(r"/(cus|sub)_\w+", r"/{\1}", urlsplit(url).path)
        self.sent.append((method, path))
        self.headers.append(headers)
        content, status, received = super().request(method, url, headers, post_data)
        response = json.loads(content)
        for place, listed in _lists(response, path):
            listed["has_more"] = place not in self.extended
            self.extended.add(place)
        return json.dumps(response), status, received


def _lists(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, list):
        for entry in value:
            yield from _lists(entry, place)
    elif isinstance(value, dict):
        if value.get("object") == "list":
            yield place, value
        for key, entry in value.items():
            yield from _lists(entry, f"{place} {key}")


@pytest.fixture
def client() -> FurtherPages:
    return FurtherPages()


@pytest.fixture
def gateway(stripe_mock_url: str, client: FurtherPages) -> StripeGateway:
    settings = Settings(table_name="none", api_key="sk_test_contract", api_base=stripe_mock_url)
    return StripeGateway(settings, client)


def test_every_method_has_a_call() -> None:
    methods = inspect.getmembers(StripeGateway, inspect.isfunction)
    public = {name for name, _ in methods if not name.startswith("_")}
    assert public - {"require_key", "disconnect"} == set(CALLS)


@pytest.mark.parametrize("method", CALLS)
def test_stripe_accepts_call(gateway: StripeGateway, method: str) -> None:
    assert CALLS[method](gateway)


def test_every_call_in_source_is_sent(gateway: StripeGateway, client: FurtherPages) -> None:
    for call in CALLS.values():
        client.extended.clear()
        call(gateway)
    assert len(set(client.sent)) == len(_calls_in_source()), (
        "a call to Stripe is written in the package and not sent by this test",
        sorted(_calls_in_source()),
        sorted(set(client.sent)),
    )


def _calls_in_source() -> set[str]:
    """Calls of the kind `client.v1.customers.create(…)`, wherever in the package they are."""
    package = Path(stripe_integrations.__file__).parent
    return {
        ast.unparse(node.func)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ".v1." in ast.unparse(node.func)
    }


def test_gateway_alone_imports_stripe() -> None:
    package = Path(stripe_integrations.__file__).parent
    importers = {
        path.name
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import stripe\b|from stripe\b)", path.read_text(), re.MULTILINE)
    }
    assert importers == {"stripe_gateway.py"}


def test_fields_of_create_are_parameters(gateway: StripeGateway) -> None:
    params = {field.param for field in fields_of(Customer).values() if field.param}
    assert params == set(SETTABLE)
    for param in sorted(params):
        gateway.create_customer({param: SETTABLE[param]}, KEY)


def test_fields_of_update_are_parameters(gateway: StripeGateway) -> None:
    for name, field in fields_of(Customer).items():
        if field.param is None:
            continue
        values = [SETTABLE[field.param], *([None] if field.clearable else ())]
        if name == "default_source":
            values.append("card_contract")
        for value in values:
            caller_name = "billing_email" if name == "email" else name
            params = update_request(RECORD, {caller_name: value})
            gateway.update_customer(CUSTOMER, params, KEY)


def test_unknown_parameter_is_refused(gateway: StripeGateway) -> None:
    with pytest.raises(StripeRefusedError):
        gateway.create_customer({"billing_email": "jane@example.com"}, KEY)


def test_version_and_idempotency_key_are_sent(gateway: StripeGateway, client: FurtherPages) -> None:
    gateway.create_customer(SETTABLE, KEY)
    (headers,) = client.headers
    assert headers["Stripe-Version"] == API_VERSION
    assert headers["Idempotency-Key"] == KEY


NOT_ALWAYS_SENT = {
    # Stripe's description has these, and leaves them out of objects that have none of it.
    Card: {"dynamic_last4", "tokenization_method"},
    # On the items since 2025-03-31, where the spec has them on the subscription.
    Subscription: {"current_period_start", "current_period_end", "quantity"},
    Customer: set[str](),
    TaxId: set[str](),
    Entitlement: set[str](),
}


@pytest.mark.parametrize(
    ("model", "shape", "method"),
    [
        (Customer, "customer", "create_customer"),
        (Customer, "customer", "retrieve_customer"),
        (Customer, "customer", "update_customer"),
        (Card, "payment_method", "list_payment_methods"),
        (Subscription, "subscription", "list_subscriptions"),
        (TaxId, "tax_id", "list_tax_ids"),
        (Entitlement, "entitlement", "list_active_entitlements"),
    ],
)
def test_field_paths_exist(gateway: StripeGateway, model: Any, shape: str, method: str) -> None:
    response = CALLS[method](gateway)
    response = response.data if isinstance(response, StripeResponse) else response
    obj = response[0] if isinstance(response, list) else response
    lost = {
        name
        for name, field in fields_of(model).items()
        if shape in field.paths and not _has(obj, field.paths[shape])
    }
    assert lost - NOT_ALWAYS_SENT[model] == set()
    assert read_stripe(model, shape, obj)["stripe_id"] == obj["id"]


def _has(obj: Any, path: str) -> bool:
    """Return whether the key is there, be it null; a null parent may hold anything."""
    *parents, last = path.split(".")
    for key in parents:
        if key not in obj:
            return False
        obj = obj[key]
        if obj is None:
            return True
    return last in obj
