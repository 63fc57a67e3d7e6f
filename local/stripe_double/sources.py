"""Legacy Source objects, ``src_…``: https://docs.stripe.com/api/sources."""

from __future__ import annotations

from . import params as p
from .account import Account, copy_json
from .errors import Json, invalid, no_such
from .payment_method_types import iban_details
from .tokens import fingerprint

_OWNER = p.hash_of(
    {
        "address": p.hash_of(p.ADDRESS),
        "email": p.email(),
        "name": p.string(),
        "phone": p.string(),
    }
)
_CURRENCIES = {"ach_credit_transfer": "usd", "sepa_debit": "eur"}
"""The types of Source, each of which is of one currency."""
CREATE = {
    "currency": p.string(3),
    "metadata": p.metadata(),
    "owner": _OWNER,
    "type": p.choice(*_CURRENCIES).needed(),
}
UPDATE = {"owner": _OWNER}
_ATTACHABLE = ("chargeable", "pending")


class Sources:
    """The Source objects of an account, attached to a customer or not."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, given: Json) -> Json:
        """POST /v1/sources: its bank account is always that of Stripe's tests."""
        kind = given["type"]
        currency = given.get("currency", _CURRENCIES[kind])
        if currency != _CURRENCIES[kind]:
            raise invalid(f"A source of the type {kind} is in {_CURRENCIES[kind]}.", "currency")
        source: Json = {
            "id": self._account.new_id("src"),
            "object": "source",
            "allow_redisplay": "unspecified",
            "amount": None,
            "client_secret": self._account.new_id("src_client_secret"),
            "created": self._account.now(),
            "currency": currency,
            "livemode": self._account.livemode,
            "metadata": p.merge_metadata({}, given.get("metadata")),
            "owner": dict.fromkeys(
                (
                    "address",
                    "email",
                    "name",
                    "phone",
                    "verified_address",
                    "verified_email",
                    "verified_name",
                    "verified_phone",
                )
            ),
            "statement_descriptor": None,
            "type": kind,
            "usage": "reusable",
            **(_sepa_debit() if kind == "sepa_debit" else _ach_credit_transfer()),
        }
        change(source, given)
        self._account.sources[source["id"]] = source
        result: Json = copy_json(source)
        return result

    def retrieve(self, _: Json, source: str) -> Json:
        """GET /v1/sources/{id}: attached, not yet attached, or detached."""
        result: Json = copy_json(self._find(source, None))
        return result

    def attachable(self, identifier: str, param: str) -> Json:
        """Return a Source that can be attached to a customer, or raise ``ApiError``."""
        source = self._find(identifier, param)
        if source["status"] not in _ATTACHABLE or "customer" in source:
            raise invalid("The source is attached, or can't be attached any more.", param)
        return source

    def _find(self, identifier: str, param: str | None) -> Json:
        if identifier not in self._account.sources:
            raise no_such("source", identifier, param)
        return self._account.sources[identifier]


def attach(source: Json, customer: str, metadata: Json) -> Json:
    """Attach a Source from `Sources.attachable` to a customer."""
    source["customer"] = customer
    source["metadata"].update(metadata)
    return source


def change(source: Json, given: Json) -> None:
    """Change the owner of a Source."""
    owner = dict(given.get("owner") or {})
    if "address" in owner:
        owner["address"] = p.full_address(owner["address"])
    source["owner"].update(owner)


def _sepa_debit() -> Json:
    details = {
        **iban_details("DE89370400440532013000"),
        "mandate_reference": None,
        "mandate_url": None,
    }
    return {"flow": "none", "sepa_debit": details, "status": "chargeable"}


def _ach_credit_transfer() -> Json:
    number = "test_52796e3294dc"
    return {
        "ach_credit_transfer": {
            "account_number": number,
            "bank_name": "TEST BANK",
            "fingerprint": fingerprint(number),
            "routing_number": "110000000",
            "swift_code": "TSTEZ122",
        },
        "flow": "receiver",
        "receiver": {
            "address": "121042882-38381234567890123",
            "amount_charged": 0,
            "amount_received": 0,
            "amount_returned": 0,
            "refund_attributes_method": "email",
            "refund_attributes_status": "missing",
        },
        "status": "pending",
    }
