"""Cards: test tokens, the Card source ``card_…``, and the ``card`` hash of a PaymentMethod."""

from __future__ import annotations

from datetime import UTC, datetime

from . import params as p
from .account import Account
from .errors import Json, card_declined, no_such
from .payment_method_types import shape
from .tokens import SOURCE_BRANDS, TEST_CARDS, TestCard

SOURCE_UPDATE = {
    **{
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
    },
    "exp_month": p.integer(1, 12),
    "exp_year": p.integer(1970),
}
METHOD_CREATE = {"token": p.string().fixed().needed()}
METHOD_UPDATE = p.hash_of({"exp_month": p.integer(1, 12), "exp_year": p.integer(1970)})


class Cards:
    """The cards of an account.

    Attributes
    ----------
    tokens
        The card of each token, ``tok_…`` or ``pm_card_…``.
    """

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

    def new_source(self, card: TestCard, customer: str, metadata: Json) -> Json:
        """Make the Card source of a customer."""
        source = self._new_card(card, customer, metadata)
        self._account.card_created[source["id"]] = self._account.now()
        if card.fails_later:
            self._account.failing_cards.add(source["id"])
        return source

    def new_method(self, card: TestCard) -> Json:
        """Make a PaymentMethod that is not attached."""
        account = self._account
        method = self._method_shape(card.brand, self._new_card(card, "", {}))
        method["id"] = account.new_id("pm")
        if card.decline_code is not None:
            account.decline_codes[method["id"]] = card.decline_code
        if card.fails_later:
            account.failing_cards.add(method["id"])
        return method

    def as_payment_method(self, card: Json) -> Json:
        """Return the PaymentMethod as which Stripe also returns a Card source."""
        brands = {source: brand for brand, source in SOURCE_BRANDS.items()}
        method = self._method_shape(brands[card["brand"]], card)
        method["id"] = card["id"]
        method["created"] = self._account.card_created[card["id"]]
        method["customer"] = card["customer"]
        method["metadata"] = dict(card["metadata"])
        return method

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

    def _method_shape(self, brand: str, card: Json) -> Json:
        wallet = None
        if card["tokenization_method"] is not None:
            wallet = {"dynamic_last4": card["dynamic_last4"], "type": card["tokenization_method"]}
        address = {
            "city": card["address_city"],
            "country": card["address_country"],
            "line1": card["address_line1"],
            "line2": card["address_line2"],
            "postal_code": card["address_zip"],
            "state": card["address_state"],
        }
        details = {
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
        }
        billing_details = {"address": address, "name": card["name"]}
        return shape(self._account, "card", details, billing_details)


def change_source(card: Json, given: Json) -> None:
    """Change fields of a Card source; its issuer checks a new address."""
    card.update(given)
    for field in ("address_line1", "address_zip"):
        if field in given:
            card[f"{field}_check"] = None if given[field] is None else "pass"


def check_address(method: Json, address: Json) -> None:
    """Set the issuer's checks of a PaymentMethod's new address."""
    for part in ("line1", "postal_code"):
        if part in address:
            check = "pass" if address[part] else None
            method["card"]["checks"][f"address_{part}_check"] = check
