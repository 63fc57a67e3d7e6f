"""Cards in both shapes: the Card source ``card_…`` and the PaymentMethod ``pm_…``."""

from __future__ import annotations

from datetime import UTC, datetime

from . import params as p
from .account import Account, copy_json
from .errors import Json, card_declined, invalid, no_such
from .listing import page
from .tokens import SOURCE_BRANDS, TEST_CARDS, TestCard

_SOURCE_FIELDS = {
    key: p.string()
    for key in (
        "address_city",
        "address_country",
        "address_line1",
        "address_line2",
        "address_state",
        "address_zip",
        "name",
    )
}
SOURCE_LIST = {**p.PAGE, "object": p.string().fixed()}
SOURCE_CREATE = {
    "metadata": p.metadata(),
    "source": p.string().fixed().needed(),
    "validate": p.boolean(),
}
SOURCE_UPDATE = {
    **_SOURCE_FIELDS,
    "exp_month": p.integer(1, 12),
    "exp_year": p.integer(1970),
    "metadata": p.metadata(),
}
_BILLING_DETAILS = p.hash_of(
    {
        "address": p.hash_of(p.ADDRESS),
        "email": p.email(),
        "name": p.string(),
        "phone": p.string(),
        "tax_id": p.string(),
    }
)
_REDISPLAY = p.choice("always", "limited", "unspecified")
METHOD_CREATE = {
    "allow_redisplay": _REDISPLAY,
    "billing_details": _BILLING_DETAILS,
    "card": p.hash_of({"token": p.string().fixed().needed()}).needed(),
    "metadata": p.metadata(),
    "type": p.choice("card").needed(),
}
METHOD_UPDATE = {
    "allow_redisplay": _REDISPLAY,
    "billing_details": _BILLING_DETAILS,
    "card": p.hash_of({"exp_month": p.integer(1, 12), "exp_year": p.integer(1970)}),
    "metadata": p.metadata(),
}
METHOD_LIST = {
    **p.PAGE,
    "allow_redisplay": _REDISPLAY,
    "customer": p.string().fixed(),
    "type": p.string().fixed(),
}
CUSTOMER_METHOD_LIST = {key: METHOD_LIST[key] for key in METHOD_LIST if key != "customer"}
METHOD_ATTACH = {"customer": p.string().fixed().needed()}


