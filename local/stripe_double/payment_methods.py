"""PaymentMethods ``pm_…`` of every type, and Card sources as PaymentMethods."""

from __future__ import annotations

from . import cards, defaults, payment_method_types
from . import params as p
from .account import Account, copy_json
from .cards import Cards
from .errors import Json, card_declined, invalid, no_such
from .listing import page
from .payment_sources import PaymentSources

_BILLING_DETAILS = p.hash_of(
    {
        "address": p.hash_of(p.ADDRESS),
        "email": p.email(),
        "name": p.string(),
        "phone": p.string(),
        "tax_id": p.string(),
    }
)
_KINDS = ("card", *payment_method_types.TYPES)
_REDISPLAY = p.choice("always", "limited", "unspecified")
CREATE = {
    "allow_redisplay": _REDISPLAY,
    "billing_details": _BILLING_DETAILS,
    "metadata": p.metadata(),
    "type": p.choice(*_KINDS).needed(),
    # Read when the type is known: only the hash of this type may be given.
    **dict.fromkeys(_KINDS, p.free()),
}
UPDATE = {
    "allow_redisplay": _REDISPLAY,
    "billing_details": _BILLING_DETAILS,
    "card": cards.METHOD_UPDATE,
    "metadata": p.metadata(),
}
CUSTOMER_LIST = {**p.PAGE, "allow_redisplay": _REDISPLAY, "type": p.string().fixed()}
LIST = {**CUSTOMER_LIST, "customer": p.string().fixed()}
ATTACH = {"customer": p.string().fixed().needed()}


