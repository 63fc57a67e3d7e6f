"""The main story against a Stripe of other authors: create, webhook, apply, get, delete.

localstripe has no idempotency keys, no shipping and no API versions, its events carry neither
`request` nor `pending_webhooks`, and its subscriptions have the shape of before 2025-03-31.
"""

from __future__ import annotations

import json
import queue
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
import requests
import stripe

from functions.apply_event.app import handler as apply_event
from functions.create_customer.app import handler as create_customer
from functions.get_customer.app import handler as get_customer
from functions.link_customer.app import handler as link_customer
from functions.soft_delete_customer.app import handler as soft_delete_customer
from functions.sync_customer.app import handler as sync_customer
from stripe_integrations import context
from stripe_integrations.config import Settings
from tools.lambda_events import api_event, lambda_context

API_KEY = "sk_test_double_localstripe"
SIGNING_SECRET = "whsec_double_localstripe"
PATIENCE = 20
LAMBDA_CONTEXT: Any = lambda_context()


@dataclass
class Delivery:
    """A webhook as it was received, and the status that the function answered."""

    event: dict[str, Any]
    status: int


class Endpoint:
    """An HTTP server instead of the Function URL: passes each request to link_customer."""

    def __init__(self) -> None:
        self.deliveries: queue.Queue[Delivery] = queue.Queue()
        self.seen: list[Delivery] = []
        surroundings = copy_context()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
                headers = {name.lower(): value for name, value in handler.headers.items()}
                request = api_event("POST", "/", body=body, headers=headers)
                answer = surroundings.copy().run(link_customer, request, LAMBDA_CONTEXT)
                self.deliveries.put(Delivery(json.loads(body), answer["statusCode"]))
                handler.send_response(answer["statusCode"])
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(handler, *_: Any) -> None:  # noqa: N805
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def delivered(self, kind: str) -> Delivery:
        """Wait for an event of this type."""
        while True:
            for delivery in self.seen:
                if delivery.event["type"] == kind:
                    self.seen.remove(delivery)
                    return delivery
            self.seen.append(self.deliveries.get(timeout=PATIENCE))


@pytest.fixture
def endpoint(
    table_name: str, localstripe_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Endpoint]:
    """The deployment, with its webhook registered at localstripe."""
    for variable in ("STRIPE_API_KEY_NAME", "STRIPE_WEBHOOK_SECRET_NAME", "STRIPE_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TABLE_NAME", table_name)
    monkeypatch.setenv("STRIPE_API_KEY", API_KEY)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SIGNING_SECRET)
    monkeypatch.setenv("STRIPE_API_BASE", localstripe_url)
    with context.use(context.Context(Settings.from_environment())):
        endpoint = Endpoint()
        serving = threading.Thread(target=endpoint.server.serve_forever, daemon=True)
        serving.start()
        requests.post(
            f"{localstripe_url}/_config/webhooks/link",
            json={"url": endpoint.url, "secret": SIGNING_SECRET},
            timeout=PATIENCE,
        ).raise_for_status()
        yield endpoint
        endpoint.server.shutdown()
        endpoint.server.server_close()
        serving.join()


