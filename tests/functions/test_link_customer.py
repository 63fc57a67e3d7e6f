"""The webhook: what Stripe signed is stored before it is answered, all else is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

import functions.link_customer.app as link_customer
from local.stripe_double.webhooks import sign
from tests.world import START, WEBHOOK_SECRET, World
from tools.lambda_events import api_event

PAYLOAD = {
    "id": "evt_1",
    "object": "event",
    "api_version": "2026-10-28.endive",
    "created": int(START),
    "data": {"object": {"id": "price_1", "object": "price", "nickname": "Prix d'été"}},
    "livemode": False,
    "pending_webhooks": 1,
    "request": {"id": None, "idempotency_key": None},
    "type": "price.created",
}
BODY = json.dumps(PAYLOAD, indent=2, ensure_ascii=False).encode()


def post(world: World, body: bytes, header: str | None, *, encoded: bool = False) -> dict[str, Any]:
    text = base64.b64encode(body).decode() if encoded else body.decode("utf-8", "surrogateescape")
    event = api_event(
        "POST", "/", body=text, headers={"Stripe-Signature": header} if header else {}
    )
    return world.call(link_customer, {**event, "isBase64Encoded": encoded})


@pytest.mark.parametrize("encoded", [False, True])
def test_a_signed_event_is_stored_and_answered(world: World, encoded: bool) -> None:
    answer = post(world, BODY, sign(BODY, WEBHOOK_SECRET, START), encoded=encoded)
    assert answer["statusCode"] == 200
    assert answer["json"] == {"id": "evt_1", "state": "ignored"}
    (stored,) = world.items(record_type="Event")
    assert stored["stripe_id"] == "evt_1"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "t=1,v1=00",
        sign(BODY, "whsec_forged", START),
        sign(BODY, WEBHOOK_SECRET, START - 301),
        sign(BODY[:-1], WEBHOOK_SECRET, START),
    ],
)
def test_a_missing_forged_or_expired_signature_writes_nothing(
    world: World, header: str | None
) -> None:
    with world.counting() as counts:
        answer = post(world, BODY, header)
    assert answer["statusCode"] == 400
    assert answer["json"]["type"].endswith("invalid-signature")
    assert (counts.database, counts.stripe) == (0, 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"id": "evt_1"}', b"\xff"])
def test_what_is_signed_and_no_event_is_refused(world: World, body: bytes) -> None:
    answer = post(world, body, sign(body, WEBHOOK_SECRET, START), encoded=True)
    assert answer["statusCode"] == 400
    assert world.items() == []


def test_a_webhook_may_be_as_large_as_a_function_url_takes(world: World) -> None:
    data = {"object": {"id": "price_1", "object": "price", "nickname": "x" * 4_000_000}}
    body = json.dumps({**PAYLOAD, "data": data}).encode()
    assert post(world, body, sign(body, WEBHOOK_SECRET, START), encoded=True)["statusCode"] == 200


def test_a_database_that_is_out_of_reach_makes_stripe_try_again(world: World) -> None:
    with world.failing_database("ProvisionedThroughputExceededException"):
        answer = post(world, BODY, sign(BODY, WEBHOOK_SECRET, START))
    assert answer["statusCode"] == 503
    assert post(world, BODY, sign(BODY, WEBHOOK_SECRET, START))["statusCode"] == 200


@pytest.mark.parametrize("changes", [{"livemode": True}, {"account": "acct_1"}])
def test_an_event_of_the_other_mode_or_a_connected_account_is_taken_and_applied_to_nothing(
    world: World, changes: dict[str, Any]
) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.time += 10
    customer = {"id": stripe_id, "object": "customer", "name": "Of the other mode"}
    payload = {
        **PAYLOAD,
        "type": "customer.updated",
        "created": int(world.time),
        "data": {"object": customer},
        **changes,
    }
    body = json.dumps(payload).encode()
    before = world.get()["json"]

    answer = post(world, body, sign(body, WEBHOOK_SECRET, world.time))
    world.stream()

    assert (answer["statusCode"], answer["json"]["state"]) == (200, "ignored")
    (stored,) = world.items(record_type="Event")
    assert (stored["state"], "user_id" in stored) == ("ignored", False)
    assert world.get()["json"] == before