class PaymentMethods:
    """The PaymentMethods of an account, attached to a customer or not."""

    def __init__(self, account: Account, cards: Cards, payment_sources: PaymentSources) -> None:
        self._account = account
        self._cards = cards
        self._sources = payment_sources

    def create(self, given: Json) -> Json:
        """POST /v1/payment_methods: a card by ``card[token]``."""
        kind = given.pop("type")
        _check_kind(kind, given)
        type_hash = given.pop(kind, None) or {}
        if kind == "card":
            token = p.read(cards.METHOD_CREATE, type_hash, kind)["token"]
            method = self._cards.new_method(self._cards.token(token, "card[token]"))
        else:
            details = p.read(payment_method_types.TYPES[kind].params, type_hash, kind)
            email = (given.get("billing_details") or {}).get("email")
            method = payment_method_types.new(self._account, kind, details, email)
        self._store(method)
        _change(method, given)
        result: Json = copy_json(method)
        return result

    def retrieve(self, _: Json, method: str) -> Json:
        """GET /v1/payment_methods/{id}."""
        result: Json = copy_json(self.find(method))
        return result

    def retrieve_of_customer(self, _: Json, customer: str, method: str) -> Json:
        """GET /v1/customers/{id}/payment_methods/{id}."""
        self._account.customer(customer)
        found = self.find(method)
        if found["customer"] != customer:
            raise no_such("PaymentMethod", method)
        result: Json = copy_json(found)
        return result

    def update(self, given: Json, method: str) -> Json:
        """POST /v1/payment_methods/{id}."""
        found = self.find(method)
        _check_kind(found["type"], given)
        before = copy_json(found)
        _change(found, given)
        self._account.emit_change("payment_method.updated", before, found)
        result: Json = copy_json(found)
        return result

    def attach(self, given: Json, method: str) -> Json:
        """POST /v1/payment_methods/{id}/attach.

        On Stripe some types are only attached by a confirmed SetupIntent, of which the double has
        none: it attaches every type.
        """
        customer = self._account.customer(given["customer"], "customer")
        found = self.usable(method, "payment_method", customer["id"])
        result: Json = copy_json(self.add(customer, found))
        return result

    def usable(self, identifier: str, param: str, customer: str | None) -> Json:
        """Return a PaymentMethod that can be attached to this customer, or raise ``ApiError``."""
        if identifier.startswith("pm_card_") and identifier in self._cards.tokens:
            return self._store(self._cards.new_method(self._cards.accepted(identifier, param)))
        if identifier in payment_method_types.TEST_IDS:
            bank_account = dict(payment_method_types.TEST_BANK_ACCOUNT)
            return self._store(
                payment_method_types.new(self._account, "us_bank_account", bank_account)
            )
        method = self.find(identifier, param)
        if method["customer"] is not None:
            if method["customer"] == customer:
                return method
            raise invalid("The PaymentMethod is already attached to another customer.", param)
        if identifier in self._account.used_payment_methods:
            raise invalid("A PaymentMethod that was detached can't be attached again.", param)
        if identifier in self._account.decline_codes:
            raise card_declined(self._account.decline_codes[identifier])
        return method

    def add(self, customer: Json, method: Json) -> Json:
        """Attach a PaymentMethod from `usable`; an attached one stays as it is."""
        if method["customer"] is None:
            method["customer"] = customer["id"]
            self._account.used_payment_methods.add(method["id"])
            self._account.payment_methods_of.setdefault(customer["id"], []).append(method["id"])
            self._account.emit("payment_method.attached", method)
        return method

    def detach(self, _: Json, method: str) -> Json:
        """POST /v1/payment_methods/{id}/detach."""
        found = self.find(method)
        if found["customer"] is None:
            raise invalid("The PaymentMethod isn't attached to a customer.", "payment_method")
        customer = self._account.customer(found["customer"])
        if found["id"].startswith("card_"):
            self._sources.remove(customer, found["id"])
            return {**found, "customer": None}
        self.remove(customer, found)
        result: Json = copy_json(found)
        return result

    def remove(self, customer: Json, method: Json) -> None:
        """Detach a PaymentMethod; it can't be attached again."""
        method["customer"] = None
        self._account.payment_methods_of[customer["id"]].remove(method["id"])
        self._account.emit("payment_method.detached", method, {"customer": customer["id"]})
        defaults.clear(self._account, customer, method["id"])

    def list_page(self, given: Json) -> Json:
        """GET /v1/payment_methods."""
        customer = given.get("customer")
        if customer is not None:
            self._account.customer(customer, "customer")
        return self._page(given, customer, "/v1/payment_methods")

    def list_of_customer(self, given: Json, customer: str) -> Json:
        """GET /v1/customers/{id}/payment_methods."""
        self._account.customer(customer)
        return self._page(given, customer, f"/v1/customers/{customer}/payment_methods")

    def newest_first(self, customer: str | None = None) -> list[Json]:
        """Return PaymentMethods, newest first, including Card sources as PaymentMethods."""
        account = self._account
        owners = account.payment_sources if customer is None else [customer]
        wrapped = [
            self._cards.as_payment_method(card)
            for owner in owners
            for card in self._sources.newest_first(owner, "card")[::-1]
        ]
        if customer is None:
            methods = list(account.payment_methods.values())
        else:
            methods = [
                account.payment_methods[key] for key in account.payment_methods_of.get(customer, [])
            ]
        ordered = sorted(wrapped + methods, key=lambda method: int(method["created"]))
        return [copy_json(method) for method in reversed(ordered)]

    def find(self, identifier: str, param: str | None = None) -> Json:
        """Return a PaymentMethod or a Card source as one, or raise ``resource_missing``."""
        found = self.get(identifier)
        if found is None:
            raise no_such("PaymentMethod", identifier, param)
        return found

    def get(self, identifier: str) -> Json | None:
        """Return a PaymentMethod or a Card source as one, or None."""
        if not identifier.startswith("card_"):
            return self._account.payment_methods.get(identifier)
        card = self._sources.get(identifier)
        return None if card is None else self._cards.as_payment_method(card)

    def belongs(self, identifier: str, customer: str) -> bool:
        """Return whether a PaymentMethod or a Card source is attached to a customer."""
        found = self.get(identifier)
        return found is not None and bool(found["customer"] == customer)

    def update_automatically(self, identifier: str, **fields: object) -> None:
        """Change a card as the card network does when it is renewed.

        Parameters
        ----------
        identifier
            ``card_…`` or ``pm_…``.
        fields
            ``exp_month``, ``exp_year``, ``last4``, ``fingerprint``.
        """
        method = self.find(identifier)
        if identifier.startswith("card_"):
            card = self._account.payment_sources[method["customer"]][identifier]
            before = copy_json(card)
            card.update(fields)
            self._sources.emit_change(before, card, "payment_method.automatically_updated")
            return
        before = copy_json(method)
        method["card"].update(fields)
        self._account.emit_change("payment_method.automatically_updated", before, method)

    def _store(self, method: Json) -> Json:
        method["created"] = self._account.now()
        self._account.payment_methods[method["id"]] = method
        return method

    def _page(self, given: Json, customer: str | None, url: str) -> Json:
        def listed(method: Json) -> bool:
            return all(
                method[field] == given.get(field, method[field])
                for field in ("allow_redisplay", "type")
            )

        return page(self.newest_first(customer), given, url, "PaymentMethod", listed)


def _check_kind(kind: str, given: Json) -> None:
    for other in _KINDS:
        if other in given and other != kind:
            raise invalid(f"A PaymentMethod of the type {kind} has no {other}.", other)


def _change(method: Json, given: Json) -> None:
    if "allow_redisplay" in given:
        method["allow_redisplay"] = given["allow_redisplay"]
    if "metadata" in given:
        method["metadata"] = p.merge_metadata(method["metadata"], given["metadata"])
    kind = method["type"]
    method[kind].update(given.get(kind) or {})
    details = dict(given.get("billing_details") or {})
    if "address" in details:
        address = details.pop("address") or dict.fromkeys(p.ADDRESS)
        method["billing_details"]["address"].update(address)
        if kind == "card":
            cards.check_address(method, address)
    method["billing_details"].update(details)
