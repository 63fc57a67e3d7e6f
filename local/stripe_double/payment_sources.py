"""Payment sources of customers, the older shape of payment methods.

``sources`` lists Cards, bank accounts and Source objects. Cards are PaymentMethods as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import bank_accounts, cards, defaults, sources
from . import params as p
from .account import Account, copy_json
from .cards import Cards
from .errors import Json, invalid, no_such
from .listing import page
from .sources import Sources

_UPDATES = {
    "bank_account": bank_accounts.UPDATE,
    "card": cards.SOURCE_UPDATE,
    "source": sources.UPDATE,
}
"""The parameters of an update by the type of the object."""
LIST = {**p.PAGE, "object": p.choice(*_UPDATES)}
CREATE = {
    "metadata": p.metadata(),
    "source": p.string().fixed().needed(),
    "validate": p.boolean(),
}
UPDATE = {
    **bank_accounts.UPDATE,
    **cards.SOURCE_UPDATE,
    **sources.UPDATE,
    "metadata": p.metadata(),
}

New = Callable[[str, Json], Json]
"""Makes a source for a customer, with metadata."""


class PaymentSources:
    """The payment sources of an account's customers."""

    def __init__(self, account: Account, cards: Cards, sources: Sources) -> None:
        self._account = account
        self._cards = cards
        self._legacy = sources

    def accepted(self, name: str, param: str) -> New:
        """Return what makes the source of a token or of a Source, or raise ``ApiError``."""
        if name.startswith("src_"):
            return partial(sources.attach, self._legacy.attachable(name, param))
        if name in bank_accounts.TOKENS:
            return partial(bank_accounts.new, self._account, name)
        return partial(self._cards.new_source, self._cards.accepted(name, param))

    def add(self, customer: Json, new: New, metadata: Json | None) -> Json:
        """Attach a source from `accepted`; the first becomes the customer's default."""
        account = self._account
        source = new(customer["id"], metadata or {})
        account.payment_sources.setdefault(customer["id"], {})[source["id"]] = source
        account.payment_source_owner[source["id"]] = customer["id"]
        account.emit("customer.source.created", source)
        if source["object"] == "card":
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
        kind = found["object"]
        for name in given:
            if name not in _UPDATES[kind] and name != "metadata":
                raise invalid(f"Received unknown parameter: {name}", name, "parameter_unknown")
        before = copy_json(found)
        if "metadata" in given:
            metadata = given.pop("metadata")
            found["metadata"] = p.merge_metadata(found["metadata"], metadata)
        if kind == "card":
            cards.change_source(found, given)
        elif kind == "source":
            sources.change(found, given)
        else:
            found.update(given)
        self.emit_change(before, found)
        result: Json = copy_json(found)
        return result

    def delete(self, _: Json, customer: str, source: str) -> Json:
        """DELETE /v1/customers/{id}/sources/{id}: returns a Source itself, consumed."""
        found = self._find(customer, source)
        self.remove(self._account.customer(customer), source)
        if found["object"] == "source":
            result: Json = copy_json(found)
            return result
        return {"id": source, "object": found["object"], "deleted": True}

    def remove(self, customer: Json, source: str) -> None:
        """Remove a source from its customer; the newest other one becomes the default."""
        account = self._account
        left = account.payment_sources[customer["id"]]
        removed = left.pop(source)
        del account.payment_source_owner[source]
        if removed["object"] == "source":
            removed["status"] = "consumed"
        account.emit("customer.source.deleted", removed)
        if removed["object"] == "card":
            wrapped = {**self._cards.as_payment_method(removed), "customer": None}
            account.emit("payment_method.detached", wrapped, {"customer": customer["id"]})
        if customer["default_source"] == source:
            before = copy_json(customer)
            customer["default_source"] = next(reversed(left), None)
            defaults.emit_change(account, "customer.updated", before, customer)
        defaults.clear(account, customer, source)

    def list_page(self, given: Json, customer: str) -> Json:
        """GET /v1/customers/{id}/sources."""
        self._account.customer(customer)
        entries = self.newest_first(customer, given.get("object"))
        return page(entries, given, f"/v1/customers/{customer}/sources", "source")

    def newest_first(self, customer: str, kind: str | None = None) -> list[Json]:
        """Return a customer's sources, newest first: all, or those of one type of object."""
        newest_first = reversed(self._of(customer).values())
        return [copy_json(source) for source in newest_first if kind in (None, source["object"])]

    def get(self, identifier: str) -> Json | None:
        """Return the source of any customer, or None."""
        owner = self._account.payment_source_owner.get(identifier)
        return None if owner is None else self._of(owner)[identifier]

    def belongs(self, identifier: str, customer: str) -> bool:
        """Return whether a source is attached to a customer."""
        return identifier in self._of(customer)

    def emit_change(
        self, before: Json, source: Json, method_event: str = "payment_method.updated"
    ) -> None:
        """Create the events of a changed source, in both shapes of a card."""
        self._account.emit_change("customer.source.updated", before, source)
        if source["object"] == "card":
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
