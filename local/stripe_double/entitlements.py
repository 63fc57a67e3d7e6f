"""Entitlements of customers to features: https://docs.stripe.com/api/entitlements."""

from __future__ import annotations

from . import params as p
from .account import Account, copy_json, difference
from .errors import Json
from .listing import first_page, page

LIST = {**p.PAGE, "customer": p.string().fixed().needed()}


class Entitlements:
    """The active entitlements of an account's customers.

    Stripe derives them from the products of a customer's subscriptions; the double's are granted
    and revoked.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    def list_page(self, given: Json) -> Json:
        """GET /v1/entitlements/active_entitlements?customer=…: newest first."""
        customer = self._account.customer(given["customer"], "customer")
        entries = self._newest_first(customer["id"])
        url = "/v1/entitlements/active_entitlements"
        return page(entries, given, url, "active_entitlement")

    def grant(self, customer: str, lookup_key: str) -> None:
        """Entitle a customer to a feature, which is created with the first grant of its key.

        Parameters
        ----------
        customer
            The customer's id.
        lookup_key
            The feature's key.

        Raises
        ------
        ValueError
            The customer has this entitlement already.
        """
        account = self._account
        entitlements = self._of(customer)
        if lookup_key in entitlements:
            raise ValueError(f"the customer is entitled already: {lookup_key}")
        before = self._summary(customer)
        entitlements[lookup_key] = {
            "id": self._new_id("ent"),
            "object": "entitlements.active_entitlement",
            "feature": self._feature(lookup_key)["id"],
            "livemode": account.livemode,
            "lookup_key": lookup_key,
        }
        self._emit_summary(before)

    def revoke(self, customer: str, lookup_key: str) -> None:
        """End the entitlement of a customer to a feature.

        Parameters
        ----------
        customer
            The customer's id.
        lookup_key
            The feature's key.

        Raises
        ------
        KeyError
            The customer has no such entitlement.
        """
        before = self._summary(customer)
        del self._of(customer)[lookup_key]
        self._emit_summary(before)

    def revoke_all(self, customer: str) -> None:
        """End all entitlements of a customer, in one event."""
        before = self._summary(customer)
        if self._of(customer):
            self._of(customer).clear()
            self._emit_summary(before)

    def _of(self, customer: str) -> dict[str, Json]:
        self._account.customer(customer)
        return self._account.entitlements.setdefault(customer, {})

    def _newest_first(self, customer: str) -> list[Json]:
        newest_first: list[Json] = copy_json(list(reversed(self._of(customer).values())))
        return newest_first

    def _feature(self, lookup_key: str) -> Json:
        for feature in self._account.features.values():
            if feature["lookup_key"] == lookup_key:
                return feature
        feature = {
            "id": self._new_id("feat"),
            "object": "entitlements.feature",
            "active": True,
            "livemode": self._account.livemode,
            "lookup_key": lookup_key,
            "metadata": {},
            "name": lookup_key,
        }
        self._account.features[feature["id"]] = feature
        return feature

    def _new_id(self, prefix: str) -> str:
        return self._account.new_id(prefix if self._account.livemode else f"{prefix}_test")

    def _summary(self, customer: str) -> Json:
        url = f"/v1/customer/{customer}/entitlements"
        return {
            "object": "entitlements.active_entitlement_summary",
            "customer": customer,
            "entitlements": first_page(self._newest_first(customer), url),
            "livemode": self._account.livemode,
        }

    def _emit_summary(self, before: Json) -> None:
        # Emitted even if the first page is the same, which is all that the event shows.
        after = self._summary(before["customer"])
        event_type = "entitlements.active_entitlement_summary.updated"
        self._account.emit(event_type, after, difference(before, after))
