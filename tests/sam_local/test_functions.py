"""Every function in Lambda's own container, with its file of events/: the main story."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.request import urlopen

from boto3.dynamodb.types import TypeDeserializer

from local.stripe_double import sign
from tests.sam_local.conftest import API_KEY, SIGNING_SECRET, TABLE, SamLocal
from tools import engine

EVENTS = engine.ROOT / "events"


def test_story_function_by_function(sam_local: SamLocal) -> None:
    create = _example("create_customer")
    asked = json.loads(create["body"])
    user_id = asked["user_id"]
    customers = sam_local.double.account.customers

    created = _response(sam_local.invoke("CreateCustomer", create), 201)
    customer_id = created["stripe_id"]
    assert list(customers) == [customer_id]
    assert created["email"] == customers[customer_id]["email"] == asked["billing_email"]

    again = _response(sam_local.invoke("CreateCustomer", create), 200)
    assert again["stripe_id"] == customer_id
    assert len(customers) == 1

    got = _response(sam_local.invoke("GetCustomer", _example("get_customer")), 200)
    assert got["stripe_id"] == customer_id
    _check_start_api(sam_local, user_id, customer_id)

    _change(sam_local, customer_id, name="Jane Roe", source="tok_visa")
    synced = _response(sam_local.invoke("SyncCustomer", _example("sync_customer")), 200)
    assert synced["name"] == "Jane Roe"
    assert [card["last4"] for card in synced["cards"]] == ["4242"]

    _change(sam_local, customer_id, name="Jane Poe")
    webhook = _example("link_customer")
    example = json.loads(webhook["body"])
    webhook["body"] = (
        webhook["body"]
        .replace(example["data"]["object"]["id"], customer_id)
        # The moment of the change: an older event would change nothing.
        .replace(f'"created": {example["created"]}', f'"created": {int(time.time())}')
    )
    event_key = (f"EVENT#{example['id']}", "EVENT")
    _response(sam_local.invoke("LinkCustomer", webhook), 400)
    assert _item(sam_local, *event_key) is None
    signature = sign(webhook["body"].encode(), SIGNING_SECRET, time.time())
    webhook["headers"]["stripe-signature"] = signature
    _response(sam_local.invoke("LinkCustomer", webhook), 200)
    stored = _item(sam_local, *event_key) or {}
    assert (stored["state"], stored["user_id"]) == ("pending", user_id)

    response = sam_local.invoke("ApplyEvent", _example("apply_event"))
    assert response == {"batchItemFailures": []}
    applied = _item(sam_local, *event_key) or {}
    assert applied["state"] == "applied"
    customer_key = (f"USER#{user_id}", f"CUSTOMER#{customer_id}")
    customer = _item(sam_local, *customer_key) or {}
    assert customer["name"] == "Jane Poe"

    # Stripe delivered that one event alone: the others are recovered now.
    reconciled = sam_local.invoke("ReconcileEvents", _example("reconcile_events"))
    assert reconciled["recovered"] > 0
    replayed = sam_local.invoke("ReplayEvents", {"event_id": example["id"]})
    assert replayed == {"replayed": 1, "resume_from": None}
    assert (_item(sam_local, *event_key) or {})["state"] == "applied"
    rebuilt = sam_local.invoke("RebuildCustomers", _example("rebuild_customers"))
    nothing = {"rebuilt": 0, "resume_from": None, "error": None, "unreadable": 0}
    assert rebuilt == {"listed": 1, **nothing}

    _response(sam_local.invoke("SoftDeleteCustomer", _example("soft_delete_customer")), 204)
    customer = _item(sam_local, *customer_key) or {}
    assert customer["is_active"] is False
    assert customer["date_purged"]
    _response(sam_local.invoke("GetCustomer", _example("get_customer")), 404)


def _check_start_api(sam_local: SamLocal, user_id: str, customer_id: str) -> None:
    port = engine.free_port()
    command = ["start-api", "--host", "127.0.0.1", "--port", str(port), "--disable-authorizer"]
    with engine.running(
        [str(engine.CACHE / "sam" / "bin" / "sam"), "local", *command, *sam_local.options],
        name="sam-local-start-api",
        env=sam_local.environment,
        ready=lambda: engine.listens("127.0.0.1", port),
    ):
        address = f"http://127.0.0.1:{port}/customers/{user_id}"
        with urlopen(address, timeout=60) as response:
            assert response.status == 200
            assert json.load(response)["stripe_id"] == customer_id


def _example(function: str) -> dict[str, Any]:
    example: dict[str, Any] = json.loads((EVENTS / f"{function}.json").read_text())
    return example


def _response(response: dict[str, Any], status: int) -> dict[str, Any]:
    assert response["statusCode"] == status, response
    body: dict[str, Any] = json.loads(response.get("body") or "{}")
    return body


def _change(sam_local: SamLocal, customer_id: str, **params: str) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    path = f"/v1/customers/{customer_id}"
    assert sam_local.double.request("POST", path, params, headers).status == 200


def _item(sam_local: SamLocal, pk: str, sk: str) -> dict[str, Any] | None:
    key = {"pk": {"S": pk}, "sk": {"S": sk}}
    found = sam_local.client("dynamodb").get_item(TableName=TABLE, Key=key, ConsistentRead=True)
    if "Item" not in found:
        return None
    read = TypeDeserializer()
    return {name: read.deserialize(value) for name, value in found["Item"].items()}
