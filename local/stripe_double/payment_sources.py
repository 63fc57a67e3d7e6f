"""Payment sources of customers: what ``sources`` lists, the older shape of payment methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import cards, defaults
from . import params as p
from .account import Account, copy_json
from .cards import Cards
from .errors import Json, no_such
from .listing import page

LIST = {**p.PAGE, "object": p.string().fixed()}
CREATE = {
    "metadata": p.metadata(),
    "source": p.string().fixed().needed(),
    "validate": p.boolean(),
}
UPDATE = {**cards.SOURCE_UPDATE, "metadata": p.metadata()}

New = Callable[[str, Json], Json]
"""Makes a source for a customer, with metadata."""


class PaymentSources:
    """The payment sources of an account's customers."""

    def __init__(self, account: Account, cards: Cards) -> None:
        self._account = account
        self._cards = cards

    def accepted(self, name: str, param: str) -> New:
        """Return what makes the source of a token, or raise ``ApiError``."""
        return partial(self._cards.new_source, self._cards.accepted(name, param))

    def add(self, customer: Json, new: New, metadata: Json | None) -> Json:
        """Attach a source from `accepted`; the first becomes the customer's default."""
        account = self._account
        source = new(customer["id"], metadata or {})
        account.payment_sources.setdefault(customer["id"], {})[source["id"]] = source
        account.payment_source_owner[source["id"]] = customer["id"]
        account.emit("customer.source.created", source)
        account.emit("payment_method.attached", self._cards.as_payment_method(source))
        if customer["default_source"] is None:
            before = copy_json(customer)
            customer["default_source"] = source["id"]
            account.emit_change("customer.updated", before, customer)
        return source

    def create(self, given: Json, customer: str) -> Json:
        """POST /v1/customers/{id}/sources."""
        owner = self._account.customer(customer)
        new = self.accepted(given["source"], "source")
        metadata = p.merge_metadata({}, given.get("metadata"))
        result: Json = copy_json(self.add(owner, new, metadata))
        return result

    def retrieve(self, _: Json, customer: str, source: str) -> Json:
        """GET /v1/customers/{id}/sources/{id}."""
        result: Json = copy_json(self._find(customer, source))
        return result

    def update(self, given: Json, customer: str, source: str) -> Json:
        """POST /v1/customers/{id}/sources/{id}."""
        found = self._find(customer, source)
        before = copy_json(found)
        if "metadata" in given:
            metadata = given.pop("metadata")
            found["metadata"] = p.merge_metadata(found["metadata"], metadata)
        cards.change_source(found, given)
        self.emit_change(before, found)
        result: Json = copy_json(found)
        return result

    def delete(self, _: Json, customer: str, source: str) -> Json:
        """DELETE /v1/customers/{id}/sources/{id}."""
        self._find(customer, source)
        self.remove(self._account.customer(customer), source)
        return {"id": source, "object": "card", "deleted": True}

    def remove(self, customer: Json, source: str) -> None:
        """Remove a source from its customer; the newest other one becomes the default."""
        account = self._account
        sources = account.payment_sources[customer["id"]]
        removed = sources.pop(source)
        del account.payment_source_owner[source]
        account.emit("customer.source.deleted", removed)
        wrapped = self._cards.as_payment_method(removed)
        account.emit(
            "payment_method.detached", {**wrapped, "customer": None}, {"customer": customer["id"]}
        )
        if customer["default_source"] == source:
            before = copy_json(customer)
            customer["default_source"] = next(reversed(sources), None)
            defaults.emit_change(account, "customer.updated", before, customer)
        defaults.clear(account, customer, source)

    def list_page(self, given: Json, customer: str) -> Json:
        """GET /v1/customers/{id}/sources."""
        self._account.customer(customer)
        entries = self.newest_first(customer, given.get("object"))
        return page(entries, given, f"/v1/customers/{customer}/sources", "source")

    def newest_first(self, customer: str, kind: str | None = None) -> list[Json]:
        """Return a customer's sources, newest first; all, or the ``card`` objects."""
        sources = [] if kind not in (None, "card") else self._of(customer).values()
        return [copy_json(source) for source in reversed(list(sources))]

    def belongs(self, identifier: str, customer: str) -> bool:
        """Return whether a source is attached to a customer."""
        return identifier in self._of(customer)

    def emit_change(
        self, before: Json, source: Json, method_event: str = "payment_method.updated"
    ) -> None:
        """Create the events of a changed source, in both shapes of a card."""
        self._account.emit_change("customer.source.updated", before, source)
        self._account.emit_change(
            method_event,
            self._cards.as_payment_method(before),
            self._cards.as_payment_method(source),
        )

    def _of(self, customer: str) -> dict[str, Json]:
        return self._account.payment_sources.get(customer, {})

    def _find(self, customer: str, source: str) -> Json:
        self._account.customer(customer)
        if source not in self._of(customer):
            raise no_such("source", source)
        return self._of(customer)[source]
