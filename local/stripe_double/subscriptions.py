"""Subscriptions and their items."""

from __future__ import annotations

from typing import Any

from . import params as p
from .account import Account, copy_json
from .catalog import PRICE_DATA, Catalog, plan_of
from .errors import Json, card_declined, invalid, no_such
from .invoices import Invoices
from .listing import NESTED, account_page, page
from .payment_methods import PaymentMethods
from .payment_sources import PaymentSources
from .periods import after

STATUSES = (
    "active",
    "canceled",
    "incomplete",
    "incomplete_expired",
    "past_due",
    "paused",
    "trialing",
    "unpaid",
)
_ENDED = ("canceled", "incomplete_expired")
_DAY = 24 * 3600

_NEW_ITEM = {
    "billing_thresholds": p.hash_of({"usage_gte": p.integer().needed()}),
    "metadata": p.metadata(),
    "price": p.string().fixed(),
    "price_data": p.hash_of(PRICE_DATA),
    "quantity": p.integer(0),
    "tax_rates": p.list_of(p.string()),
}
_CHANGED_ITEM = {
    **_NEW_ITEM,
    "clear_usage": p.boolean(),
    "deleted": p.boolean(),
    "id": p.string().fixed(),
}
_CANCELLATION = p.hash_of(
    {
        "comment": p.string(),
        "feedback": p.choice(
            "customer_service",
            "low_quality",
            "missing_features",
            "other",
            "switched_service",
            "too_complex",
            "too_expensive",
            "unused",
        ),
    }
)
_CHANGEABLE = {
    "application_fee_percent": p.number(),
    "automatic_tax": p.hash_of({"enabled": p.boolean().needed(), "liability": p.free()}),
    "billing_thresholds": p.hash_of(
        {"amount_gte": p.integer(1), "reset_billing_cycle_anchor": p.boolean()}
    ),
    "cancel_at": p.Param(p.integer().read, unsets=True),
    "cancel_at_period_end": p.boolean(),
    "collection_method": p.choice("charge_automatically", "send_invoice"),
    "days_until_due": p.integer(0),
    "default_payment_method": p.string(),
    "default_source": p.string(),
    "description": p.string(500),
    "metadata": p.metadata(),
    "off_session": p.boolean(),
    "on_behalf_of": p.string(),
    "payment_behavior": p.choice(
        "allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"
    ),
    "pending_invoice_item_interval": p.hash_of(
        {
            "interval": p.choice("day", "week", "month", "year").needed(),
            "interval_count": p.integer(),
        }
    ),
    "proration_behavior": p.choice("always_invoice", "create_prorations", "none"),
    "trial_end": p.one_of("now", p.integer()),
    "trial_settings": p.hash_of(
        {
            "end_behavior": p.hash_of(
                {"missing_payment_method": p.choice("cancel", "create_invoice", "pause").needed()}
            ).needed()
        }
    ),
}
CREATE = {
    **_CHANGEABLE,
    "billing_cycle_anchor": p.integer(),
    "currency": p.string(3),
    "customer": p.string().fixed().needed(),
    "items": p.list_of(p.hash_of(_NEW_ITEM)).fixed().needed(),
    "trial_period_days": p.integer(1, 730),
}
UPDATE = {
    **_CHANGEABLE,
    "billing_cycle_anchor": p.choice("now", "unchanged"),
    "cancellation_details": _CANCELLATION,
    "items": p.list_of(p.hash_of(_CHANGED_ITEM)),
    "pause_collection": p.hash_of(
        {
            "behavior": p.choice(
                "keep_as_draft",  # codespell:ignore draft
                "mark_uncollectible",
                "void",
            ).needed(),
            "resumes_at": p.integer(),
        }
    ),
}
CANCEL = {
    "cancellation_details": _CANCELLATION,
    "invoice_now": p.boolean(),
    "prorate": p.boolean(),
}
RESUME = {
    "billing_cycle_anchor": p.choice("now", "unchanged"),
    "proration_behavior": p.choice("always_invoice", "create_prorations", "none"),
}
LIST = {
    **p.PAGE,
    "collection_method": p.choice("charge_automatically", "send_invoice"),
    "created": p.interval(),
    "current_period_end": p.interval(),
    "current_period_start": p.interval(),
    "customer": p.string().fixed(),
    "price": p.string().fixed(),
    "status": p.choice(*STATUSES, "all", "ended"),
    "test_clock": p.string().fixed(),
}
CUSTOMER_LIST = p.PAGE
ITEM_LIST = {**p.PAGE, "subscription": p.string().fixed().needed()}
# Fields that are stored as given.
_PLAIN = (
    "application_fee_percent",
    "billing_thresholds",
    "collection_method",
    "days_until_due",
    "default_payment_method",
    "default_source",
    "description",
    "on_behalf_of",
    "pending_invoice_item_interval",
)


