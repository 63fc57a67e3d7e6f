"""The webhook: what Stripe signed is stored before the response, all else is refused."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest

import functions.link_customer.app as link_customer
from local.stripe_double.webhooks import sign
from stripe_integrations.models import Customer
from tests.world import START, WEBHOOK_SECRET, World, problem_of, stripe_event
from tools.lambda_events import api_event

PRICE = {"id": "price_1", "object": "price", "nickname": "Prix d'été"}
EVENT = stripe_event("price.created", data={"object": PRICE})
BODY = json.dumps(EVENT, indent=2, ensure_ascii=False).encode()


def post(world: World, body: bytes, header: str | None, *, encoded: bool = False) -> dict[str, Any]:
    text = base64.b64encode(body).decode() if encoded else body.decode("utf-8", "surrogateescape")
    headers = {"Stripe-Signature": header} if header else {}
    event = api_event("POST", "/", body=text, headers=headers)
    return world.call(link_customer, {**event, "isBase64Encoded": encoded})


def signed(body: bytes, at: float = START) -> str:
    return sign(body, WEBHOOK_SECRET, at)


class TestWebhook:
    @pytest.mark.parametrize("encoded", [False, True])
    def test_stores_signed_event(self, world: World, encoded: bool) -> None:
        response = post(world, BODY, signed(BODY), encoded=encoded)
        assert response["statusCode"] == 200
        assert response["json"] == {"id": "evt_1", "state": "ignored"}
        (stored,) = world.items(record_type="Event")
        assert stored["stripe_id"] == "evt_1"

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "t=1,v1=00",
            sign(BODY, "whsec_forged", START),
            signed(BODY, START - 301),
            signed(BODY[:-1]),
        ],
    )
    def test_refuses_missing_forged_or_expired_signature(
        self, world: World, header: str | None
    ) -> None:
        with world.counting() as counts:
            response = post(world, BODY, header)
        assert problem_of(response) == (400, "invalid-signature")
        assert (counts.database, counts.stripe) == (0, 0)

    @pytest.mark.parametrize("stored", ["sk_test_double", '""', "changeme", '{"key": "value"}'])
    def test_stored_secret_that_is_none_is_misconfigured(
        self, world: World, log: io.StringIO, stored: str
    ) -> None:
        world.configure(webhook_secret=stored)
        response = post(world, BODY, signed(BODY))
        assert problem_of(response) == (500, "misconfigured")
        assert "whsec_…" in json.loads(log.getvalue())["detail"]
        assert stored not in log.getvalue() + response["body"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"id": "evt_1"}', b"\xff"])
    def test_refuses_signed_body_that_is_no_event(self, world: World, body: bytes) -> None:
        assert post(world, body, signed(body), encoded=True)["statusCode"] == 400
        assert world.items() == []

    def test_accepts_what_a_function_url_accepts(self, world: World) -> None:
        data = {"object": {**PRICE, "nickname": "x" * 4_000_000}}
        body = json.dumps({**EVENT, "data": data}).encode()
        assert post(world, body, signed(body), encoded=True)["statusCode"] == 200

    def test_returns_503_while_event_cannot_be_stored(self, world: World) -> None:
        with world.failing_database("ProvisionedThroughputExceededException"):
            assert post(world, BODY, signed(BODY))["statusCode"] == 503
        assert post(world, BODY, signed(BODY))["statusCode"] == 200

    @pytest.mark.parametrize("changes", [{"livemode": True}, {"account": "acct_1"}])
    def test_ignores_event_of_other_mode_or_connected_account(
        self, world: World, customer: Customer, changes: dict[str, Any]
    ) -> None:
        world.time += 10
        data = {"id": customer.stripe_id, "object": "customer", "name": "Of the other mode"}
        event = stripe_event(created=int(world.time), data={"object": data}, **changes)
        body = json.dumps(event).encode()
        before = world.get()["json"]

        response = post(world, body, signed(body, world.time))
        world.stream()

        assert (response["statusCode"], response["json"]["state"]) == (200, "ignored")
        (stored,) = world.items(record_type="Event")
        assert (stored["state"], "user_id" in stored) == ("ignored", False)
        assert world.get()["json"] == before
