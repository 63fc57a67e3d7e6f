"""The PaymentMethod object: what all types have, and the hash of each type but ``card``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from . import params as p
from .account import Account
from .errors import Json
from .tokens import fingerprint

TEST_BANK_ACCOUNT = MappingProxyType(
    {
        "account_holder_type": "individual",
        "account_number": "000123456789",
        "routing_number": "110000000",
    }
)
"""The US bank account of Stripe's tests, as parameters."""
TEST_IDS = ("pm_usBankAccount", "pm_usBankAccount_success")
"""Test PaymentMethods with this bank account."""


@dataclass(frozen=True)
class PaymentMethodType:
    """A type of PaymentMethod.

    Attributes
    ----------
    params
        The parameters of its hash.
    details
        Makes its hash from these parameters and the e-mail address of the billing details.
    """

    params: p.Params
    details: Callable[[Json, str | None], Json]


def new(account: Account, kind: str, given: Json, email: str | None = None) -> Json:
    """Make a PaymentMethod of one of `TYPES`; the arguments are those of its type."""
    method = shape(account, kind, TYPES[kind].details(given, email))
    method["id"] = account.new_id("pm")
    return method


def shape(account: Account, kind: str, details: Json, billing_details: Json | None = None) -> Json:
    """Return a PaymentMethod without an id.

    Parameters
    ----------
    account
        The account.
    kind
        Its type.
    details
        The hash of its type.
    billing_details
        Those that are known.
    """
    return {
        "id": None,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": dict.fromkeys(p.ADDRESS),
            "email": None,
            "name": None,
            "phone": None,
            "tax_id": None,
            **(billing_details or {}),
        },
        kind: details,
        "created": None,
        "customer": None,
        "customer_account": None,
        "livemode": account.livemode,
        "metadata": {},
        "type": kind,
    }


def _cashapp(_: Json, __: str | None) -> Json:
    return {"buyer_id": "cashapp_buyer", "cashtag": "$testbuyer"}


def _link(_: Json, email: str | None) -> Json:
    return {"email": email}


def _sepa_debit(given: Json, _: str | None) -> Json:
    return {
        **iban_details(given["iban"]),
        "generated_from": {"charge": None, "setup_attempt": None},
    }


def _us_bank_account(given: Json, _: str | None) -> Json:
    number, routing_number = given["account_number"], given["routing_number"]
    return {
        "account_holder_type": given.get("account_holder_type"),
        "account_type": given.get("account_type", "checking"),
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": fingerprint(f"{routing_number} {number}"),
        "last4": number[-4:],
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": routing_number,
        "status_details": None,
    }


def iban_details(iban: str) -> Json:
    """Return what Stripe shows of an IBAN."""
    compact = iban.replace(" ", "").upper()
    return {
        "bank_code": compact[4:12],
        "branch_code": "",
        "country": compact[:2],
        "fingerprint": fingerprint(compact),
        "last4": compact[-4:],
    }


TYPES = MappingProxyType(
    {
        "cashapp": PaymentMethodType({}, _cashapp),
        "link": PaymentMethodType({}, _link),
        "sepa_debit": PaymentMethodType({"iban": p.string().fixed().needed()}, _sepa_debit),
        "us_bank_account": PaymentMethodType(
            {
                "account_holder_type": p.choice("company", "individual"),
                "account_number": p.string().fixed().needed(),
                "account_type": p.choice("checking", "savings"),
                "routing_number": p.string().fixed().needed(),
            },
            _us_bank_account,
        ),
    }
)
"""The types but ``card``, which is in `cards`."""
