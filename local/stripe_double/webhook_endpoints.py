"""The API of webhook endpoints."""

from __future__ import annotations

from . import params as p
from .account import Account
from .errors import Json

CREATE = {
    "api_version": p.string().fixed(),
    "connect": p.boolean(),
    "description": p.string(),
    "enabled_events": p.list_of(p.string().fixed()).fixed().needed(),
    "metadata": p.metadata(),
    "url": p.string().fixed().needed(),
}


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
        return {
            "id": endpoint.id,
            "object": "webhook_endpoint",
            "api_version": endpoint.api_version,
            "application": None,
            "created": account.now(),
            "description": given.get("description"),
            "enabled_events": endpoint.enabled_events,
            "livemode": account.livemode,
            "metadata": given.get("metadata") or {},
            "secret": endpoint.secrets[0],
            "status": "enabled",
            "url": endpoint.url,
        }
