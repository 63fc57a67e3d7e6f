"""The PaymentMethod object: what all types have, and the hash of each type."""

from __future__ import annotations

from . import params as p
from .account import Account
from .errors import Json


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