class Subscriptions:
    """The subscriptions of an account."""

    def __init__(
        self,
        account: Account,
        catalog: Catalog,
        payment_sources: PaymentSources,
        payment_methods: PaymentMethods,
        invoices: Invoices,
    ) -> None:
        self._account = account
        self._catalog = catalog
        self._sources = payment_sources
        self._methods = payment_methods
        self._invoices = invoices

    def create(self, given: Json) -> Json:
        """POST /v1/subscriptions."""
        account = self._account
        customer = account.customer(given["customer"], "customer")
        if not given["items"]:
            raise invalid("A subscription needs an item.", "items", "parameter_missing")
        self._check(given, customer["id"])
        prices = [self._price_of(item, f"items[{i}]") for i, item in enumerate(given["items"])]
        if given.get("collection_method") == "send_invoice" and "days_until_due" not in given:
            raise invalid("send_invoice needs days_until_due.", "days_until_due")
        now = account.now()
        trial_end = _trial_end(given, now)
        subscription = self._new(customer, prices[0]["currency"], now)
        items = [
            self._new_item(subscription, item, price, now)
            for item, price in zip(given["items"], prices, strict=True)
        ]
        if "billing_cycle_anchor" in given:
            subscription["billing_cycle_anchor"] = given["billing_cycle_anchor"]
            for item in items:
                item["current_period_end"] = given["billing_cycle_anchor"]
        if trial_end is not None:
            _start_trial(subscription, items, now, trial_end)
        amount = sum(int(i["price"]["unit_amount"]) * int(i.get("quantity", 0)) for i in items)
        due = 0 if trial_end is not None else amount
        paid = self._pays(customer, given, due)
        account.add_subscription(subscription, items)
        self._apply(subscription, given)
        if not paid and subscription["collection_method"] == "charge_automatically":
            subscription["status"] = "incomplete"
        invoice = self._invoices.create(subscription, due, "subscription_create", paid)
        subscription["latest_invoice"] = invoice["id"]
        account.emit("customer.subscription.created", self.render(subscription["id"]))
        self._invoices.announce(invoice)
        if customer["currency"] is None:
            before = copy_json(customer)
            customer["currency"] = subscription["currency"]
            account.emit_change("customer.updated", before, customer)
        return self.render(subscription["id"])

    def retrieve(self, _: Json, subscription: str) -> Json:
        """GET /v1/subscriptions/{id}, including canceled ones."""
        self._get(subscription)
        return self.render(subscription)

    def update(self, given: Json, subscription: str) -> Json:
        """POST /v1/subscriptions/{id}."""
        found = self._get(subscription)
        if found["status"] in _ENDED and not set(given) <= {"cancellation_details", "metadata"}:
            raise invalid("An ended subscription can only change its metadata.", next(iter(given)))
        self._check(given, found["customer"])
        changed = given.get("items") or []
        items = self._changed_items(found, changed)
        before = self.render(subscription)
        self._account.subscription_items[subscription] = items
        now = self._account.now()
        if given.get("trial_end") == "now":
            _end_trial(found, items, now)
        elif given.get("trial_end") is not None:
            _start_trial(found, items, now, given["trial_end"])
        if given.get("billing_cycle_anchor") == "now":
            _restart(found, items, now)
        if "pause_collection" in given:
            pause = given["pause_collection"]
            found["pause_collection"] = pause and {
                "behavior": pause["behavior"],
                "resumes_at": pause.get("resumes_at"),
            }
        self._apply(found, given)
        self._account.emit_change(
            "customer.subscription.updated", before, self.render(subscription)
        )
        return self.render(subscription)

    def cancel(self, given: Json, subscription: str) -> Json:
        """DELETE /v1/subscriptions/{id}."""
        found = self._get(subscription)
        if found["status"] in _ENDED:
            raise no_such("subscription", subscription)
        details = given.get("cancellation_details")
        self.end(subscription, {**(details or {}), "reason": "cancellation_requested"})
        return self.render(subscription)

    def end(self, subscription: str, details: Json | None) -> None:
        """Cancel a subscription at once, unless it has ended already."""
        found = self._get(subscription)
        if found["status"] in _ENDED:
            return
        now = self._account.now()
        found["status"] = "canceled"
        found["ended_at"] = now
        found["canceled_at"] = found["canceled_at"] or now
        found["cancellation_details"].update(details or {})
        self._account.emit("customer.subscription.deleted", self.render(subscription))

    def resume(self, _: Json, subscription: str) -> Json:
        """POST /v1/subscriptions/{id}/resume, for a paused subscription."""
        if self._get(subscription)["status"] != "paused":
            raise invalid("Only a paused subscription can be resumed.", "subscription")
        return self.set_status(subscription, "active")

    def list_page(self, given: Json) -> Json:
        """GET /v1/subscriptions: without a status, all that aren't canceled.

        Those of a test clock are only listed with ``customer`` or ``test_clock``.
        """
        customer = given.get("customer")
        if customer is not None and customer not in self._account.customers:
            raise no_such("customer", customer, "customer")
        return self._page(given, customer, "/v1/subscriptions")

    def list_of_customer(self, given: Json, customer: str) -> Json:
        """GET /v1/customers/{id}/subscriptions."""
        self._account.customer(customer)
        return self._page(given, customer, f"/v1/customers/{customer}/subscriptions")

    def list_items(self, given: Json) -> Json:
        """GET /v1/subscription_items?subscription=…."""
        subscription = given["subscription"]
        if subscription not in self._account.subscriptions:
            raise no_such("subscription", subscription, "subscription")
        items = self._account.subscription_items[subscription]
        url = f"/v1/subscription_items?subscription={subscription}"
        result: Json = copy_json(page(items, given, url, "subscription_item"))
        return result

    def retrieve_item(self, _: Json, item: str) -> Json:
        """GET /v1/subscription_items/{id}."""
        for items in self._account.subscription_items.values():
            for candidate in items:
                if candidate["id"] == item:
                    result: Json = copy_json(candidate)
                    return result
        raise no_such("subscription_item", item)

    def render(self, subscription: str) -> Json:
        """Return a copy of a subscription with its first items."""
        return self._account.render_subscription(subscription)

    def current(self, customer: str) -> list[Json]:
        """Return a customer's subscriptions that aren't canceled, newest first."""
        ids = self._account.subscriptions_of.get(customer, [])
        newest_first = [self.render(subscription) for subscription in reversed(ids)]
        return [
            subscription for subscription in newest_first if subscription["status"] != "canceled"
        ]

    # Changes by time and payments, which no API request makes directly.

    def set_status(self, subscription: str, status: str) -> Json:
        """Set the status of a subscription and emit the events of the change.

        A customer is delinquent while a subscription is ``past_due`` or ``unpaid``.
        """
        if status not in STATUSES:
            raise ValueError(f"not a subscription status: {status}")
        found = self._running(subscription)
        if status == "canceled":
            self.end(subscription, {"reason": "payment_failed"})
            return self.render(subscription)
        before = self.render(subscription)
        was, found["status"] = found["status"], status
        if status == "incomplete_expired":
            found["ended_at"] = self._account.now()
        if status == "paused" and was != "paused":
            self._account.emit("customer.subscription.paused", self.render(subscription))
        if was == "paused" and status != "paused":
            self._account.emit("customer.subscription.resumed", self.render(subscription))
        self._account.emit_change(
            "customer.subscription.updated", before, self.render(subscription)
        )
        self._update_delinquency(found["customer"])
        return self.render(subscription)

    def advance_period(self, subscription: str) -> Json:
        """Start the next period with an invoice, or end a subscription that is to be cancelled."""
        found = self._running(subscription)
        if found["cancel_at_period_end"]:
            self.end(subscription, None)
            return self.render(subscription)
        before = self.render(subscription)
        items = self._account.subscription_items[subscription]
        for item in items:
            item["current_period_start"] = item["current_period_end"]
            item["current_period_end"] = _period_end(item, item["current_period_start"])
        if found["status"] == "trialing":
            found["status"] = "active"
        amount = sum(int(i["price"]["unit_amount"]) * int(i.get("quantity", 0)) for i in items)
        invoice = self._invoices.create(found, amount, "subscription_cycle", paid=True)
        found["latest_invoice"] = invoice["id"]
        self._account.emit_change(
            "customer.subscription.updated", before, self.render(subscription)
        )
        self._invoices.announce(invoice)
        return self.render(subscription)

    def announce_trial_end(self, subscription: str) -> None:
        """Emit ``customer.subscription.trial_will_end``, as Stripe does three days before."""
        self._account.emit("customer.subscription.trial_will_end", self.render(subscription))

    def set_fields(self, subscription: str, **fields: Any) -> Json:
        """Set fields that no API request sets, for example so that the subscription is large.

        Parameters
        ----------
        subscription
            The subscription's id.
        fields
            Fields of the Subscription object and their values; not ``items``.

        Raises
        ------
        ValueError
            A subscription has no such field.
        """
        found = self._get(subscription)
        unknown = fields.keys() - found.keys()
        if unknown:
            raise ValueError(f"no fields of a subscription: {', '.join(sorted(unknown))}")
        before = self.render(subscription)
        found.update(copy_json(fields))
        self._account.emit_change(
            "customer.subscription.updated", before, self.render(subscription)
        )
        return self.render(subscription)

    def _get(self, subscription: str) -> Json:
        if subscription not in self._account.subscriptions:
            raise no_such("subscription", subscription)
        return self._account.subscriptions[subscription]

    def _running(self, subscription: str) -> Json:
        found = self._get(subscription)
        if found["status"] in _ENDED:
            raise ValueError(f"the subscription has ended: {subscription}")
        return found

    def _page(self, given: Json, customer: str | None, url: str) -> Json:
        account = self._account
        price = given.get("price")

        def listed(subscription: Json) -> bool:
            items = account.subscription_items[subscription["id"]][:NESTED]
            method, clock = subscription["collection_method"], subscription["test_clock"]
            return (
                _has_status(subscription, given.get("status"))
                and method == given.get("collection_method", method)
                and clock == given.get("test_clock", clock if customer else None)
                and all(
                    any(p.within(item[bound], given.get(bound)) for item in items)
                    for bound in ("current_period_start", "current_period_end")
                )
                and any(price in (None, item["price"]["id"]) for item in items)
            )

        result = account_page(
            account.subscriptions_by_creation,
            account.subscriptions,
            given,
            url=url,
            kind="subscription",
            is_listed=listed,
            among=None if customer is None else account.subscriptions_of.get(customer, []),
        )
        result["data"] = [self.render(subscription["id"]) for subscription in result["data"]]
        return result

    def _check(self, given: Json, customer: str) -> None:
        method = given.get("default_payment_method")
        if method is not None and not self._methods.belongs(method, customer):
            raise no_such("PaymentMethod", method, "default_payment_method")
        source = given.get("default_source")
        if source is not None and not self._sources.belongs(source, customer):
            raise no_such("source", source, "default_source")
        if given.get("cancel_at") is not None and given.get("cancel_at_period_end"):
            raise invalid("cancel_at and cancel_at_period_end exclude each other.", "cancel_at")

    def _price_of(self, item: Json, param: str) -> Json:
        if ("price" in item) == ("price_data" in item):
            raise invalid("An item needs price or price_data.", param, "parameter_missing")
        if "price" in item:
            price = self._catalog.price(item["price"], f"{param}[price]")
        else:
            price = self._catalog.new_price(item["price_data"])
        if price["recurring"] is None:
            raise invalid("A subscription takes recurring prices only.", f"{param}[price]")
        return price

    def _pays(self, customer: Json, given: Json, due: int) -> bool:
        if due == 0:
            return True
        if given.get("collection_method") == "send_invoice":
            return False
        behavior = given.get("payment_behavior", "allow_incomplete")
        if behavior == "default_incomplete":
            return False
        method = (
            given.get("default_payment_method")
            or given.get("default_source")
            or customer["invoice_settings"]["default_payment_method"]
            or customer["default_source"]
        )
        if method is None:
            message = "The customer has no attached payment source or default payment method."
            raise invalid(message, None, "resource_missing")
        failing = method in self._account.failing_cards
        if failing and behavior == "error_if_incomplete":
            raise card_declined("generic_decline")
        return not failing

    def _new(self, customer: Json, currency: str, now: int) -> Json:
        return {
            "id": self._account.new_id("sub"),
            "object": "subscription",
            "application": None,
            "application_fee_percent": None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
            "billing_cycle_anchor": now,
            "billing_cycle_anchor_config": None,
            "billing_mode": {"flexible": None, "type": "classic"},
            "billing_schedules": [],
            "billing_thresholds": None,
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "cancellation_details": {"comment": None, "feedback": None, "reason": None},
            "collection_method": "charge_automatically",
            "created": now,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "days_until_due": None,
            "default_payment_method": None,
            "default_source": None,
            "default_tax_rates": [],
            "description": None,
            "discounts": [],
            "ended_at": None,
            "invoice_settings": {
                "account_tax_ids": None,
                "custom_fields": None,
                "description": None,
                "footer": None,
                "issuer": {"type": "self"},
            },
            "latest_invoice": None,
            "livemode": self._account.livemode,
            "managed_payments": {"enabled": False},
            "metadata": {},
            "next_pending_invoice_item_invoice": None,
            "on_behalf_of": None,
            "pause_collection": None,
            "payment_settings": {
                "payment_method_options": None,
                "payment_method_types": None,
                "save_default_payment_method": "off",
            },
            "pending_invoice_item_interval": None,
            "pending_setup_intent": None,
            "pending_update": None,
            "schedule": None,
            "start_date": now,
            "status": "active",
            "test_clock": customer["test_clock"],
            "transfer_data": None,
            "trial_end": None,
            "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
            "trial_start": None,
        }

    def _new_item(self, subscription: Json, given: Json, price: Json, now: int) -> Json:
        item: Json = {
            "id": self._account.new_id("si"),
            "object": "subscription_item",
            "billing_thresholds": given.get("billing_thresholds"),
            "created": now,
            "current_period_start": now,
            "current_period_end": None,
            "discounts": [],
            "metadata": p.merge_metadata({}, given.get("metadata")),
            "plan": plan_of(price),
            "price": copy_json(price),
            "subscription": subscription["id"],
            "tax_rates": [],
        }
        if price["recurring"]["usage_type"] == "licensed":
            item["quantity"] = given.get("quantity", 1)
        item["current_period_end"] = _period_end(item, now)
        return item

    def _changed_items(self, subscription: Json, changes: list[Json]) -> list[Json]:
        items: list[Json] = copy_json(self._account.subscription_items[subscription["id"]])
        by_id = {item["id"]: item for item in items}
        period_end = items[0]["current_period_end"]
        for position, change in enumerate(changes):
            param = f"items[{position}]"
            if "id" not in change:
                price = self._price_of(change, param)
                item = self._new_item(subscription, change, price, self._account.now())
                item["current_period_end"] = period_end
                items.append(item)
                continue
            if change["id"] not in by_id:
                raise no_such("subscription_item", change["id"], f"{param}[id]")
            if change.get("deleted"):
                items.remove(by_id.pop(change["id"]))
            else:
                self._change_item(by_id[change["id"]], change, param)
        if not items:
            raise invalid("A subscription must keep an item.", "items")
        return items

    def _change_item(self, item: Json, change: Json, param: str) -> None:
        if "price" in change or "price_data" in change:
            price = self._price_of(change, param)
            item["price"], item["plan"] = copy_json(price), plan_of(price)
        if "quantity" in change:
            item["quantity"] = change["quantity"]
        if "metadata" in change:
            item["metadata"] = p.merge_metadata(item["metadata"], change["metadata"])
        if "billing_thresholds" in change:
            item["billing_thresholds"] = change["billing_thresholds"]

    def _apply(self, subscription: Json, given: Json) -> None:
        for field in _PLAIN:
            if field in given:
                subscription[field] = given[field]
        if "metadata" in given:
            subscription["metadata"] = p.merge_metadata(subscription["metadata"], given["metadata"])
        for field in ("automatic_tax", "trial_settings", "cancellation_details"):
            subscription[field].update(given.get(field) or {})
        self._schedule_end(subscription, given)

    def _schedule_end(self, subscription: Json, given: Json) -> None:
        if "cancel_at" not in given and "cancel_at_period_end" not in given:
            return
        items = self._account.subscription_items[subscription["id"]]
        at_period_end = given.get("cancel_at_period_end", False)
        moment: Any = given.get("cancel_at")
        if at_period_end:
            moment = max(item["current_period_end"] for item in items)
        subscription["cancel_at_period_end"] = at_period_end
        subscription["cancel_at"] = moment
        subscription["canceled_at"] = None if moment is None else self._account.now()
        reason = None if moment is None else "cancellation_requested"
        subscription["cancellation_details"]["reason"] = reason

    def _update_delinquency(self, customer: str) -> None:
        found = self._account.customers[customer]
        before = copy_json(found)
        found["delinquent"] = any(
            self._account.subscriptions[subscription]["status"] in ("past_due", "unpaid")
            for subscription in self._account.subscriptions_of[customer]
        )
        self._account.emit_change("customer.updated", before, found)


