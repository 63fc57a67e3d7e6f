"""Stripe's test cards, such as ``tok_visa`` and ``pm_card_visa``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import MappingProxyType

from .errors import Json


def fingerprint(number: str) -> str:
    """Return the fingerprint of a card's or an account's number."""
    return hashlib.sha256(number.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TestCard:
    """The card of a token.

    Attributes
    ----------
    brand
        The brand in a PaymentMethod: ``visa``, ``amex``…
    decline_code
        The code with which attaching it to a customer is declined.
    fails_later
        Whether it can be attached but every charge fails.
    fields
        Fields of the Card object that differ from the defaults: ``address_line1``, ``cvc_check``,
        ``tokenization_method``…
    """

    __test__ = False

    brand: str
    last4: str
    funding: str = "credit"
    country: str = "US"
    decline_code: str | None = None
    fails_later: bool = False
    fields: Json = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the card number."""
        return fingerprint(f"{self.brand} {self.funding} {self.last4}")


SOURCE_BRANDS = MappingProxyType(
    {
        "amex": "American Express",
        "diners": "Diners Club",
        "discover": "Discover",
        "jcb": "JCB",
        "mastercard": "MasterCard",
        "unionpay": "UnionPay",
        "visa": "Visa",
    }
)
"""The brand in a Card object by the brand in a PaymentMethod."""

_CARDS = {
    "visa": TestCard("visa", "4242"),
    "visa_debit": TestCard("visa", "5556", "debit"),
    "mastercard": TestCard("mastercard", "4444"),
    "mastercard_debit": TestCard("mastercard", "8210", "debit"),
    "mastercard_prepaid": TestCard("mastercard", "5100", "prepaid"),
    "amex": TestCard("amex", "8431"),
    "discover": TestCard("discover", "9424"),
    "diners": TestCard("diners", "3237"),
    "jcb": TestCard("jcb", "0505"),
    "unionpay": TestCard("unionpay", "0005"),
    "us": TestCard("visa", "4242"),
    "br": TestCard("visa", "0184", country="BR"),
    "de": TestCard("visa", "2765", country="DE"),
    "gb": TestCard("visa", "0003", country="GB"),
    "jp": TestCard("visa", "0003", country="JP"),
    "chargeDeclined": TestCard("visa", "0002", decline_code="generic_decline"),
    "chargeDeclinedInsufficientFunds": TestCard("visa", "9995", decline_code="insufficient_funds"),
    "chargeDeclinedExpiredCard": TestCard("visa", "0069", decline_code="expired_card"),
    "chargeDeclinedIncorrectCvc": TestCard("visa", "0127", decline_code="incorrect_cvc"),
    "chargeDeclinedProcessingError": TestCard("visa", "0119", decline_code="processing_error"),
    "chargeCustomerFail": TestCard("visa", "0341", fails_later=True),
}

TEST_CARDS = MappingProxyType(
    {
        **{f"tok_{name}": card for name, card in _CARDS.items()},
        **{f"pm_card_{name}": card for name, card in _CARDS.items()},
    }
)
"""Test tokens and test PaymentMethods by their id."""
