"""The events of an account: retrieve and list, for 30 days."""

from __future__ import annotations

from fnmatch import fnmatchcase

from . import params as p
from .account import EVENT_RETENTION, Account, copy_json
from .errors import Json, invalid, no_such
from .listing import account_page

LIST = {
    **p.PAGE,
    "created": p.interval(),
    "delivery_success": p.boolean(),
    "type": p.string().fixed(),
    "types": p.list_of(p.string().fixed()).fixed(),
}
_MAX_TYPES = 20


class Events:
    """The events of an account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def retrieve(self, _: Json, event: str) -> Json:
        """GET /v1/events/{id}."""
        found = self._account.events.get(event)
        if found is None or found["created"] < self._oldest():
            raise no_such("event", event)
        return self._render(found)

    def list_page(self, given: Json) -> Json:
        """GET /v1/events: newest first."""
        types = given.get("types")
        if types is not None and "type" in given:
            raise invalid("type and types exclude each other.", "types")
        if types is not None and len(types) > _MAX_TYPES:
            raise invalid(f"types takes up to {_MAX_TYPES} types.", "types")
        wanted = types or [given.get("type", "*")]
        success = given.get("delivery_success")

        def listed(event: Json) -> bool:
            delivered = self._account.webhooks.pending_count(event["id"]) == 0
            return any(fnmatchcase(event["type"], pattern) for pattern in wanted) and success in (
                None,
                delivered,
            )

        created = {"gte": 0, **given.get("created", {})}
        result = account_page(
            self._account.events_by_creation,
            self._account.events,
            {**given, "created": {**created, "gte": max(created["gte"], self._oldest())}},
            url="/v1/events",
            kind="event",
            is_listed=listed,
        )
        result["data"] = [self._render(event) for event in result["data"]]
        return result

    def _render(self, event: Json) -> Json:
        copy: Json = copy_json(event)
        copy["pending_webhooks"] = self._account.webhooks.pending_count(event["id"])
        return copy

    def _oldest(self) -> int:
        return self._account.now() - EVENT_RETENTION
