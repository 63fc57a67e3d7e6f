"""Bank accounts as sources, ``ba_…``: https://docs.stripe.com/api/customer_bank_accounts."""

from __future__ import annotations

from types import MappingProxyType

from . import params as p
from .account import Account
from .errors import Json
from .payment_method_types import TEST_BANK_ACCOUNT
from .tokens import fingerprint

TOKENS = MappingProxyType({"btok_us_verified": "verified"})
"""The status of the bank account of each test token."""
UPDATE = {
    "account_holder_name": p.string(),
    "account_holder_type": p.choice("company", "individual"),
}


def new(account: Account, token: str, customer: str, metadata: Json) -> Json:
    """Make the bank account of a customer from a token."""
    number, routing_number = (
        TEST_BANK_ACCOUNT[key] for key in ("account_number", "routing_number")
    )
    return {
        "id": account.new_id("ba"),
        "object": "bank_account",
        "account_holder_name": "Jane Austen",
        "account_holder_type": "individual",
        "account_type": None,
        "bank_name": "STRIPE TEST BANK",
        "country": "US",
        "currency": "usd",
        "customer": customer,
        "fingerprint": fingerprint(f"{routing_number} {number}"),
        "last4": number[-4:],
        "metadata": metadata,
        "routing_number": routing_number,
        "status": TOKENS[token],
    }
