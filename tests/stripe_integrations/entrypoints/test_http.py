"""HTTP: which bodies and tokens are accepted, and how unexpected failures are reported."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest

import functions.create_customer.app as create_customer
import functions.get_customer.app as get_customer
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
from stripe_integrations.entrypoints.http import MAX_API_BODY_BYTES
from stripe_integrations.models import Customer
from tests.world import EMAIL, World, problem_of
from tools.lambda_events import api_event

BODY = json.dumps({"user_id": "u-1", "billing_email": EMAIL})
ADMIN = "customers/admin"


class TestBody:
    @pytest.mark.parametrize(
        ("body", "status", "kind"),
        [
            (None, 400, "malformed-request"),
            ("", 400, "malformed-request"),
            ("{", 400, "malformed-request"),
            ("[]", 400, "malformed-request"),
            ('"text"', 400, "malformed-request"),
            ("null", 400, "malformed-request"),
            ('{"user_id": NaN}', 400, "malformed-request"),
            ("[" * 60_000, 400, "malformed-request"),
            ("\ud800", 400, "malformed-request"),
            ('{"x": "' + "x" * MAX_API_BODY_BYTES + '"}', 413, "request-too-large"),
        ],
    )
    def test_malformed_or_large_body_is_refused(
        self, world: World, body: str | None, status: int, kind: str
    ) -> None:
        response = world.call(create_customer, api_event("POST", "/customers", body=body))
        assert problem_of(response) == (status, kind)
        assert (world.items(), world.stripe_customers()) == ([], [])

    def test_base64_is_decoded(self, world: World) -> None:
        event = api_event("POST", "/customers", body=base64.b64encode(BODY.encode()).decode())
        event["isBase64Encoded"] = True
        assert world.call(create_customer, event)["statusCode"] == 201
        response = world.call(create_customer, {**event, "body": "!!!"})
        assert problem_of(response) == (400, "malformed-request")

    def test_other_media_type_is_refused(self, world: World) -> None:
        event = api_event("POST", "/customers", body="a=b", headers={"Content-Type": "text/plain"})
        del event["headers"]["content-type"]
        assert problem_of(world.call(create_customer, event)) == (415, "unsupported-media-type")


class TestAuthorization:
    """A JWT permits its own user; with the admin scope, any user."""

    def test_token_permits_own_user_only(self, world: World, customer: Customer) -> None:
        other = {"sub": "u-2"}
        for function, event in (
            (get_customer, api_event("GET", "/customers/u-1", "u-1", claims=other)),
            (sync_customer, api_event("POST", "/customers/u-1/sync", "u-1", claims=other)),
            (soft_delete_customer, api_event("DELETE", "/customers/u-1", "u-1", claims=other)),
            (create_customer, api_event("POST", "/customers", body=BODY, claims=other)),
        ):
            assert problem_of(world.call(function, event)) == (403, "forbidden")
        own = api_event("GET", "/customers/u-1", "u-1", claims={"sub": "u-1"})
        assert world.call(get_customer, own)["statusCode"] == 200

    @pytest.mark.parametrize(
        ("scope", "claims", "status"),
        [
            (ADMIN, {"scope": f"openid {ADMIN}"}, 200),
            (ADMIN, {"scp": f"[openid {ADMIN}]"}, 200),
            (ADMIN, {"sub": "u-2", "scope": ADMIN}, 200),
            (ADMIN, {"sub": "u-2", "scope": "customers/administrator"}, 403),
            (ADMIN, {"sub": "u-2", "scope": f"x{ADMIN} {ADMIN}2"}, 403),
            (ADMIN, {"sub": ADMIN}, 403),
            (ADMIN, {"sub": "u-2", "scope": [ADMIN]}, 403),
            (ADMIN, {"sub": "u-2", "scope": f"[{ADMIN}]"}, 403),
            (ADMIN, {"sub": "u-2", "scp": f"[[{ADMIN}]]"}, 403),
            (ADMIN, {"sub": "u-2", "scope": f"openid\u00a0{ADMIN}"}, 403),
            (ADMIN, {"sub": "u-2", "scope": f"openid\n{ADMIN}"}, 403),
            (None, {"sub": "u-2", "scope": "None"}, 403),
            (None, {"sub": "u-2", "scope": ""}, 403),
            (None, {"client_id": "machine"}, 403),
        ],
    )
    def test_admin_scope_permits_any_user(
        self,
        world: World,
        customer: Customer,
        scope: str | None,
        claims: dict[str, Any],
        status: int,
    ) -> None:
        world.configure(jwt_admin_scope=scope)
        create = api_event("POST", "/customers", body=BODY, claims=claims)
        assert world.call(create_customer, create)["statusCode"] == status
        get = api_event("GET", "/customers/u-1", "u-1", claims=claims)
        assert world.call(get_customer, get)["statusCode"] == status


class TestFailures:
    def test_unexpected_error_shows_neither_trace_nor_value(
        self, world: World, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
    ) -> None:
        def broken(*_: Any) -> None:
            raise KeyError("jane@example.com")

        monkeypatch.setattr("stripe_integrations.actions.StripeCustomer.get", broken)
        response = world.get()
        assert problem_of(response) == (500, "internal-error")
        assert "KeyError" in log.getvalue()
        assert "broken" in log.getvalue()  # where it was raised
        assert "jane" not in response["body"] + log.getvalue()

    def test_missing_setting_is_named_in_log_only(self, world: World, log: io.StringIO) -> None:
        world.configure(api_key=None)
        response = world.create()
        assert problem_of(response) == (500, "misconfigured")
        assert "STRIPE_API_KEY" not in response["body"]
        assert "STRIPE_API_KEY" in log.getvalue()