def test_story(endpoint: Endpoint, localstripe_url: str, table_name: str) -> None:
    account = stripe.StripeClient(API_KEY, base_addresses={"api": localstripe_url}).v1

    created = _call(
        create_customer,
        api_event(
            "POST",
            "/customers",
            body=json.dumps(
                {
                    "user_id": "u-1",
                    "billing_email": "jane@example.com",
                    "name": "Jane Doe",
                    "phone": "+49 30 1234",
                    "address": {"line1": "Street 1", "city": "Berlin", "country": "DE"},
                    "preferred_locales": ["de"],
                    "metadata": {"plan": "gold"},
                }
            ),
        ),
        201,
    )
    customer_id = created["stripe_id"]
    theirs = account.customers.retrieve(customer_id).to_dict()
    assert (theirs["email"], theirs["name"]) == ("jane@example.com", "Jane Doe")
    assert theirs["metadata"]["plan"] == "gold"

    again = _call(create_customer, _new_customer("u-1"), 200)
    assert again["stripe_id"] == customer_id

    delivery = endpoint.delivered("customer.created")
    assert delivery.status == 200
    _apply(table_name, delivery)

    account.payment_methods.attach("pm_card_visa", {"customer": customer_id})
    (method,) = account.payment_methods.list({"customer": customer_id, "type": "card"}).data
    account.customers.update(
        customer_id,
        {"name": "Jane Roe", "invoice_settings": {"default_payment_method": method.id}},
    )
    delivery = endpoint.delivered("customer.updated")
    assert delivery.status == 200
    _apply(table_name, delivery)
    customer = _get("u-1")
    assert customer["name"] == "Jane Roe"
    assert [card["stripe_id"] for card in customer["cards"]] == [method.id]
    assert customer["cards"][0]["last4"] == "4242"

    plan = account.plans.create(
        {"amount": 1500, "currency": "eur", "interval": "month", "product": {"name": "Gold"}}
    )
    subscription = requests.post(
        f"{localstripe_url}/v1/subscriptions",
        auth=(API_KEY, ""),
        data={"customer": customer_id, "items[0][plan]": plan.id},
        timeout=PATIENCE,
    ).json()
    delivery = endpoint.delivered("customer.subscription.created")
    assert delivery.status == 200
    _apply(table_name, delivery)
    (ours,) = _get("u-1")["subscriptions"]
    assert ours["stripe_id"] == subscription["id"]
    assert ours["status"] == subscription["status"] == "active"
    assert ours["current_period_end"] == subscription["current_period_end"]
    assert ours["quantity"] == 1

    account.subscriptions.cancel(subscription["id"])
    synced = _call(sync_customer, api_event("POST", "/customers/u-1/sync", "u-1"), 200)
    assert [sub["status"] for sub in synced["subscriptions"]] == ["canceled"]

    _call(soft_delete_customer, api_event("DELETE", "/customers/u-1", "u-1"), 204)
    _call(get_customer, api_event("GET", "/customers/u-1", "u-1"), 404)
    anew = _call(create_customer, _new_customer("u-1"), 201)
    assert anew["stripe_id"] != customer_id


def _new_customer(user_id: str) -> dict[str, Any]:
    body = {"user_id": user_id, "billing_email": "jane@example.com"}
    return api_event("POST", "/customers", body=json.dumps(body))


def _get(user_id: str) -> dict[str, Any]:
    return _call(get_customer, api_event("GET", f"/customers/{user_id}", user_id), 200)


def _apply(table_name: str, delivery: Delivery) -> None:
    """Do what the table's stream does once the event is stored."""
    image = _stored(table_name, delivery.event["id"])
    assert image is not None
    change = {"Keys": {"pk": image["pk"], "sk": image["sk"]}, "NewImage": image}
    record = {"eventName": "INSERT", "dynamodb": {**change, "SequenceNumber": "1"}}
    answer = apply_event({"Records": [record]}, LAMBDA_CONTEXT)
    assert answer == {"batchItemFailures": []}
    image = _stored(table_name, delivery.event["id"])
    assert image is not None
    assert image["state"]["S"] == "applied", image
    assert image["user_id"]["S"] == "u-1"


def _stored(table_name: str, event_id: str) -> dict[str, Any] | None:
    key = {"pk": {"S": f"EVENT#{event_id}"}, "sk": {"S": "EVENT"}}
    client = boto3.client("dynamodb")
    item: dict[str, Any] | None = client.get_item(
        TableName=table_name, Key=key, ConsistentRead=True
    ).get("Item")
    if item and "webhook_message" in item:
        item["webhook_message"]["B"] = _base64(item["webhook_message"]["B"])
    return item


def _base64(value: bytes) -> str:
    """Binary values are in Base64 in what a stream sends to a function."""
    return b64encode(value).decode()


def _call(function: Any, request: dict[str, Any], status: int) -> dict[str, Any]:
    answer = function(request, LAMBDA_CONTEXT)
    assert answer["statusCode"] == status, answer
    body: dict[str, Any] = json.loads(answer.get("body") or "{}")
    return body
