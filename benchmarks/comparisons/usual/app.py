"""A function for Stripe customers as it is usually composed: Powertools, stripe and PynamoDB.

It makes none of the product's promises: no claim, no order of events, no retry.
"""

import json
import os
from typing import Any

import stripe
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.typing import LambdaContext
from pynamodb.attributes import JSONAttribute, UnicodeAttribute
from pynamodb.models import Model

logger = Logger()
metrics = Metrics(namespace="Usual")
app = APIGatewayHttpResolver()


class Item(Model):
    """An item of the table."""

    class Meta:
        table_name = os.environ["TABLE_NAME"]

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    stripe_id = UnicodeAttribute()
    fields = JSONAttribute()


def stripe_client() -> stripe.StripeClient:
    """The client for Stripe, with the stored key."""
    key = parameters.get_secret(secret("STRIPE_API_KEY_NAME"), max_age=300)
    return stripe.StripeClient(str(key), base_addresses={"api": os.environ["STRIPE_API_BASE"]})


def secret(variable: str) -> str:
    """The name of a secret, without the store before it."""
    return os.environ[variable].partition(":")[2]


@app.get("/customers/<user_id>")
def get_customer(user_id: str) -> Response[str]:
    """Return what is stored of a user."""
    items = Item.query(f"USUAL#{user_id}", consistent_read=True)
    return Response(200, "application/json", json.dumps([item.fields for item in items]))


@app.post("/customers")
def create_customer() -> Response[str]:
    """Create a customer and store it."""
    body = app.current_event.json_body
    customer = stripe_client().v1.customers.create(
        {"email": body["billing_email"], "metadata": {"user_id": body["user_id"]}}
    )
    store(body["user_id"], customer)
    metrics.add_metric("Created", MetricUnit.Count, 1)
    return Response(201, "application/json", json.dumps({"stripe_id": customer.id}))


@app.patch("/customers/<user_id>")
def update_customer(user_id: str) -> Response[str]:
    """Change a customer and store it."""
    (item,) = Item.query(f"USUAL#{user_id}", consistent_read=True)
    customer = stripe_client().v1.customers.update(item.stripe_id, app.current_event.json_body)
    store(user_id, customer)
    return Response(200, "application/json", json.dumps({"stripe_id": customer.id}))


@app.post("/")
def receive_event() -> Response[str]:
    """Verify an event and store it."""
    secrets = parameters.get_secret(secret("STRIPE_WEBHOOK_SECRET_NAME"), max_age=300)
    signature = app.current_event.headers["stripe-signature"]
    event = stripe.Webhook.construct_event(str(app.current_event.body), signature, str(secrets))
    Item(f"EVENT#{event.id}", "EVENT", stripe_id=event.id, fields=event.data.to_dict()).save()
    logger.info("received", extra={"event": event.id})
    return Response(200, "application/json", "{}")


def store(user_id: str, customer: stripe.Customer) -> None:
    """Store what Stripe returned."""
    fields = {"name": customer.name, "email": customer.email}
    Item(f"USUAL#{user_id}", "CUSTOMER", stripe_id=customer.id, fields=fields).save()
    logger.info("stored", extra={"customer": customer.id})


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)
