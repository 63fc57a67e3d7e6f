"""Access with JWTs under `/customers`: users to their own customers, administrators to all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from local.cloud import Cloud, Response, encode, local_cloud
from local.cloud import http as send
from tests.local_cloud.issuer import AUDIENCE, Issuer

ADMIN_SCOPE = "stripe-customers/admin"
A, B = "user-a", "user-b"


@pytest.fixture(scope="module")
def cloud(functions: Path, issuer: Issuer) -> Iterator[Cloud]:
    parameters = {
        "JwtIssuer": issuer.url,
        "JwtAudience": AUDIENCE,
        "CustomersAuthorizer": "jwt",
        "JwtAdminScope": ADMIN_SCOPE,
    }
    with local_cloud(parameters=parameters, functions=functions) as cloud:
        yield cloud


def call(cloud: Cloud, token: str | None, method: str, path: str, body: object = None) -> Response:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = body if isinstance(body, bytes) else encode(body)
    return send(method, cloud.api_url + path, data, headers)


def body_of(user_id: object, **fields: Any) -> dict[str, Any]:
    return {"user_id": user_id, "billing_email": "jenny@example.com", **fields}


def customer_of(cloud: Cloud, issuer: Issuer, user_id: str) -> str:
    """Stripe's id of a user's customer, made where there is none."""
    response = call(cloud, issuer.token(user_id), "POST", "/customers", body_of(user_id))
    assert response.status in (200, 201), response
    stripe_id: str = response.body["stripe_id"]
    return stripe_id


def of_user(cloud: Cloud, user_id: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What the table and Stripe hold of a user."""
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    kept = [item for item in cloud.items() if item["pk"] == f"USER#{user_id}"]
    with cloud.stripe.double.use() as stripe:
        made = [
            customer["id"]
            for customer in stripe.account.customers.values()
            if customer["metadata"].get("stripe_integrations_user_id") == user_id
        ]
    return kept, made


@pytest.fixture(scope="module")
def customer_of_b(cloud: Cloud, issuer: Issuer) -> str:
    """B's customer, with no event left to be applied."""
    stripe_id = customer_of(cloud, issuer, B)

    def is_settled() -> bool:
        events = [item for item in cloud.items() if item.get("customer_id") == stripe_id]
        return any(event.get("state") == "applied" for event in events)

    cloud.wait_until(is_settled, "the event of its creation is applied")
    return stripe_id


@pytest.fixture
def of_b(cloud: Cloud, issuer: Issuer, customer_of_b: str) -> Iterator[str]:
    """B's customer, of which nothing may have changed when the test is over."""
    before = of_user(cloud, B)
    assert len(before[1]) == 1
    yield customer_of_b
    assert of_user(cloud, B) == before
    shown = call(cloud, issuer.token(B), "GET", f"/customers/{B}")
    assert shown.body["stripe_id"] == customer_of_b


ROUTES = [
    ("POST", "/customers"),
    ("GET", f"/customers/{B}"),
    ("PATCH", f"/customers/{B}"),
    ("POST", f"/customers/{B}/sync"),
    ("DELETE", f"/customers/{B}"),
    ("PUT", f"/customers/{B}"),
    ("GET", f"/customers?user_id={B}"),
    ("PATCH", f"/customers?user_id={B}"),
    ("POST", f"/customers/sync?user_id={B}"),
    ("DELETE", f"/customers?user_id={B}"),
    ("PUT", f"/customers?user_id={B}"),
]


def body_for(method: str, path: str) -> object:
    if method == "PATCH":
        return {"name": "Other"}
    if method == "PUT":
        return {"stripe_id": "cus_1"}
    return body_of(B, name="Other") if path == "/customers" else None


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_other_user_is_forbidden(
    cloud: Cloud, issuer: Issuer, of_b: str, method: str, path: str
) -> None:
    response = call(cloud, issuer.token(A), method, path, body_for(method, path))

    assert response.status == 403
    assert response.body["type"] == "urn:stripe-integrations:problem:forbidden"
    assert of_b not in json.dumps(response.body)


