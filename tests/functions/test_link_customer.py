"""The ingress: what is Stripe's is stored before the response, all else is refused."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest

import functions.link_customer.app as link_customer
from local.stripe_double.webhooks import sign
from stripe_integrations.config import WebhookIngress
from stripe_integrations.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    ForbiddenError,
    MalformedRequestError,
)
from stripe_integrations.models import Customer
from tests.world import START, WEBHOOK_SECRET, World, problem_of, stripe_event
from tools.lambda_events import api_event, event_bridge_event

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


SOURCE = "aws.partner/stripe.com/ed_test_1"


class TestEventBridge:
    @pytest.fixture(autouse=True)
    def without_webhook(self, world: World) -> None:
        world.configure(
            webhook_ingress=WebhookIngress.EVENTBRIDGE, event_source=SOURCE, webhook_secret=None
        )

    def test_stores_detail(self, world: World, customer: Customer, log: io.StringIO) -> None:
        world.rename(customer.stripe_id, "Jane")
        payload = world.payload("customer.updated")

        response = world.invoke(link_customer, event_bridge_event(payload, SOURCE))

        assert response == {"id": payload["id"], "state": "pending"}
        assert payload["id"] in log.getvalue()
        # The `account` of EventBridge is an AWS account, and not one that is connected on Stripe.
        world.stream()
        assert world.get()["json"]["name"] == "Jane"

    def test_of_connected_account_is_ignored(self, world: World) -> None:
        event = event_bridge_event({**EVENT, "account": "acct_1"}, SOURCE)
        assert world.invoke(link_customer, event)["state"] == "ignored"

    @pytest.mark.parametrize(
        "changes",
        [{"source": f"{SOURCE}2"}, {"source": "my.app"}, {"source": None}, {"source": [SOURCE]}],
    )
    def test_refuses_other_source(self, world: World, changes: dict[str, Any]) -> None:
        event = {**event_bridge_event(EVENT, SOURCE), **changes}
        with pytest.raises(ForbiddenError):
            world.invoke(link_customer, event)
        assert world.items() == []

    @pytest.mark.parametrize("detail", [None, [], "{}", {}, {"id": "evt_1"}])
    def test_refuses_detail_that_is_no_event(self, world: World, detail: object) -> None:
        with pytest.raises(MalformedRequestError):
            world.invoke(link_customer, event_bridge_event(detail, SOURCE))
        assert world.items() == []

    def test_event_that_cannot_be_stored_fails_invocation(self, world: World) -> None:
        event = event_bridge_event(EVENT, SOURCE)
        with (
            world.failing_database("ProvisionedThroughputExceededException"),
            pytest.raises(DatabaseUnavailableError),
        ):
            world.invoke(link_customer, event)
        assert world.invoke(link_customer, event)["state"] == "ignored"

    def test_needs_source(self, world: World) -> None:
        world.configure(event_source=None)
        with pytest.raises(ConfigurationError, match="STRIPE_EVENT_SOURCE"):
            world.invoke(link_customer, {**event_bridge_event(EVENT, SOURCE), "source": None})


def envelope_of_request(source: str) -> dict[str, Any]:
    """A signed request that also looks like an event of EventBridge."""
    request = api_event("POST", "/", body=BODY.decode(), headers={"Stripe-Signature": signed(BODY)})
    return {**event_bridge_event(EVENT, source), **request}


class TestOtherIngress:
    """The deployment's parameter decides what is accepted, not the event."""

    @pytest.mark.parametrize("ingress", [WebhookIngress.EVENTBRIDGE, WebhookIngress.NONE])
    def test_refuses_signed_request(self, world: World, ingress: WebhookIngress) -> None:
        world.configure(webhook_ingress=ingress, event_source=SOURCE)
        assert problem_of(post(world, BODY, signed(BODY))) == (403, "forbidden")
        refused = world.call(link_customer, envelope_of_request(SOURCE))
        assert problem_of(refused) == (403, "forbidden")
        assert world.items() == []

    @pytest.mark.parametrize(
        "ingress", [each for each in WebhookIngress if each is not WebhookIngress.EVENTBRIDGE]
    )
    def test_refuses_event_of_event_bridge(self, world: World, ingress: WebhookIngress) -> None:
        world.configure(webhook_ingress=ingress, event_source=SOURCE)
        with pytest.raises(ForbiddenError):
            world.invoke(link_customer, event_bridge_event(EVENT, SOURCE))
        assert world.items() == []

    def test_api_takes_what_function_url_takes(self, world: World) -> None:
        world.configure(webhook_ingress=WebhookIngress.HTTP_API)
        assert post(world, BODY, signed(BODY))["statusCode"] == 200
        assert problem_of(post(world, BODY, None)) == (400, "invalid-signature")
