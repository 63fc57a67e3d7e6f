"""The API of webhook endpoints."""

from __future__ import annotations

from . import params as p
from .account import Account
from .errors import Json, no_such
from .listing import page
from .webhooks import WebhookEndpoint

CREATE = {
    "api_version": p.string().fixed(),
    "connect": p.boolean(),
    "description": p.string(),
    "enabled_events": p.list_of(p.string().fixed()).fixed().needed(),
    "metadata": p.metadata(),
    "url": p.string().fixed().needed(),
}
UPDATE = {
    "description": p.string(),
    "disabled": p.boolean(),
    "enabled_events": p.list_of(p.string().fixed()).fixed(),
    "metadata": p.metadata(),
    "url": p.string().fixed(),
}
LIST = p.PAGE


class WebhookEndpoints:
    """The webhook endpoints of an account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, given: Json) -> Json:
        """POST /v1/webhook_endpoints: the only response with the signing secret."""
        account = self._account
        endpoint = account.webhooks.add_endpoint(
            given["url"],
            account.new_id("whsec"),
            given["enabled_events"],
            given.get("api_version"),
        )
        endpoint.created = account.now()
        endpoint.description = given.get("description")
        endpoint.metadata = given.get("metadata") or {}
        return {**self._json(endpoint), "secret": endpoint.secrets[0]}

    def retrieve(self, _: Json, endpoint: str) -> Json:
        """GET /v1/webhook_endpoints/{id}."""
        return self._json(self._find(endpoint))

    def update(self, given: Json, endpoint: str) -> Json:
        """POST /v1/webhook_endpoints/{id}: the API version can't be changed."""
        found = self._find(endpoint)
        found.url = given.get("url", found.url)
        found.enabled_events = list(given.get("enabled_events", found.enabled_events))
        found.description = given.get("description", found.description)
        found.metadata |= given.get("metadata") or {}
        found.is_disabled = given.get("disabled", found.is_disabled)
        return self._json(found)

    def delete(self, _: Json, endpoint: str) -> Json:
        """DELETE /v1/webhook_endpoints/{id}: what was not delivered yet is dropped."""
        self._account.webhooks.remove_endpoint(self._find(endpoint).id)
        return {"id": endpoint, "object": "webhook_endpoint", "deleted": True}

    def list_page(self, given: Json) -> Json:
        """GET /v1/webhook_endpoints: newest first."""
        newest_first = map(self._json, reversed(self._account.webhooks.endpoints.values()))
        return page(newest_first, given, "/v1/webhook_endpoints", "webhook_endpoint")

    def _find(self, stripe_id: str) -> WebhookEndpoint:
        found = self._account.webhooks.endpoints.get(stripe_id)
        if found is None:
            raise no_such("webhook_endpoint", stripe_id)
        return found

    def _json(self, endpoint: WebhookEndpoint) -> Json:
        return {
            "id": endpoint.id,
            "object": "webhook_endpoint",
            "api_version": endpoint.api_version,
            "application": None,
            "created": endpoint.created,
            "description": endpoint.description,
            "enabled_events": list(endpoint.enabled_events),
            "livemode": self._account.livemode,
            "metadata": dict(endpoint.metadata),
            "status": "disabled" if endpoint.is_disabled else "enabled",
            "url": endpoint.url,
        }
