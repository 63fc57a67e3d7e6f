"""Both authorizers on one API: JWTs for the routes `/me`, IAM for the routes `/customers`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import Cloud, Response, encode, http, local_cloud
from tests.local_cloud.issuer import AUDIENCE, Issuer

ADMIN_SCOPE = "stripe-customers/admin"
ORIGIN = "https://app.example.com"
BODY = {"billing_email": "jenny@example.com", "name": "Jenny"}


@pytest.fixture(scope="module")
def cloud(functions: Path, issuer: Issuer) -> Iterator[Cloud]:
    parameters = {
        "JwtIssuer": issuer.url,
        "JwtAudience": AUDIENCE,
        "JwtAdminScope": ADMIN_SCOPE,
        "CorsAllowedOrigins": f"{ORIGIN},http://localhost:3000",
        "ExistingCustomers": "check",
    }
    with local_cloud(parameters=parameters, functions=functions) as cloud:
        yield cloud


def call(
    cloud: Cloud, token: str | None, method: str, path: str, body: object = None, **headers: str
) -> Response:
    sent = {"Content-Type": "application/json", **headers}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    return http(method, cloud.api_url + path, encode(body), sent)


def test_user_and_backend_reach_the_same_customer(cloud: Cloud, issuer: Issuer) -> None:
    """A token's `sub` is the backend's user id."""
    token = issuer.token("auth0|1")

    created = call(cloud, token, "POST", "/me", BODY)

    assert (created.status, created.body["user_id"]) == (201, "auth0|1")
    assert call(cloud, token, "POST", "/me", BODY).status == 200
    assert call(cloud, token, "GET", "/me").body["name"] == "Jenny"
    assert call(cloud, token, "PATCH", "/me", {"phone": "+32"}).body["phone"] == "+32"
    by_backend = cloud.request("GET", "/customers?user_id=auth0%7C1")
    assert by_backend.body["stripe_id"] == created.body["stripe_id"]
    cloud.stripe.client().v1.customers.update(created.body["stripe_id"], {"name": "Jane"})
    assert call(cloud, token, "POST", "/me/sync").body["name"] == "Jane"
    assert cloud.request("DELETE", "/customers?user_id=auth0%7C1").status == 204
    assert call(cloud, token, "GET", "/me").status == 404


def test_customer_that_exists_on_stripe_is_adopted_by_backend(cloud: Cloud, issuer: Issuer) -> None:
    """With `ExistingCustomers=check` the user's create is refused, and the backend gets the id."""
    body = {"billing_email": "existing@example.com"}
    existing = cloud.stripe.client().v1.customers.create({"email": body["billing_email"]}).id
    token = issuer.token("payer-1", scope=ADMIN_SCOPE)

    refused = call(cloud, token, "POST", "/me", body)
    by_backend = cloud.request("POST", "/customers", {**body, "user_id": "payer-1"})

    for response in (refused, by_backend):
        assert (response.status, response.body["type"].rpartition(":")[2]) == (
            409,
            "customer-exists",
        )
    assert existing not in str(refused.body)
    assert by_backend.body["stripe_ids"] == [existing]
    assert cloud.request("PUT", "/customers/payer-1", {"stripe_id": existing}).status == 201
    assert call(cloud, token, "POST", "/me", body).body["stripe_id"] == existing
    other = {**body, "user_id": "payer-2"}
    assert cloud.request("POST", "/customers", other).status == 201  # it is a user's now


