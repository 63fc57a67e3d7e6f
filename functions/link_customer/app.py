"""The webhook of Stripe: stores a signed event, linked to its customer."""

from stripe_integrations.actions import StripeEvent
from stripe_integrations.adapters import secrets
from stripe_integrations.context import current
from stripe_integrations.entrypoints import webhook_signature
from stripe_integrations.entrypoints.http import Request, Response, http_handler


@http_handler
def handler(request: Request) -> Response:
    webhook_signature.verify(
        request.body,
        request.headers.get("stripe-signature"),
        secrets.webhook_secrets(current().settings),
        current().clock(),
    )
    event = StripeEvent.receive(request.json())
    log_fields = {"stripe_event_id": event.stripe_id, "state": event.state}
    return Response(200, {"id": event.stripe_id, "state": event.state}, logged=log_fields)