def test_own_customer(cloud: Cloud, issuer: Issuer) -> None:
    token = issuer.token("user-own")
    path = "/customers/user-own"
    body = body_of("user-own", name="Jenny")

    assert call(cloud, token, "POST", "/customers", body).status == 201
    assert call(cloud, token, "POST", "/customers", body).status == 200
    assert call(cloud, token, "GET", path).body["name"] == "Jenny"
    in_query = "/customers?user_id=user%2Down"
    assert call(cloud, token, "GET", in_query).body["name"] == "Jenny"
    refused = call(cloud, token, "POST", "/customers", {**body, "balance": -100_000})
    assert (refused.status, refused.body["field"]) == (403, "balance")
    assert call(cloud, token, "PATCH", path, {"name": "Jane"}).body["name"] == "Jane"
    refused = call(cloud, token, "PATCH", path, {"balance": -100_000})
    assert (refused.status, refused.body["field"]) == (403, "balance")
    adoption = {"stripe_id": call(cloud, token, "GET", path).body["stripe_id"]}
    assert call(cloud, token, "PUT", path, adoption).status == 403
    assert call(cloud, token, "POST", f"{path}/sync").status == 200
    assert call(cloud, token, "DELETE", path).status == 204
    assert call(cloud, token, "GET", path).status == 404


@pytest.mark.parametrize(
    "scopes",
    [
        {"scope": ADMIN_SCOPE},
        {"scope": f"openid {ADMIN_SCOPE} email"},
        {"scp": ADMIN_SCOPE},
        {"scp": ["openid", ADMIN_SCOPE]},
    ],
)
def test_admin_scope_gives_access_to_every_user(
    cloud: Cloud, issuer: Issuer, scopes: dict[str, Any]
) -> None:
    token = issuer.token("machine", **scopes)
    path = "/customers/user-of-admin"

    assert call(cloud, token, "POST", "/customers", body_of("user-of-admin")).status == 201
    adoption = {"stripe_id": call(cloud, token, "GET", path).body["stripe_id"]}
    assert call(cloud, token, "PUT", path, adoption).status == 200
    assert call(cloud, token, "POST", f"{path}/sync").status == 200
    assert call(cloud, token, "DELETE", path).status == 204


def bad_tokens(issuer: Issuer) -> dict[str, str | None]:
    """Invalid tokens of B."""
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    head, _, signature = issuer.token(B).split(".")
    _, claims_of_a, _ = issuer.token(A).split(".")
    now = int(time.time())
    public = issuer.documents()["/keys"]["keys"][0]["n"]
    return {
        "none": None,
        "not a token": "token",
        "expired": issuer.token(B, exp=now - 10),
        "not valid yet": issuer.token(B, nbf=now + 3600),
        "of another audience": issuer.token(B, aud="other"),
        "of another issuer": issuer.token(B, iss="https://elsewhere.example"),
        "signed with another key": issuer.token(B, key=other_key),
        "with the signature of other claims": f"{head}.{claims_of_a}.{signature}",
        "alg none": jwt.encode(issuer.claims(B), "", "none", {"kid": "key-1"}),
        "signed with the public key": jwt.encode(
            issuer.claims(B), public, "HS256", {"kid": "key-1"}
        ),
        "of an unknown key": jwt.encode(issuer.claims(B), issuer.key, "RS256", {"kid": "key-2"}),
    }


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_bad_token_is_unauthorized(
    cloud: Cloud, issuer: Issuer, of_b: str, method: str, path: str
) -> None:
    responses = {
        why: call(cloud, token, method, path, body_for(method, path)).status
        for why, token in bad_tokens(issuer).items()
    }
    assert responses == dict.fromkeys(responses, 401)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        f"/customers/{quote(B, safe='').replace('-', '%2D')}",
        "/customers/%2575ser-b",
        f"//customers/{B}",
        f"/customers/{A}/../{B}",
        f"/customers/{A}%2F..%2F{B}",
        f"/customers/{A}%00{B}",
        f"/customers/{B}%20",
        f"/Customers/{B}",
        f"/customers/{B}?user_id={A}",
        f"/customers?user_id={A}&user_id={B}",
        f"/customers?user_id={B}%00",
    ],
)
def test_path_names_other_user(
    cloud: Cloud, issuer: Issuer, of_b: str, method: str, path: str
) -> None:
    assert call(cloud, issuer.token(A), method, path).status in (400, 403, 404, 422)


def test_number_as_subject_is_its_digits(cloud: Cloud, issuer: Issuer) -> None:
    """API Gateway passes every claim as text: no user's id is that of two subjects."""
    assert call(cloud, issuer.token("7"), "POST", "/customers", body_of("7")).status == 201
    assert call(cloud, issuer.token(7), "GET", "/customers/7").status == 200
    assert call(cloud, issuer.token(7), "POST", "/customers", body_of(7)).status == 403
