"""The operations of the API: method, path, handler, parameters and shape of the response."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from . import (
    catalog,
    customers,
    entitlements,
    events,
    payment_methods,
    payment_sources,
    sources,
    subscriptions,
    tax_ids,
    webhook_endpoints,
)
from .catalog import Catalog
from .customers import Customers
from .entitlements import Entitlements
from .errors import Json
from .events import Events
from .invoices import Invoices
from .params import Params
from .payment_methods import PaymentMethods
from .payment_sources import PaymentSources
from .sources import Sources
from .subscriptions import Subscriptions
from .tax_ids import TaxIds
from .webhook_endpoints import WebhookEndpoints


@dataclass(frozen=True)
class Route:
    """One operation of the API.

    Attributes
    ----------
    handler
        Called with the parameters, and with the ids of the path by name.
    shape
        The type of the response, for ``expand``.
    """

    method: str
    path: str
    handler: Callable[..., Json]
    shape: str
    params: Params = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """Method and path, as which Stripe limits the rate of its requests."""
        return f"{self.method} {self.path}"

    @property
    def pattern(self) -> re.Pattern[str]:
        """The path with a named group for each id."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path))


def routes(
    *,
    customer: Customers,
    source: Sources,
    payment_source: PaymentSources,
    payment_method: PaymentMethods,
    sale: Catalog,
    subscription: Subscriptions,
    invoice: Invoices,
    tax_id: TaxIds,
    entitlement: Entitlements,
    event: Events,
    webhook_endpoint: WebhookEndpoints,
) -> list[Route]:
    """Return all operations of the double."""
    one = "/v1/customers/{customer}"
    owned_source = f"{one}/sources/{{source}}"
    method = "/v1/payment_methods/{method}"
    sub = "/v1/subscriptions/{subscription}"
    endpoint = "/v1/webhook_endpoints/{endpoint}"

    return [
        Route("POST", "/v1/customers", customer.create, "customer", customers.CREATE),
        Route("GET", "/v1/customers", customer.list_page, "list customer", customers.LIST),
        Route("GET", one, customer.retrieve, "customer"),
        Route("POST", one, customer.update, "customer", customers.UPDATE),
        Route("DELETE", one, customer.delete, "customer"),
        Route(
            "POST",
            f"{one}/sources",
            payment_source.create,
            "payment_source",
            payment_sources.CREATE,
        ),
        Route(
            "GET",
            f"{one}/sources",
            payment_source.list_page,
            "list payment_source",
            payment_sources.LIST,
        ),
        Route("GET", owned_source, payment_source.retrieve, "payment_source"),
        Route(
            "POST", owned_source, payment_source.update, "payment_source", payment_sources.UPDATE
        ),
        Route("DELETE", owned_source, payment_source.delete, "payment_source"),
        Route("POST", "/v1/sources", source.create, "source", sources.CREATE),
        Route("GET", "/v1/sources/{source}", source.retrieve, "source"),
        Route("POST", f"{one}/tax_ids", tax_id.create, "tax_id", tax_ids.CREATE),
        Route("GET", f"{one}/tax_ids", tax_id.list_page, "list tax_id", tax_ids.LIST),
        Route("GET", f"{one}/tax_ids/{{tax_id}}", tax_id.retrieve, "tax_id"),
        Route("DELETE", f"{one}/tax_ids/{{tax_id}}", tax_id.delete, "tax_id"),
        Route(
            "GET",
            "/v1/entitlements/active_entitlements",
            entitlement.list_page,
            "list entitlements.active_entitlement",
            entitlements.LIST,
        ),
        Route(
            "GET",
            f"{one}/subscriptions",
            subscription.list_of_customer,
            "list subscription",
            subscriptions.CUSTOMER_LIST,
        ),
        Route(
            "GET",
            f"{one}/payment_methods",
            payment_method.list_of_customer,
            "list payment_method",
            payment_methods.CUSTOMER_LIST,
        ),
        Route(
            "GET",
            f"{one}/payment_methods/{{method}}",
            payment_method.retrieve_of_customer,
            "payment_method",
        ),
        Route(
            "POST",
            "/v1/payment_methods",
            payment_method.create,
            "payment_method",
            payment_methods.CREATE,
        ),
        Route(
            "GET",
            "/v1/payment_methods",
            payment_method.list_page,
            "list payment_method",
            payment_methods.LIST,
        ),
        Route("GET", method, payment_method.retrieve, "payment_method"),
        Route("POST", method, payment_method.update, "payment_method", payment_methods.UPDATE),
        Route(
            "POST",
            f"{method}/attach",
            payment_method.attach,
            "payment_method",
            payment_methods.ATTACH,
        ),
        Route("POST", f"{method}/detach", payment_method.detach, "payment_method"),
        Route("POST", "/v1/products", sale.create_product, "product", catalog.PRODUCT_CREATE),
        Route("GET", "/v1/products", sale.list_products, "list product", catalog.PRODUCT_LIST),
        Route("GET", "/v1/products/{product}", sale.retrieve_product, "product"),
        Route("POST", "/v1/prices", sale.create_price, "price", catalog.PRICE_CREATE),
        Route("GET", "/v1/prices", sale.list_prices, "list price", catalog.PRICE_LIST),
        Route("GET", "/v1/prices/{price}", sale.retrieve_price, "price"),
        Route(
            "POST", "/v1/subscriptions", subscription.create, "subscription", subscriptions.CREATE
        ),
        Route(
            "GET",
            "/v1/subscriptions",
            subscription.list_page,
            "list subscription",
            subscriptions.LIST,
        ),
        Route("GET", sub, subscription.retrieve, "subscription"),
        Route("POST", sub, subscription.update, "subscription", subscriptions.UPDATE),
        Route("DELETE", sub, subscription.cancel, "subscription", subscriptions.CANCEL),
        Route("POST", f"{sub}/resume", subscription.resume, "subscription", subscriptions.RESUME),
        Route(
            "GET",
            "/v1/subscription_items",
            subscription.list_items,
            "list subscription_item",
            subscriptions.ITEM_LIST,
        ),
        Route(
            "GET",
            "/v1/subscription_items/{item}",
            subscription.retrieve_item,
            "subscription_item",
        ),
        Route("GET", "/v1/invoices/{invoice}", invoice.retrieve, "invoice"),
        Route("GET", "/v1/events", event.list_page, "list event", events.LIST),
        Route("GET", "/v1/events/{event}", event.retrieve, "event"),
        Route(
            "POST",
            "/v1/webhook_endpoints",
            webhook_endpoint.create,
            "webhook_endpoint",
            webhook_endpoints.CREATE,
        ),
        Route(
            "GET",
            "/v1/webhook_endpoints",
            webhook_endpoint.list_page,
            "list webhook_endpoint",
            webhook_endpoints.LIST,
        ),
        Route("GET", endpoint, webhook_endpoint.retrieve, "webhook_endpoint"),
        Route(
            "POST",
            endpoint,
            webhook_endpoint.update,
            "webhook_endpoint",
            webhook_endpoints.UPDATE,
        ),
        Route("DELETE", endpoint, webhook_endpoint.delete, "webhook_endpoint"),
    ]
