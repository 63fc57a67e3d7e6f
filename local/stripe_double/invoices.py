"""Invoices of subscriptions, in outline; the product handles none of their events."""

from __future__ import annotations

from .account import Account, copy_json
from .errors import Json, no_such


class Invoices:
    """The invoices of an account: customer, amount and whether it is paid."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, subscription: Json, amount: int, reason: str, paid: bool) -> Json:
        """Create the invoice of a subscription's period."""
        account = self._account
        invoice: Json = {
            "id": account.new_id("in"),
            "object": "invoice",
            "amount_due": amount,
            "amount_paid": amount if paid else 0,
            "amount_remaining": 0 if paid else amount,
            "billing_reason": reason,
            "collection_method": subscription["collection_method"],
            "created": account.now(),
            "currency": subscription["currency"],
            "customer": subscription["customer"],
            "livemode": account.livemode,
            "metadata": {},
            "parent": {
                "quote_details": None,
                "subscription_details": {"metadata": {}, "subscription": subscription["id"]},
                "type": "subscription_details",
            },
            "status": "paid" if paid else "open",
            "total": amount,
        }
        account.invoices[invoice["id"]] = invoice
        return invoice

    def announce(self, invoice: Json) -> None:
        """Emit ``invoice.paid`` or ``invoice.finalized``."""
        paid = invoice["status"] == "paid"
        self._account.emit("invoice.paid" if paid else "invoice.finalized", invoice)

    def retrieve(self, _: Json, invoice: str) -> Json:
        """GET /v1/invoices/{id}."""
        if invoice not in self._account.invoices:
            raise no_such("invoice", invoice)
        result: Json = copy_json(self._account.invoices[invoice])
        return result