class Cards:
    """The cards of an account, attached to a customer or not."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.tokens: dict[str, TestCard] = dict(TEST_CARDS)

    def token(self, name: str, param: str) -> TestCard:
        """Return the card of a token, or raise ``resource_missing``."""
        if name not in self.tokens:
            raise no_such("token", name, param)
        return self.tokens[name]

    def accepted(self, name: str, param: str) -> TestCard:
        """Return the card of a token, or raise 402 if its issuer declines it."""
        card = self.token(name, param)
        if card.decline_code is not None:
            raise card_declined(card.decline_code)
        return card

    # Sources.

    def add_source(self, customer: Json, card: TestCard, metadata: Json | None) -> Json:
        """Attach a new Card source; the first becomes the customer's default."""
        account = self._account
        source = self._new_card(card, customer["id"], metadata or {})
        account.cards.setdefault(customer["id"], {})[source["id"]] = source
        account.card_created[source["id"]] = account.now()
        account.card_owner[source["id"]] = customer["id"]
        if card.fails_later:
            account.failing_cards.add(source["id"])
        account.emit("customer.source.created", source)
        account.emit("payment_method.attached", self.as_payment_method(source))
        if customer["default_source"] is None:
            before = copy_json(customer)
            customer["default_source"] = source["id"]
            account.emit_change("customer.updated", before, customer)
        return source

    def create_source(self, given: Json, customer: str) -> Json:
        """POST /v1/customers/{id}/sources."""
        owner = self._account.customer(customer)
        card = self.accepted(given["source"], "source")
        metadata = p.merge_metadata({}, given.get("metadata"))
        source: Json = copy_json(self.add_source(owner, card, metadata))
        return source

    def retrieve_source(self, _: Json, customer: str, source: str) -> Json:
        """GET /v1/customers/{id}/sources/{id}."""
        result: Json = copy_json(self._source(customer, source))
        return result

    def update_source(self, given: Json, customer: str, source: str) -> Json:
        """POST /v1/customers/{id}/sources/{id}."""
        card = self._source(customer, source)
        before = copy_json(card)
        if "metadata" in given:
            metadata = given.pop("metadata")
            card["metadata"] = p.merge_metadata(card["metadata"], metadata)
        card.update(given)
        for field in ("address_line1", "address_zip"):
            if field in given:
                card[f"{field}_check"] = None if given[field] is None else "pass"
        self._emit_source_change(before, card)
        result: Json = copy_json(card)
        return result

    def delete_source(self, _: Json, customer: str, source: str) -> Json:
        """DELETE /v1/customers/{id}/sources/{id}."""
        self._source(customer, source)
        self.remove_source(self._account.customer(customer), source)
        return {"id": source, "object": "card", "deleted": True}

    def remove_source(self, customer: Json, source: str) -> None:
        """Remove a Card from its customer; the newest other one becomes the default."""
        account = self._account
        cards = account.cards[customer["id"]]
        card = cards.pop(source)
        del account.card_owner[source]
        account.emit("customer.source.deleted", card)
        wrapped = self.as_payment_method(card)
        account.emit(
            "payment_method.detached", {**wrapped, "customer": None}, {"customer": customer["id"]}
        )
        if customer["default_source"] == source:
            before = copy_json(customer)
            customer["default_source"] = next(reversed(cards), None)
            self._emit_lost_default("customer.updated", before, customer)
        self._unset_default(customer, source)

    def list_sources(self, given: Json, customer: str) -> Json:
        """GET /v1/customers/{id}/sources."""
        self._account.customer(customer)
        entries = self.sources(customer, given.get("object"))
        return page(entries, given, f"/v1/customers/{customer}/sources", "source")

    def sources(self, customer: str, kind: str | None = None) -> list[Json]:
        """Return a customer's Card sources, newest first."""
        cards = [] if kind not in (None, "card") else self._account.cards.get(customer, {}).values()
        return [copy_json(card) for card in reversed(list(cards))]

    # PaymentMethods.

    def create_method(self, given: Json) -> Json:
        """POST /v1/payment_methods, with ``card[token]``."""
        method = self._new_method(self.token(given.pop("card")["token"], "card[token]"))
        _change_method(method, given)
        result: Json = copy_json(method)
        return result

    def retrieve_method(self, _: Json, method: str) -> Json:
        """GET /v1/payment_methods/{id}."""
        result: Json = copy_json(self.method(method))
        return result

    def retrieve_customer_method(self, _: Json, customer: str, method: str) -> Json:
        """GET /v1/customers/{id}/payment_methods/{id}."""
        self._account.customer(customer)
        found = self.method(method)
        if found["customer"] != customer:
            raise no_such("PaymentMethod", method)
        result: Json = copy_json(found)
        return result

    def update_method(self, given: Json, method: str) -> Json:
        """POST /v1/payment_methods/{id}."""
        found = self.method(method)
        before = copy_json(found)
        _change_method(found, given)
        self._account.emit_change("payment_method.updated", before, found)
        result: Json = copy_json(found)
        return result

    def attach(self, given: Json, method: str) -> Json:
        """POST /v1/payment_methods/{id}/attach."""
        customer = self._account.customer(given["customer"], "customer")
        found = self.usable_method(method, "payment_method", customer["id"])
        result: Json = copy_json(self.attach_method(customer, found))
        return result

    def usable_method(self, identifier: str, param: str, customer: str | None) -> Json:
        """Return a PaymentMethod that can be attached to this customer, or raise ``ApiError``."""
        card = self.tokens.get(identifier)
        if identifier.startswith("pm_card_") and card is not None:
            if card.decline_code is not None:
                raise card_declined(card.decline_code)
            return self._new_method(card)
        method = self.method(identifier, param)
        if method["customer"] is not None:
            if method["customer"] == customer:
                return method
            raise invalid("The PaymentMethod is already attached to another customer.", param)
        if identifier in self._account.used_payment_methods:
            raise invalid("A PaymentMethod that was detached can't be attached again.", param)
        if identifier in self._account.decline_codes:
            raise card_declined(self._account.decline_codes[identifier])
        return method

    def attach_method(self, customer: Json, method: Json) -> Json:
        """Attach a PaymentMethod from `usable_method`; an attached one stays as it is."""
        if method["customer"] is None:
            method["customer"] = customer["id"]
            self._account.used_payment_methods.add(method["id"])
            self._account.payment_methods_of.setdefault(customer["id"], []).append(method["id"])
            self._account.emit("payment_method.attached", method)
        return method

    def detach(self, _: Json, method: str) -> Json:
        """POST /v1/payment_methods/{id}/detach."""
        found = self.method(method)
        if found["customer"] is None:
            raise invalid("The PaymentMethod isn't attached to a customer.", "payment_method")
        customer = self._account.customer(found["customer"])
        if found["id"].startswith("card_"):
            self.remove_source(customer, found["id"])
            return {**found, "customer": None}
        self.remove_method(customer, found)
        result: Json = copy_json(found)
        return result

    def remove_method(self, customer: Json, method: Json) -> None:
        """Detach a PaymentMethod; it can't be attached again."""
        method["customer"] = None
        self._account.payment_methods_of[customer["id"]].remove(method["id"])
        self._account.emit("payment_method.detached", method, {"customer": customer["id"]})
        self._unset_default(customer, method["id"])

    def list_methods(self, given: Json, url: str = "/v1/") -> Json:
        """GET /v1/payment_methods, or GET /v1/customers/{id}/payment_methods."""
        customer = given.get("customer")
        if customer is not None:
            by_path = url != "/v1/"
            self._account.customer(customer, None if by_path else "customer")

        def listed(method: Json) -> bool:
            return all(
                method[field] == given.get(field, method[field])
                for field in ("allow_redisplay", "type")
            )

        entries = self.methods(customer)
        return page(entries, given, f"{url}payment_methods", "PaymentMethod", listed)

    def methods(self, customer: str | None = None) -> list[Json]:
        """Return PaymentMethods, newest first, including Card sources as PaymentMethods."""
        account = self._account
        owners = account.cards if customer is None else [customer]
        wrapped = [
            self.as_payment_method(card)
            for owner in owners
            for card in account.cards.get(owner, {}).values()
        ]
        if customer is None:
            methods = list(account.payment_methods.values())
        else:
            methods = [
                account.payment_methods[key] for key in account.payment_methods_of.get(customer, [])
            ]
        ordered = sorted(wrapped + methods, key=lambda method: int(method["created"]))
        return [copy_json(method) for method in reversed(ordered)]

    def method(self, identifier: str, param: str | None = None) -> Json:
        """Return a PaymentMethod or a Card source as one, or raise ``resource_missing``."""
        if identifier in self._account.payment_methods:
            return self._account.payment_methods[identifier]
        owner = self._account.card_owner.get(identifier)
        if owner is not None:
            return self.as_payment_method(self._account.cards[owner][identifier])
        raise no_such("PaymentMethod", identifier, param)

    def belongs(self, identifier: str, customer: str) -> bool:
        """Return whether a card of either shape is attached to a customer."""
        return identifier in self._account.cards.get(
            customer, {}
        ) or identifier in self._account.payment_methods_of.get(customer, [])

    def update_automatically(self, identifier: str, **fields: object) -> None:
        """Change a card as the card network does when it is renewed.

        Parameters
        ----------
        identifier
            ``card_…`` or ``pm_…``.
        fields
            ``exp_month``, ``exp_year``, ``last4``, ``fingerprint``.
        """
        method = self.method(identifier)
        if identifier.startswith("card_"):
            card = self._source(method["customer"], identifier)
            before = copy_json(card)
            card.update(fields)
            self._emit_source_change(before, card, "payment_method.automatically_updated")
            return
        before = copy_json(method)
        method["card"].update(fields)
        self._account.emit_change("payment_method.automatically_updated", before, method)

    def as_payment_method(self, card: Json) -> Json:
        """Return the PaymentMethod as which Stripe also returns a Card source."""
        brands = {source: brand for brand, source in SOURCE_BRANDS.items()}
        method = self._method_shape(brands[card["brand"]], card)
        method["id"] = card["id"]
        method["created"] = self._account.card_created[card["id"]]
        method["customer"] = card["customer"]
        method["metadata"] = dict(card["metadata"])
        return method

    def _source(self, customer: str, source: str) -> Json:
        self._account.customer(customer)
        cards = self._account.cards.get(customer, {})
        if source not in cards:
            raise no_such("source", source)
        return cards[source]

    def _unset_default(self, customer: Json, method: str) -> None:
        account = self._account
        if customer["invoice_settings"]["default_payment_method"] == method:
            before = copy_json(customer)
            customer["invoice_settings"]["default_payment_method"] = None
            self._emit_lost_default("customer.updated", before, customer)
        for identifier in account.subscriptions_of.get(customer["id"], []):
            subscription = account.subscriptions[identifier]
            if subscription["ended_at"] is not None:
                continue
            before = account.render_subscription(identifier)
            for field in ("default_payment_method", "default_source"):
                if subscription[field] == method:
                    subscription[field] = None
            after = account.render_subscription(identifier)
            self._emit_lost_default("customer.subscription.updated", before, after)

    def _emit_lost_default(self, event_type: str, before: Json, after: Json) -> None:
        if self._account.emits_lost_defaults:
            self._account.emit_change(event_type, before, after)

    def _emit_source_change(
        self, before: Json, card: Json, method_event: str = "payment_method.updated"
    ) -> None:
        self._account.emit_change("customer.source.updated", before, card)
        self._account.emit_change(
            method_event, self.as_payment_method(before), self.as_payment_method(card)
        )

    def _new_card(self, card: TestCard, customer: str, metadata: Json) -> Json:
        today = datetime.fromtimestamp(self._account.now(), UTC)
        return {
            "id": self._account.new_id("card"),
            "object": "card",
            "address_city": None,
            "address_country": None,
            "address_line1": None,
            "address_line1_check": None,
            "address_line2": None,
            "address_state": None,
            "address_zip": None,
            "address_zip_check": None,
            "brand": SOURCE_BRANDS[card.brand],
            "country": card.country,
            "customer": customer,
            "cvc_check": "pass",
            "dynamic_last4": None,
            "exp_month": today.month,
            "exp_year": today.year + 1,
            "fingerprint": card.fingerprint,
            "funding": card.funding,
            "last4": card.last4,
            "metadata": metadata,
            "name": None,
            "regulated_status": "unregulated",
            "tokenization_method": None,
            **card.fields,
        }

    def _new_method(self, card: TestCard) -> Json:
        account = self._account
        method = self._method_shape(card.brand, self._new_card(card, "", {}))
        method["id"] = account.new_id("pm")
        method["created"] = account.now()
        account.payment_methods[method["id"]] = method
        if card.decline_code is not None:
            account.decline_codes[method["id"]] = card.decline_code
        if card.fails_later:
            account.failing_cards.add(method["id"])
        return method

    def _method_shape(self, brand: str, card: Json) -> Json:
        wallet = None
        if card["tokenization_method"] is not None:
            wallet = {"dynamic_last4": card["dynamic_last4"], "type": card["tokenization_method"]}
        return {
            "id": None,
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {
                "address": {
                    "city": card["address_city"],
                    "country": card["address_country"],
                    "line1": card["address_line1"],
                    "line2": card["address_line2"],
                    "postal_code": card["address_zip"],
                    "state": card["address_state"],
                },
                "email": None,
                "name": card["name"],
                "phone": None,
                "tax_id": None,
            },
            "card": {
                "brand": brand,
                "checks": {
                    "address_line1_check": card["address_line1_check"],
                    "address_postal_code_check": card["address_zip_check"],
                    "cvc_check": card["cvc_check"],
                },
                "country": card["country"],
                "display_brand": brand,
                "exp_month": card["exp_month"],
                "exp_year": card["exp_year"],
                "fingerprint": card["fingerprint"],
                "funding": card["funding"],
                "generated_from": None,
                "last4": card["last4"],
                "networks": {"available": [brand], "preferred": None},
                "regulated_status": card["regulated_status"],
                "three_d_secure_usage": {"supported": True},
                "wallet": wallet,
            },
            "created": None,
            "customer": None,
            "customer_account": None,
            "livemode": self._account.livemode,
            "metadata": {},
            "type": "card",
        }


def _change_method(method: Json, given: Json) -> None:
    if "allow_redisplay" in given:
        method["allow_redisplay"] = given["allow_redisplay"]
    if "metadata" in given:
        method["metadata"] = p.merge_metadata(method["metadata"], given["metadata"])
    method["card"].update(given.get("card") or {})
    details = dict(given.get("billing_details") or {})
    if "address" in details:
        address = details.pop("address") or dict.fromkeys(p.ADDRESS)
        method["billing_details"]["address"].update(address)
        checks = method["card"]["checks"]
        for part in ("line1", "postal_code"):
            if part in address:
                checks[f"address_{part}_check"] = "pass" if address[part] else None
    method["billing_details"].update(details)