def _has_status(subscription: Json, status: str | None) -> bool:
    if status is None:
        return bool(subscription["status"] != "canceled")
    if status == "ended":
        return subscription["status"] in _ENDED
    return status in ("all", subscription["status"])


def _period_end(item: Json, start: int) -> int:
    recurring = item["price"]["recurring"]
    return after(start, recurring["interval"], recurring["interval_count"])


def _trial_end(given: Json, now: int) -> int | None:
    end = given.get("trial_end")
    if "trial_period_days" in given:
        if end is not None:
            raise invalid("trial_end and trial_period_days exclude each other.", "trial_end")
        return now + _DAY * int(given["trial_period_days"])
    return None if end in (None, "now") else int(end)


def _start_trial(subscription: Json, items: list[Json], now: int, end: int) -> None:
    subscription["status"] = "trialing"
    subscription["trial_start"] = subscription["trial_start"] or now
    subscription["trial_end"] = end
    subscription["billing_cycle_anchor"] = end
    for item in items:
        item["current_period_end"] = end


def _end_trial(subscription: Json, items: list[Json], now: int) -> None:
    if subscription["status"] == "trialing":
        subscription["status"] = "active"
        subscription["trial_end"] = now
        _restart(subscription, items, now)


def _restart(subscription: Json, items: list[Json], now: int) -> None:
    subscription["billing_cycle_anchor"] = now
    for item in items:
        item["current_period_start"] = now
        item["current_period_end"] = _period_end(item, now)
