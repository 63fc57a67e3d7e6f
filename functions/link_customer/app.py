"""The ingress of Stripe's events: stores each, linked to its customer.

A webhook arrives over HTTP, signed by Stripe; an event of EventBridge from Stripe's event source.
`WEBHOOK_INGRESS` decides which of the two is accepted. The format of the Lambda event decides how
the outcome is reported: as an HTTP response, or by failing the invocation.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations.actions import StripeEvent
from stripe_integrations.adapters import secrets
from stripe_integrations.context import current
from stripe_integrations.entrypoints import ingress, webhook_signature
from stripe_integrations.entrypoints.http import Request, Response, http_handler
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.observability import add_fields


def handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    receive = receive_from_event_bridge if ingress.is_envelope(event) else receive_webhook
    return receive(event, context)


@http_handler
def receive_webhook(request: Request) -> Response:
    ingress.require_webhook()
    webhook_signature.verify(
        request.body,
        request.headers.get("stripe-signature"),
        secrets.webhook_secrets(current().settings),
        current().clock(),
    )
    stored = _receive(request.json())
    return Response(200, stored, logged={"stripe_event_id": stored["id"], "state": stored["state"]})


@invocation_handler
def receive_from_event_bridge(envelope: dict[str, Any]) -> dict[str, Any]:
    stored = _receive(ingress.unwrap_stripe_event(envelope))
    add_fields(stripe_event_id=stored["id"], state=stored["state"])
    return stored


def _receive(payload: dict[str, Any]) -> dict[str, Any]:
    event = StripeEvent.receive(payload)
    return {"id": event.stripe_id, "state": event.state}
