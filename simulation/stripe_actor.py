"""Changes on Stripe that the product did not make: by dashboard, checkout page or another stack."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from local.stripe_double.account import copy_json
from local.stripe_double.filling import fill
from local.stripe_double.webhooks import sign
from simulation.chance import chance
from simulation.deliveries import SECRET, Deliveries
from simulation.history import Action
from simulation.stripe_side import AUTHORIZATION, SimulatedStripe
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY

Json = dict[str, Any]

FOREIGN_EMAIL = "foreign@example.com"
"""The e-mail address in payloads that must never be applied."""
USER_METADATA = "app_user"
"""The key of the metadata that names the user who is to adopt a customer."""
_OTHER_STACK = "a token of another stack"
_SOURCE = {"type": "ach_credit_transfer", "currency": "usd"}
_METHODS: dict[str, Json] = {
    "sepa_debit": {
        "type": "sepa_debit",
        "sepa_debit": {"iban": "DE89370400440532013000"},
        "billing_details": {"name": "Ada", "email": "a@example.com"},
    },
    "us_bank_account": {
        "type": "us_bank_account",
        "us_bank_account": {
            "routing_number": "110000000",
            "account_number": "000123456789",
            "account_holder_type": "individual",
        },
        "billing_details": {"name": "Ada", "email": "a@example.com"},
    },
    "cashapp": {"type": "cashapp"},
}
_PRICE = {"currency": "eur", "unit_amount": "500", "recurring": {"interval": "month"}}


class StripeActor:
    """Everyone who uses the Stripe account except the product.

    Parameters
    ----------
    seed : int
        The seed of the history.
    stripe_side : SimulatedStripe
        The Stripe account.
    deliveries : Deliveries
        Where crafted events are posted.

    Attributes
    ----------
    foreign : set of str
        Ids of customers that this deployment did not create.
    existing : list of str
        The customers of Stripe's that users may adopt.
    prior : list of str
        The customers that Stripe had before the deployment: no event has reported them.
    silently_changed : set of str
        The customers that were changed without an event.
    moved : set of str
        The customers that have lost their metadata to a copy.
    copies : set of str
        The foreign customers that have the metadata, and so the token, of one that it created.
    crafted : dict
        The action that crafted an event, by the event's id; such an event must not be applied.
    statuses : dict
        The HTTP statuses that a crafted event got, by its id.
    """

    def __init__(self, seed: int, stripe_side: SimulatedStripe, deliveries: Deliveries) -> None:
        self._seed = seed
        self._stripe = stripe_side
        self._deliveries = deliveries
        self.foreign: set[str] = set()
        self.existing: list[str] = []
        self.prior: list[str] = []
        self.silently_changed: set[str] = set()
        self.moved: set[str] = set()
        self.copies: set[str] = set()
        self._burst_customers: list[str] = []
        self._overtaken = 0
        self.crafted: dict[str, str] = {}
        self.statuses: dict[str, list[int]] = {}

    @property
    def _account(self) -> Any:
        return self._stripe.double.account

    def do(self, action: Action) -> None:
        """Carry out an action, unless the object that it changes does not exist."""
        kind = action.kind
        if kind in _ON_ACCOUNT:
            _ON_ACCOUNT[kind](self, action)
            return
        customer = self._customer(action)
        if customer is not None:
            self._change(action, customer)

    def _change(self, action: Action, customer: str) -> None:
        """Change a customer, unless it lacks what is to be changed."""
        kind = action.kind
        if kind in _ON_CUSTOMER:
            _ON_CUSTOMER[kind](self, action, customer)
        elif kind in _ON_CARD:
            card = self._card(action, customer)
            if card is not None:
                _ON_CARD[kind](self, action, customer, card)
        else:
            subscription = self._subscription(action, customer)
            if subscription is not None:
                _ON_SUBSCRIPTION[kind](self, action, subscription)

    def _customer(self, action: Action) -> str | None:
        """The user's newest customer on Stripe that is not deleted."""
        owner = f"u-{action.user}"
        ignored = self._account.deleted_customers | self.foreign
        for stripe_id, customer in reversed(self._account.customers.items()):
            if customer["metadata"].get(USER_KEY) == owner and stripe_id not in ignored:
                return str(stripe_id)
        return None

    def _card(self, action: Action, customer: str) -> str | None:
        methods = self._stripe.double.payment_methods.newest_first(customer)
        return str(methods[action.values["which"] % len(methods)]["id"]) if methods else None

    def _subscription(self, action: Action, customer: str) -> str | None:
        ids = self._account.subscriptions_of.get(customer, [])
        running = [i for i in ids if self._account.subscriptions[i]["ended_at"] is None]
        return str(running[action.values["which"] % len(running)]) if running else None

    def _ask(self, action: Action, method: str, path: str, params: Json | None = None) -> Json:
        """Send one request; returns the body of the response, an error included."""
        response = self._stripe.act(f"{action.name} {method} {path}", method, path, params)
        body: Json = response.body
        return body

    def _change_customer(self, action: Action, customer: str, params: Json) -> None:
        self._ask(action, "POST", f"/v1/customers/{customer}", params)

    def add_prior_customers(self, number: int) -> None:
        """Add customers of many years, with cards and subscriptions, without an event."""
        known = set(self._account.customers)
        fill(self._stripe.double, number, seed=self._seed + len(known))
        self.prior += [name for name in self._account.customers if name not in known]

    def customer_at(self, which: int, *, is_prior: bool) -> str:
        """The id of a customer that users may get, or one that Stripe does not have."""
        customers = self.prior if is_prior else self.existing
        return customers[which] if which < len(customers) else f"cus_missing{which}"

    def without(self, key: str) -> set[str]:
        """The customers that are listed, and whose metadata lacks a key."""
        return {
            stripe_id
            for stripe_id, customer in self._account.customers.items()
            if key not in customer["metadata"]
            and customer["test_clock"] is None
            and stripe_id not in self._account.deleted_customers
        }

    def existing_with(self, email: str) -> set[str]:
        """The customers with an e-mail that were not created for a user of any deployment."""
        customers = self._account.customers
        return {
            stripe_id
            for stripe_id in {*self.foreign, *self.existing} - self._account.deleted_customers
            if customers[stripe_id]["email"] == email
            and customers[stripe_id]["metadata"].get(TOKEN_KEY) != _OTHER_STACK
        }

    # ---- customers

    def _update(self, action: Action, customer: str) -> None:
        self._change_customer(action, customer, {action.values["field"]: action.values["value"]})

    def _back_and_forth(self, action: Action, customer: str) -> None:
        name = self._account.customers[customer]["name"]
        self._change_customer(action, customer, {"name": "Zoe"})
        second = Action(f"{action.name}'", action.at, "", 0)
        self._change_customer(second, customer, {"name": name or ""})

    def change_erased(self, action: Action, customers: Iterable[str]) -> None:
        """Change erased customers, whose metadata names no user any more."""
        for stripe_id in customers:
            self._change_customer(action, stripe_id, {"name": "Zoe"})

    def _delete(self, action: Action, customer: str) -> None:
        self._ask(action, "DELETE", f"/v1/customers/{customer}")

    def _unrelated_customer(self, action: Action) -> None:
        made = self._ask(action, "POST", "/v1/customers", {"email": "a@example.com", "name": "Eve"})
        self.foreign.add(made["id"])

    def _existing_customer(self, action: Action) -> None:
        customer: Json = {"email": "a@example.com", "name": "Ada"}
        if action.values.get("is_named"):
            customer["metadata"] = {USER_METADATA: f"u-{action.user}"}
        made = self._ask(action, "POST", "/v1/customers", customer)
        self.existing.append(made["id"])
        self._attach_method(replace(action, values={"card": "visa", "default": True}), made["id"])
        self._subscribe(replace(action, values={"how": "invoice"}), made["id"])

    def _name_user(self, action: Action) -> None:
        """Let the metadata of an existing customer name the user who is to adopt it."""
        which = action.values["which"]
        if which < len(self.existing):
            metadata = {USER_METADATA: f"u-{action.user}"}
            self._change_customer(action, self.existing[which], {"metadata": metadata})

    def _change_prior(self, action: Action) -> None:
        """Change a customer that Stripe had before the deployment."""
        customer = self.prior[action.values["which"]]
        if customer not in self._account.deleted_customers:
            self._change(replace(action, kind=action.values["change"]), customer)

    def change_silently(self, customer: str) -> None:
        """Change a customer without an event."""
        self._account.customers[customer]["name"] = "Silent"
        self.silently_changed.add(customer)

    def overtake(self, name: str, objects: list[Json]) -> None:
        """Change a customer, or its subscription, whose state a walk has read, and not received."""
        for subject in objects:
            if subject.get("customer", subject["id"]) not in {*self.prior, *self.existing}:
                continue
            self._overtaken += 1
            action = Action(name, 0, "", 0, {"how": "metadata", "number": self._overtaken})
            if subject["object"] == "customer":
                self._change_customer(action, subject["id"], {"name": f"Late {self._overtaken}"})
            else:
                self._change_subscription(action, subject["id"])
            return

    def _foreign_burst(self, action: Action) -> None:
        """Change foreign customers, which the first burst creates."""
        for number in range(action.values["customers"]):
            change = replace(action, name=f"{action.name} {number}")
            if number < len(self._burst_customers):
                self._change_foreign_customer(change, self._burst_customers[number])
            else:
                self._unrelated_customer(change)
                self._burst_customers.append(next(reversed(self._account.customers)))

    def _change_foreign_customer(self, action: Action, customer: str) -> None:
        match action.values["how"]:
            case "subscribe":
                self._attach_method(action, customer)
                self._add_other_method(action, customer)
                self._subscribe(action, customer)
            case "invoice":
                self._invoice(action, customer)
            case "delete":
                self._delete(action, customer)
            case how:
                self._change_customer(action, customer, {"name": how})

    def _other_stack(self, action: Action) -> None:
        metadata = {USER_KEY: f"u-{action.user}", TOKEN_KEY: _OTHER_STACK}
        params = {"email": "a@example.com", "name": "Eve", "metadata": metadata}
        with self._stripe.operation(action.name) as double:
            # The customer must be known as foreign before its event is delivered.
            made = double.request("POST", "/v1/customers", params, AUTHORIZATION).body
            self.foreign.add(made["id"])

    def _move_metadata(self, action: Action, customer: str) -> None:
        """Move a customer's metadata to a new customer."""
        metadata = copy_json(self._account.customers[customer]["metadata"])
        params = {"email": "a@example.com", "name": "Eve", "metadata": metadata}
        with self._stripe.operation(action.name) as double:
            # The customer must be known as foreign before its event is delivered.
            made = double.request("POST", "/v1/customers", params, AUTHORIZATION).body
            self.foreign.add(made["id"])
            self.copies.add(made["id"])
            self.moved.add(customer)
        self._change_customer(action, customer, {"metadata": dict.fromkeys(metadata, "")})

    def _test_clock(self, action: Action, customer: str) -> None:
        with self._stripe.operation(action.name) as double:
            double.change_customer(customer, test_clock="clock_1", name="Tick")

    # ---- cards

    def _add_card(self, action: Action, customer: str) -> None:
        source = {"source": f"tok_{action.values['card']}"}
        card = self._ask(action, "POST", f"/v1/customers/{customer}/sources", source).get("id")
        if card and action.values["default"]:
            self._change_customer(action, customer, {"default_source": card})

    def _replace_card(self, action: Action, customer: str) -> None:
        self._change_customer(action, customer, {"source": f"tok_{action.values['card']}"})

    def _attach_method(self, action: Action, customer: str) -> None:
        path = f"/v1/payment_methods/pm_card_{action.values['card']}/attach"
        method = self._ask(action, "POST", path, {"customer": customer}).get("id")
        if method and action.values["default"]:
            self._set_default(action, customer, method)

    def _add_other_method(self, action: Action, customer: str) -> None:
        """Add a payment method other than a card, in one of its shapes."""
        source = {"bank_account": "btok_us_verified", "source": None}
        kind, as_default = action.values["type"], action.values["default"]
        if kind in source:
            token = source[kind] or self._ask(action, "POST", "/v1/sources", _SOURCE)["id"]
            path = f"/v1/customers/{customer}/sources"
            made = self._ask(action, "POST", path, {"source": token}).get("id")
            settings: Json = {"default_source": made}
        else:
            made = self._ask(action, "POST", "/v1/payment_methods", _METHODS[kind])["id"]
            path = f"/v1/payment_methods/{made}/attach"
            self._ask(action, "POST", path, {"customer": customer})
            settings = {"invoice_settings": {"default_payment_method": made}}
        if made and as_default:
            self._change_customer(action, customer, settings)

    def _remove_other_method(self, action: Action, customer: str) -> None:
        methods = [
            method["id"]
            for method in self._stripe.double.payment_methods.newest_first(customer)
            if method["type"] != "card"
        ]
        sources = [
            stripe_id
            for stripe_id in self._account.payment_sources.get(customer, {})
            if not stripe_id.startswith("card_")
        ]
        if methods:
            self._ask(action, "POST", f"/v1/payment_methods/{methods[0]}/detach")
        elif sources:
            path = f"/v1/customers/{customer}/sources/{sources[0]}"
            self._ask(action, "DELETE", path)

    def _change_entitlements(self, action: Action, customer: str) -> None:
        granted = self._account.entitlements.get(customer, {})
        feature = action.values["feature"]
        with self._stripe.operation(action.name) as double:
            if feature in granted:
                double.entitlements.revoke(customer, feature)
            else:
                double.entitlements.grant(customer, feature)

    def _enlarge_subscription(self, action: Action, subscription: str) -> None:
        discounts = [f"di_{number:08}" for number in range(action.values["discounts"])]
        with self._stripe.operation(action.name) as double:
            double.subscriptions.set_fields(subscription, discounts=discounts)

    def _change_card(self, action: Action, customer: str, card: str) -> None:
        month = action.values["month"]
        if card.startswith("card_"):
            path, params = f"/v1/customers/{customer}/sources/{card}", {"exp_month": month}
            self._ask(action, "POST", path, {**params, "name": f"name {month}"})
        else:
            params = {"card": {"exp_month": month}, "metadata": {"month": str(month)}}
            self._ask(action, "POST", f"/v1/payment_methods/{card}", params)

    def _remove_card(self, action: Action, customer: str, card: str) -> None:
        if card.startswith("card_"):
            self._ask(action, "DELETE", f"/v1/customers/{customer}/sources/{card}")
        else:
            self._ask(action, "POST", f"/v1/payment_methods/{card}/detach")

    def _set_default(self, action: Action, customer: str, card: str) -> None:
        if card.startswith("card_"):
            self._change_customer(action, customer, {"default_source": card})
        else:
            settings = {"invoice_settings": {"default_payment_method": card}}
            self._change_customer(action, customer, settings)

    def _set_subscription_default(self, action: Action, customer: str, card: str) -> None:
        subscription = self._subscription(action, customer)
        if subscription is not None:
            shape = "source" if card.startswith("card_") else "payment_method"
            path = f"/v1/subscriptions/{subscription}"
            self._ask(action, "POST", path, {f"default_{shape}": card})

    # ---- subscriptions

    def _price(self, action: Action) -> str:
        if not self._account.prices:
            product = self._ask(action, "POST", "/v1/products", {"name": "Tea"})["id"]
            self._ask(action, "POST", "/v1/prices", {**_PRICE, "product": product})
        return str(next(iter(self._account.prices)))

    def _subscribe(self, action: Action, customer: str) -> None:
        params: Json = {"customer": customer, "items": [{"price": self._price(action)}]}
        match action.values["how"]:
            case "trial":
                params["trial_period_days"] = 7
            case "invoice":
                params |= {"collection_method": "send_invoice", "days_until_due": 7}
            case "incomplete":
                params["payment_behavior"] = "default_incomplete"
        self._ask(action, "POST", "/v1/subscriptions", params)

    def _change_subscription(self, action: Action, subscription: str) -> None:
        number = action.values["number"]
        item = self._account.subscription_items[subscription][0]["id"]
        params: dict[str, Json] = {
            "quantity": {"items": [{"id": item, "quantity": number}]},
            "metadata": {"metadata": {"number": str(number)}},
            "pause": {"pause_collection": {"behavior": "void"}},
            "unpause": {"pause_collection": ""},
            "end": {"cancel_at_period_end": True},
            "item": {"items": [{"price": self._price(action), "quantity": number}]},
        }
        path = f"/v1/subscriptions/{subscription}"
        self._ask(action, "POST", path, params[action.values["how"]])

    def _subscription_status(self, action: Action, subscription: str) -> None:
        with self._stripe.operation(action.name) as double:
            match action.values["status"]:
                case "renew":
                    double.subscriptions.advance_period(subscription)
                case "trial_end":
                    double.subscriptions.announce_trial_end(subscription)
                case status:
                    double.subscriptions.set_status(subscription, status)

    def _cancel_subscription(self, action: Action, subscription: str) -> None:
        self._ask(action, "DELETE", f"/v1/subscriptions/{subscription}")

    def _change_tax_ids(self, action: Action, customer: str) -> None:
        path, how = f"/v1/customers/{customer}/tax_ids", action.values["how"]
        ids = list(self._account.tax_ids.get(customer, {}))
        if how == "add":
            self._ask(action, "POST", path, {"type": "eu_vat", "value": f"DE{len(ids):09}"})
        elif ids:
            tax_id = ids[action.values["which"] % len(ids)]
            if how == "remove":
                self._ask(action, "DELETE", f"{path}/{tax_id}")
            else:
                with self._stripe.operation(action.name) as double:
                    double.tax_ids.verify(customer, tax_id, how)

    def _checkout(self, action: Action, customer: str) -> None:
        with self._stripe.operation(action.name) as double:
            double.complete_checkout_session(customer)

    # ---- events that change no record

    def _invoice(self, action: Action, customer: str) -> None:
        invoice = {"object": "invoice", "customer": customer, "customer_email": "a@example.com"}
        with self._stripe.operation(action.name) as double:
            item = {**invoice, "object": "invoiceitem", "id": double.account.new_id("ii")}
            double.account.emit("invoiceitem.created", item)
            double.account.emit("invoice.paid", {**invoice, "id": double.account.new_id("in")})

    # ---- events that must not be applied

    def _crafted(self, action: Action, customer: str) -> None:
        """Post an event about the user's customer with a payload that is not true."""
        subject = {**copy_json(self._account.customers[customer]), "email": FOREIGN_EMAIL}
        random = chance(self._seed, action.name)
        event = {
            **copy_json(next(reversed(self._account.events.values()))),
            "id": f"evt_{action.kind}{random.getrandbits(64):016x}",
            "created": self._account.now(),
            "data": {"object": subject, "previous_attributes": {"email": None}},
            "type": action.values["type"],
        }
        secret = SECRET
        match action.kind:
            case "other_mode":
                event["livemode"] = subject["livemode"] = True
            case "other_account":
                event["account"] = "acct_other"
            case "forged":
                secret = "whsec_forged"  # noqa: S105 - a wrong secret on purpose
        self.crafted[event["id"]] = action.kind
        body = json.dumps(event).encode()
        headers = {"Stripe-Signature": sign(body, secret, self._account.clock())}
        statuses = self.statuses.setdefault(event["id"], [])
        self._deliveries.send(
            action.name, body, headers, lambda outcome: statuses.append(outcome.status)
        )


