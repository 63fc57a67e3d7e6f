"""Tax ids of customers: https://docs.stripe.com/api/tax_ids."""

from __future__ import annotations

from . import params as p
from .account import Account, copy_json
from .errors import Json, no_such
from .listing import page

_COUNTRIES = {"ch_vat": "CH", "eu_vat": None, "gb_vat": "GB", "us_ein": "US"}
"""The types of tax id; the value of an EU VAT number begins with its country."""
CREATE = {
    "type": p.choice(*_COUNTRIES).needed(),
    "value": p.string(60).fixed().needed(),
}
LIST = p.PAGE


class TaxIds:
    """The tax ids of an account's customers.

    Parameters
    ----------
    account : Account
        The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, given: Json, customer: str) -> Json:
        """POST /v1/customers/{id}/tax_ids: Stripe verifies the id later."""
        self._account.customer(customer)
        kind, value = given["type"], given["value"]
        tax_id: Json = {
            "id": self._account.new_id("txi"),
            "object": "tax_id",
            "country": _COUNTRIES[kind] or value[:2],
            "created": self._account.now(),
            "customer": customer,
            "customer_account": None,
            "livemode": self._account.livemode,
            "owner": {
                "account": None,
                "application": None,
                "customer": customer,
                "customer_account": None,
                "type": "customer",
            },
            "type": kind,
            "value": value,
            "verification": {"status": "pending", "verified_address": None, "verified_name": None},
        }
        self._account.tax_ids.setdefault(customer, {})[tax_id["id"]] = tax_id
        self._account.emit("customer.tax_id.created", tax_id)
        result: Json = copy_json(tax_id)
        return result

    def retrieve(self, _: Json, customer: str, tax_id: str) -> Json:
        """GET /v1/customers/{id}/tax_ids/{id}."""
        result: Json = copy_json(self._find(customer, tax_id))
        return result

    def delete(self, _: Json, customer: str, tax_id: str) -> Json:
        """DELETE /v1/customers/{id}/tax_ids/{id}."""
        found = self._find(customer, tax_id)
        del self._account.tax_ids[customer][tax_id]
        self._account.emit("customer.tax_id.deleted", found)
        return {"id": tax_id, "object": "tax_id", "deleted": True}

    def list_page(self, given: Json, customer: str) -> Json:
        """GET /v1/customers/{id}/tax_ids: newest first."""
        self._account.customer(customer)
        newest_first = reversed(list(self._account.tax_ids.get(customer, {}).values()))
        url = f"/v1/customers/{customer}/tax_ids"
        result: Json = copy_json(page(newest_first, given, url, "tax_id"))
        return result

    def verify(self, customer: str, tax_id: str, status: str) -> None:
        """Finish the verification of a tax id, as Stripe does some time after its creation.

        Parameters
        ----------
        customer, tax_id : str
            Ids.
        status : str
            ``verified``, ``unverified`` or ``unavailable``.
        """
        found = self._find(customer, tax_id)
        before = copy_json(found)
        found["verification"]["status"] = status
        self._account.emit_change("customer.tax_id.updated", before, found)

    def _find(self, customer: str, tax_id: str) -> Json:
        self._account.customer(customer)
        found = self._account.tax_ids.get(customer, {}).get(tax_id)
        if found is None:
            raise no_such("tax_id", tax_id, "id")
        return found
