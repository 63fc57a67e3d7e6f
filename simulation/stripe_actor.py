"""What others do on Stripe in a history: one function for each kind of action."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from local.stripe_double.account import copy_json
from local.stripe_double.webhooks import sign
from simulation.chance import chance
from simulation.deliveries import SECRET, Deliveries
from simulation.history import Action
from simulation.stripe_side import AUTHORIZATION, SimulatedStripe
from stripe_integrations.actions.creation import TOKEN_KEY, USER_KEY

Json = dict[str, Any]

FOREIGN_EMAIL = "foreign@example.com"
"""Stands in payloads that must never be applied."""
_OTHER_STACK = "a token of another stack"
_PRICE = {"currency": "eur", "unit_amount": "500", "recurring": {"interval": "month"}}


class StripeActor:
    """The dashboard, the shop and everybody else who uses the Stripe account.

    Parameters
    ----------
    seed : int
        The history's.
    stripe_side : SimulatedStripe
        What they use.
    deliveries : Deliveries
        Where crafted events are posted.

    Attributes
    ----------
    foreign : set of str
        Customers which this deployment did not make.
    crafted : dict
        What kind of thing that must not be applied a crafted event is, by its id.
    statuses : dict
        What a crafted event was answered with, each time that it was posted, by its id.
    """

    def __init__(self, seed: int, stripe_side: SimulatedStripe, deliveries: Deliveries) -> None:
        self._seed = seed
        self._stripe = stripe_side
        self._deliveries = deliveries
        self.foreign: set[str] = set()
        self.crafted: dict[str, str] = {}
        self.statuses: dict[str, list[int]] = {}

    @property
    def _account(self) -> Any:
        return self._stripe.double.account

    def do(self, action: Action) -> None:
        """Do it, as far as there is something to do it with."""
        ACTIONS[action.kind](self, action)

    def customer(self, action: Action) -> str | None:
        """The user's newest customer on Stripe that is not deleted."""
        owner = f"u-{action.user}"
        for stripe_id, customer in reversed(self._account.customers.items()):
            is_theirs = customer["metadata"].get(USER_KEY) == owner
            gone = stripe_id in self._account.deleted_customers or stripe_id in self.foreign
            if is_theirs and not gone:
                return str(stripe_id)
        return None

    def ask(self, action: Action, method: str, path: str, params: Json | None = None) -> Json:
        """Send one request; a refusal is an answer too."""
        answer = self._stripe.act(f"{action.name} {method} {path}", method, path, params)
        body: Json = answer.body
        return body

    # ---- customers

    def _update(self, action: Action) -> None:
        customer = self.customer(action)
        if customer:
            path = f"/v1/customers/{customer}"
            self.ask(action, "POST", path, {action.values["field"]: action.values["value"]})

    def _back_and_forth(self, action: Action) -> None:
        customer = self.customer(action)
        if customer is None:
            return
        path = f"/v1/customers/{customer}"
        name = self._account.customers[customer]["name"]
        self.ask(action, "POST", path, {"name": "Zoe"})
        self.ask(Action(f"{action.name}'", action.at, "", 0), "POST", path, {"name": name or ""})

    def _delete(self, action: Action) -> None:
        customer = self.customer(action)
        if customer:
            self.ask(action, "DELETE", f"/v1/customers/{customer}")

    def _stranger(self, action: Action) -> None:
        made = self.ask(action, "POST", "/v1/customers", {"email": "a@example.com", "name": "Eve"})
        self.foreign.add(made["id"])

    def _other_stack(self, action: Action) -> None:
        metadata = {USER_KEY: f"u-{action.user}", TOKEN_KEY: _OTHER_STACK}
        params = {"email": "a@example.com", "name": "Eve", "metadata": metadata}
        with self._stripe.operation(action.name) as double:
            # Known as another's before its event is under way.
            made = double.request("POST", "/v1/customers", params, AUTHORIZATION).body
            self.foreign.add(made["id"])

    def _test_clock(self, action: Action) -> None:
        customer = self.customer(action)
        if customer:
            with self._stripe.operation(action.name) as double:
                double.change_customer(customer, test_clock="clock_1", name="Tick")

    # ---- cards

    def _add_card(self, action: Action) -> None:
        customer = self.customer(action)
        if customer:
            path = f"/v1/customers/{customer}"
            source = {"source": f"tok_{action.values['card']}"}
            card = self.ask(action, "POST", f"{path}/sources", source).get("id")
            if card and action.values["default"]:
                self.ask(action, "POST", path, {"default_source": card})

    def _replace_card(self, action: Action) -> None:
        customer = self.customer(action)
        if customer:
            path = f"/v1/customers/{customer}"
            self.ask(action, "POST", path, {"source": f"tok_{action.values['card']}"})

    def _attach_method(self, action: Action) -> None:
        customer = self.customer(action)
        if customer is None:
            return
        path = f"/v1/payment_methods/pm_card_{action.values['card']}/attach"
        method = self.ask(action, "POST", path, {"customer": customer}).get("id")
        if method and action.values["default"]:
            settings = {"default_payment_method": method}
            self.ask(action, "POST", f"/v1/customers/{customer}", {"invoice_settings": settings})

    def _a_card(self, action: Action) -> tuple[str, str] | None:
        customer = self.customer(action)
        if customer is None:
            return None
        methods = self._stripe.double.cards.methods(customer)
        return (customer, methods[action.values["which"] % len(methods)]["id"]) if methods else None

    def _change_card(self, action: Action) -> None:
        found = self._a_card(action)
        if found is None:
            return
        customer, card = found
        month = action.values["month"]
        if card.startswith("card_"):
            path, params = f"/v1/customers/{customer}/sources/{card}", {"exp_month": month}
            self.ask(action, "POST", path, {**params, "name": f"name {month}"})
        else:
            params = {"card": {"exp_month": month}, "metadata": {"month": str(month)}}
            self.ask(action, "POST", f"/v1/payment_methods/{card}", params)

    def _remove_card(self, action: Action) -> None:
        found = self._a_card(action)
        if found is None:
            return
        customer, card = found
        if card.startswith("card_"):
            self.ask(action, "DELETE", f"/v1/customers/{customer}/sources/{card}")
        else:
            self.ask(action, "POST", f"/v1/payment_methods/{card}/detach")

    def _set_default(self, action: Action) -> None:
        found = self._a_card(action)
        if found is None:
            return
        customer, card = found
        if card.startswith("card_"):
            self.ask(action, "POST", f"/v1/customers/{customer}", {"default_source": card})
        else:
            settings = {"invoice_settings": {"default_payment_method": card}}
            self.ask(action, "POST", f"/v1/customers/{customer}", settings)

    def _set_subscription_default(self, action: Action) -> None:
        found, subscription = self._a_card(action), self._a_subscription(action)
        if found is None or subscription is None:
            return
        _, card = found
        shape = "source" if card.startswith("card_") else "payment_method"
        path = f"/v1/subscriptions/{subscription}"
        self.ask(action, "POST", path, {f"default_{shape}": card})

    # ---- subscriptions

    def _price(self, action: Action) -> str:
        if not self._account.prices:
            product = self.ask(action, "POST", "/v1/products", {"name": "Tea"})["id"]
            self.ask(action, "POST", "/v1/prices", {**_PRICE, "product": product})
        return str(next(iter(self._account.prices)))

    def _subscribe(self, action: Action) -> None:
        customer = self.customer(action)
        if customer is None:
            return
        params: Json = {"customer": customer, "items": [{"price": self._price(action)}]}
        match action.values["how"]:
            case "trial":
                params["trial_period_days"] = 7
            case "invoice":
                params |= {"collection_method": "send_invoice", "days_until_due": 7}
            case "incomplete":
                params["payment_behavior"] = "default_incomplete"
        self.ask(action, "POST", "/v1/subscriptions", params)

    def _a_subscription(self, action: Action) -> str | None:
        customer = self.customer(action)
        ids = self._account.subscriptions_of.get(customer or "", [])
        living = [i for i in ids if self._account.subscriptions[i]["ended_at"] is None]
        return str(living[action.values["which"] % len(living)]) if living else None

    def _change_subscription(self, action: Action) -> None:
        found = self._a_subscription(action)
        if found is None:
            return
        number = action.values["number"]
        item = self._account.subscription_items[found][0]["id"]
        params: dict[str, Json] = {
            "quantity": {"items": [{"id": item, "quantity": number}]},
            "metadata": {"metadata": {"number": str(number)}},
            "pause": {"pause_collection": {"behavior": "void"}},
            "unpause": {"pause_collection": ""},
            "end": {"cancel_at_period_end": True},
            "item": {"items": [{"price": self._price(action), "quantity": number}]},
        }
        self.ask(action, "POST", f"/v1/subscriptions/{found}", params[action.values["how"]])

    def _subscription_status(self, action: Action) -> None:
        found = self._a_subscription(action)
        if found is None:
            return
        with self._stripe.operation(action.name) as double:
            match action.values["status"]:
                case "renew":
                    double.subscriptions.advance_period(found)
                case "trial_end":
                    double.subscriptions.announce_trial_end(found)
                case status:
                    double.subscriptions.set_status(found, status)

    def _cancel_subscription(self, action: Action) -> None:
        found = self._a_subscription(action)
        if found:
            self.ask(action, "DELETE", f"/v1/subscriptions/{found}")

    def _checkout(self, action: Action) -> None:
        customer = self.customer(action)
        if customer:
            with self._stripe.operation(action.name) as double:
                double.complete_checkout_session(customer)

    # ---- what must not be applied

    def _crafted(self, action: Action) -> None:
        """Post an event about the user's customer that says what is not so."""
        customer = self.customer(action)
        if customer is None:
            return
        subject = {**copy_json(self._account.customers[customer]), "email": FOREIGN_EMAIL}
        random = chance(self._seed, action.name)
        event: Json = {
            "id": f"evt_{action.kind}{random.getrandbits(64):016x}",
            "object": "event",
            "api_version": self._account.api_version,
            "created": self._account.now(),
            "data": {"object": subject, "previous_attributes": {"email": None}},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": action.values["type"],
        }
        secret = SECRET
        match action.kind:
            case "other_mode":
                event["livemode"] = subject["livemode"] = True
            case "other_account":
                event["account"] = "acct_other"
            case "forged":
                secret = "whsec_forged"  # noqa: S105 - that it is a wrong one is the point
        self.crafted[event["id"]] = action.kind
        body = json.dumps(event).encode()
        headers = {"Stripe-Signature": sign(body, secret, self._account.clock())}
        statuses = self.statuses.setdefault(event["id"], [])
        self._deliveries.send(
            action.name, body, headers, lambda outcome: statuses.append(outcome.status)
        )


ACTIONS: dict[str, Callable[[StripeActor, Action], None]] = {
    "update": StripeActor._update,
    "back_and_forth": StripeActor._back_and_forth,
    "delete": StripeActor._delete,
    "stranger": StripeActor._stranger,
    "other_stack": StripeActor._other_stack,
    "test_clock": StripeActor._test_clock,
    "add_card": StripeActor._add_card,
    "replace_card": StripeActor._replace_card,
    "attach_method": StripeActor._attach_method,
    "change_card": StripeActor._change_card,
    "remove_card": StripeActor._remove_card,
    "set_default": StripeActor._set_default,
    "set_subscription_default": StripeActor._set_subscription_default,
    "subscribe": StripeActor._subscribe,
    "change_subscription": StripeActor._change_subscription,
    "subscription_status": StripeActor._subscription_status,
    "cancel_subscription": StripeActor._cancel_subscription,
    "checkout": StripeActor._checkout,
    "other_mode": StripeActor._crafted,
    "other_account": StripeActor._crafted,
    "forged": StripeActor._crafted,
}
