"""Products and prices."""

from __future__ import annotations

from . import params as p
from .account import Account, copy_json
from .errors import Json, invalid, no_such
from .listing import page

_RECURRING = {
    "interval": p.choice("day", "week", "month", "year").needed(),
    "interval_count": p.integer(1),
    "usage_type": p.choice("licensed", "metered"),
}
_TAX_BEHAVIOR = p.choice("exclusive", "inclusive", "unspecified")
PRODUCT_CREATE = {
    "active": p.boolean(),
    "description": p.string(),
    "id": p.string().fixed(),
    "images": p.list_of(p.string()),
    "metadata": p.metadata(),
    "name": p.string().fixed().needed(),
    "shippable": p.boolean(),
    "statement_descriptor": p.string(22),
    "tax_code": p.string(),
    "unit_label": p.string(12),
    "url": p.string(),
}
PRODUCT_LIST = {**p.PAGE, "active": p.boolean(), "created": p.interval()}
PRICE_CREATE = {
    "active": p.boolean(),
    "billing_scheme": p.choice("per_unit"),
    "currency": p.string(3).fixed().needed(),
    "lookup_key": p.string(200),
    "metadata": p.metadata(),
    "nickname": p.string(),
    "product": p.string().fixed(),
    "product_data": p.hash_of({"name": p.string().needed(), "metadata": p.metadata()}),
    "recurring": p.hash_of(_RECURRING),
    "tax_behavior": _TAX_BEHAVIOR,
    "unit_amount": p.integer(0).needed(),
}
PRICE_LIST = {
    **p.PAGE,
    "active": p.boolean(),
    "created": p.interval(),
    "currency": p.string(3),
    "lookup_keys": p.list_of(p.string()),
    "product": p.string().fixed(),
    "type": p.choice("one_time", "recurring"),
}
PRICE_DATA = {
    "currency": p.string(3).fixed().needed(),
    "product": p.string().fixed().needed(),
    "recurring": p.hash_of(_RECURRING).needed(),
    "tax_behavior": _TAX_BEHAVIOR,
    "unit_amount": p.integer(0).needed(),
}


class Catalog:
    """The products and prices of an account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create_product(self, given: Json) -> Json:
        """POST /v1/products."""
        account = self._account
        identifier = given.get("id") or account.new_id("prod")
        if identifier in account.products:
            raise invalid("Product already exists.", "id", "resource_already_exists")
        product: Json = {
            "active": True,
            "created": account.now(),
            "default_price": None,
            "description": None,
            "images": [],
            "livemode": account.livemode,
            "marketing_features": [],
            "object": "product",
            "package_dimensions": None,
            "shippable": None,
            "statement_descriptor": None,
            "tax_code": None,
            "type": "service",
            "unit_label": None,
            "updated": account.now(),
            "url": None,
            **given,
            "id": identifier,
            "metadata": p.merge_metadata({}, given.get("metadata")),
        }
        account.products[identifier] = product
        account.emit("product.created", product)
        result: Json = copy_json(product)
        return result

    def retrieve_product(self, _: Json, product: str) -> Json:
        """GET /v1/products/{id}."""
        if product not in self._account.products:
            raise no_such("product", product)
        result: Json = copy_json(self._account.products[product])
        return result

    def list_products(self, given: Json) -> Json:
        """GET /v1/products."""

        def listed(product: Json) -> bool:
            active = bool(product["active"] == given.get("active", product["active"]))
            return active and p.within(product["created"], given.get("created"))

        newest_first = reversed(self._account.products.values())
        result: Json = copy_json(page(newest_first, given, "/v1/products", "product", listed))
        return result

    def create_price(self, given: Json) -> Json:
        """POST /v1/prices, for a product or for ``product_data``."""
        data = given.pop("product_data", None)
        if (data is None) == ("product" not in given):
            raise invalid("Exactly one of product and product_data is needed.", "product")
        if data is not None:
            given["product"] = self.create_product(data)["id"]
        result: Json = copy_json(self.new_price(given))
        return result

    def new_price(self, given: Json) -> Json:
        """Create a price from the parameters of a create call or of ``price_data``."""
        account = self._account
        if given["product"] not in account.products:
            raise no_such("product", given["product"], "product")
        recurring = given.get("recurring")
        price: Json = {
            "id": account.new_id("price"),
            "object": "price",
            "active": given.get("active", True),
            "billing_scheme": "per_unit",
            "created": account.now(),
            "currency": given["currency"].lower(),
            "custom_unit_amount": None,
            "livemode": account.livemode,
            "lookup_key": given.get("lookup_key"),
            "metadata": p.merge_metadata({}, given.get("metadata")),
            "nickname": given.get("nickname"),
            "product": given["product"],
            "recurring": recurring and _recurring(recurring),
            "tax_behavior": given.get("tax_behavior", "unspecified"),
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring" if recurring else "one_time",
            "unit_amount": given["unit_amount"],
            "unit_amount_decimal": str(given["unit_amount"]),
        }
        account.prices[price["id"]] = price
        account.emit("price.created", price)
        return price

    def price(self, identifier: str, param: str | None = None) -> Json:
        """Return a price, or raise ``resource_missing``."""
        if identifier not in self._account.prices:
            raise no_such("price", identifier, param)
        return self._account.prices[identifier]

    def retrieve_price(self, _: Json, price: str) -> Json:
        """GET /v1/prices/{id}."""
        result: Json = copy_json(self.price(price))
        return result

    def list_prices(self, given: Json) -> Json:
        """GET /v1/prices."""
        keys = given.get("lookup_keys")

        def listed(price: Json) -> bool:
            fields = ("active", "currency", "product", "type")
            return (
                all(price[field] == given.get(field, price[field]) for field in fields)
                and (keys is None or price["lookup_key"] in keys)
                and p.within(price["created"], given.get("created"))
            )

        newest_first = reversed(self._account.prices.values())
        result: Json = copy_json(page(newest_first, given, "/v1/prices", "price", listed))
        return result


def plan_of(price: Json) -> Json:
    """Return the Plan object as which Stripe also returns a recurring price."""
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": price["recurring"]["interval"],
        "interval_count": price["recurring"]["interval_count"],
        "livemode": price["livemode"],
        "metadata": dict(price["metadata"]),
        "meter": None,
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": price["recurring"]["usage_type"],
    }


def _recurring(given: Json) -> Json:
    return {
        "interval": given["interval"],
        "interval_count": given.get("interval_count", 1),
        "meter": None,
        "trial_period_days": None,
        "usage_type": given.get("usage_type", "licensed"),
    }