_ON_ACCOUNT: dict[str, Callable[[StripeActor, Action], None]] = {
    "unrelated_customer": StripeActor._unrelated_customer,
    "existing_customer": StripeActor._existing_customer,
    "name_user": StripeActor._name_user,
    "change_prior": StripeActor._change_prior,
    "other_stack": StripeActor._other_stack,
    "foreign_burst": StripeActor._foreign_burst,
}
_ON_CUSTOMER: dict[str, Callable[[StripeActor, Action, str], None]] = {
    "update": StripeActor._update,
    "back_and_forth": StripeActor._back_and_forth,
    "delete": StripeActor._delete,
    "move_metadata": StripeActor._move_metadata,
    "test_clock": StripeActor._test_clock,
    "add_card": StripeActor._add_card,
    "replace_card": StripeActor._replace_card,
    "attach_method": StripeActor._attach_method,
    "add_other_method": StripeActor._add_other_method,
    "remove_other_method": StripeActor._remove_other_method,
    "change_entitlements": StripeActor._change_entitlements,
    "subscribe": StripeActor._subscribe,
    "change_tax_ids": StripeActor._change_tax_ids,
    "checkout": StripeActor._checkout,
    "invoice": StripeActor._invoice,
    "other_mode": StripeActor._crafted,
    "other_account": StripeActor._crafted,
    "forged": StripeActor._crafted,
}
_ON_CARD: dict[str, Callable[[StripeActor, Action, str, str], None]] = {
    "change_card": StripeActor._change_card,
    "remove_card": StripeActor._remove_card,
    "set_default": StripeActor._set_default,
    "set_subscription_default": StripeActor._set_subscription_default,
}
_ON_SUBSCRIPTION: dict[str, Callable[[StripeActor, Action, str], None]] = {
    "change_subscription": StripeActor._change_subscription,
    "subscription_status": StripeActor._subscription_status,
    "cancel_subscription": StripeActor._cancel_subscription,
    "enlarge_subscription": StripeActor._enlarge_subscription,
}
ACTIONS = {*_ON_ACCOUNT, *_ON_CUSTOMER, *_ON_CARD, *_ON_SUBSCRIPTION}
"""Kinds of action that a `StripeActor` carries out."""