def test_token_reaches_no_other_user(cloud: Cloud, issuer: Issuer) -> None:
    assert call(cloud, issuer.token("user-b"), "POST", "/me", BODY).status == 201
    for claims in ({}, {"scope": ADMIN_SCOPE}):
        token = issuer.token("user-a", **claims)
        assert call(cloud, token, "GET", "/me").status == 404
        assert call(cloud, token, "POST", "/me/sync").status == 404
        assert call(cloud, token, "PATCH", "/me", {"name": "Jane"}).status == 404
        for path in ("/me?user_id=user-b", "/me?x=1"):
            assert call(cloud, token, "GET", path).status == 422
        for body in ({**BODY, "user_id": "user-b"}, {**BODY, "user_id": "user-a"}):
            assert call(cloud, token, "POST", "/me", body).status == 422
        assert call(cloud, token, "POST", "/me/sync", {"user_id": "user-b"}).status == 422
        assert call(cloud, token, "PATCH", "/me", {"user_id": "user-b"}).status == 422
        for other in ("/me/user-b", "/me%2Fuser-b", "/me/../customers/user-b"):
            assert call(cloud, token, "GET", other).status in (403, 404)
        for method in ("POST", "PATCH"):
            forbidden = call(cloud, token, method, "/me", {**BODY, "balance": -100_000})
            assert (forbidden.status, forbidden.body["field"]) == (403, "balance")
    assert call(cloud, issuer.token("user-a"), "DELETE", "/me").status == 404
    users = {item["pk"] for item in cloud.items() if item["pk"].startswith("USER#user-")}
    assert users == {"USER#user-b"}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/me"), ("POST", "/me"), ("PATCH", "/me"), ("POST", "/me/sync")]
)
def test_iam_signature_is_refused_under_me(cloud: Cloud, method: str, path: str) -> None:
    body = BODY if path == "/me" and method != "GET" else None
    assert cloud.request(method, path, body).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/customers"),
        ("GET", "/customers/user-c"),
        ("PATCH", "/customers/user-c"),
        ("POST", "/customers/user-c/sync"),
        ("DELETE", "/customers/user-c"),
        ("PUT", "/customers/user-c"),
        ("GET", "/customers?user_id=user-c"),
    ],
)
def test_token_is_refused_under_customers(
    cloud: Cloud, issuer: Issuer, method: str, path: str
) -> None:
    body = {**BODY, "user_id": "user-c"} if path == "/customers" else None
    token = issuer.token("user-c", scope=ADMIN_SCOPE)
    assert call(cloud, token, method, path, body).status in (401, 403)
    assert not [item for item in cloud.items() if item["pk"] == "USER#user-c"]


def test_bad_token_is_unauthorized(cloud: Cloud, issuer: Issuer) -> None:
    tokens = [None, "token", issuer.token("user-b", exp=1), issuer.token("user-b", aud="other")]
    for token in tokens:
        assert call(cloud, token, "GET", "/me").status == 401


@pytest.fixture(scope="module")
def cors(cloud: Cloud) -> dict[str, Any]:
    """The CORS configuration of the deployed API.

    The local AWS stores it under CloudFormation's names, which its own API does not read, so it is
    set once more by UpdateApi.
    """
    stored: list[dict[str, Any]] = []

    def read(http_response: Any, **_: Any) -> None:
        stored.append(json.loads(http_response.content)["corsConfiguration"])

    client = cloud.client("apigatewayv2")
    client.meta.events.register("after-call.apigatewayv2.GetApi", read)
    api_id = cloud.api_url.split("/")[-2]
    client.get_api(ApiId=api_id)
    client.update_api(ApiId=api_id, CorsConfiguration=stored[0])
    return stored[0]


class TestCors:
    def test_is_that_of_the_parameter(self, cors: dict[str, Any]) -> None:
        assert cors["AllowOrigins"] == [ORIGIN, "http://localhost:3000"]
        assert cors["AllowMethods"] == ["GET", "PATCH", "POST"]

    def preflight(self, cloud: Cloud, origin: str) -> dict[str, Any]:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        }
        response = call(cloud, None, "OPTIONS", "/me", **asked)
        return {name.lower(): value for name, value in response.headers.items()}

    @pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
    @pytest.mark.usefixtures("cors")
    def test_preflight_of_named_origin(self, cloud: Cloud, origin: str) -> None:
        headers = self.preflight(cloud, origin)
        assert headers["access-control-allow-origin"] == origin
        assert "PATCH" in headers["access-control-allow-methods"]
        allowed = headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
        assert set(allowed) == {"authorization", "content-type", "idempotency-key"}
        assert "access-control-allow-credentials" not in headers

    @pytest.mark.usefixtures("cors")
    def test_no_other_origin_is_allowed(self, cloud: Cloud) -> None:
        headers = self.preflight(cloud, "https://elsewhere.example.com")
        assert "access-control-allow-origin" not in headers

    @pytest.mark.usefixtures("cors")
    def test_response_is_for_the_page(self, cloud: Cloud, issuer: Issuer) -> None:
        response = call(cloud, issuer.token("user-d"), "GET", "/me", Origin=ORIGIN)
        headers = {name.lower(): value for name, value in response.headers.items()}
        assert headers["access-control-allow-origin"] == ORIGIN
