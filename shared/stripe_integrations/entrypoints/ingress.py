"""How Stripe's events arrive: as signed requests over HTTP, or from Stripe's partner event source.

A deployment accepts one of the two, and authenticates events by the request's signature or by the
event source. Follows
https://docs.stripe.com/event-destinations/eventbridge and
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations.config import WebhookIngress
from stripe_integrations.context import current
from stripe_integrations.errors import ConfigurationError, ForbiddenError, MalformedRequestError

Json = dict[str, Any]


def is_envelope(event: object) -> bool:
    """Return whether an invocation's event has the shape of EventBridge's, and not that of HTTP."""
    return isinstance(event, Mapping) and "detail-type" in event and "requestContext" not in event


def require_webhook() -> None:
    """Refuse a request if the deployment has no webhook.

    Raises
    ------
    ForbiddenError
        It gets its events from EventBridge, or none at all.
    """
    ingress = current().settings.webhook_ingress
    if ingress not in (WebhookIngress.FUNCTION_URL, WebhookIngress.HTTP_API):
        raise ForbiddenError("this deployment does not receive events over HTTP")


def unwrap_stripe_event(envelope: Mapping[str, Any]) -> Json:
    """Return the Stripe event in `detail`.

    The other fields are EventBridge's: `account` is an AWS account, not a connected account.

    Raises
    ------
    ForbiddenError
        The deployment does not get its events from EventBridge, or not from this source.
    MalformedRequestError
        There is no `detail`.
    ConfigurationError
        The deployment has no event source.
    """
    settings = current().settings
    if settings.webhook_ingress is not WebhookIngress.EVENTBRIDGE:
        raise ForbiddenError("this deployment does not receive events from EventBridge")
    if settings.event_source is None:
        raise ConfigurationError("STRIPE_EVENT_SOURCE is not set")
    if envelope.get("source") != settings.event_source:
        raise ForbiddenError("the event is not from the deployment's event source")
    detail = envelope.get("detail")
    if not isinstance(detail, dict):
        raise MalformedRequestError("the event has no detail")
    return detail
