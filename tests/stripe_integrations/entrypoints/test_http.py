"""HTTP: which bodies and tokens are accepted, and how unexpected failures are reported."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, ClassVar, NamedTuple

import pytest

import functions.adopt_customer.app as adopt_customer
import functions.create_customer.app as create_customer
import functions.get_customer.app as get_customer
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
import functions.update_customer.app as update_customer
from stripe_integrations.config import Authorizer
from stripe_integrations.entrypoints.caller import OWN_FIELDS
from stripe_integrations.entrypoints.http import MAX_API_BODY_BYTES
from stripe_integrations.models import Customer
from stripe_integrations.models.fields import fields_of
from tests.world import EMAIL, Json, World, problem_of
from tools.lambda_events import api_event

BODY = json.dumps({"user_id": "u-1", "billing_email": EMAIL})
OWN = json.dumps({"billing_email": EMAIL, "name": "Jane"})
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


def requests_of(user_id: str, claims: dict[str, Any] | None = None) -> list[tuple[Any, Json]]:
    """A request to each route of the API, and the function that it invokes."""
    path = f"/customers/{user_id}"
    body = json.dumps({"user_id": user_id, "billing_email": EMAIL})
    return [
        (create_customer, api_event("POST", "/customers", body=body, claims=claims)),
        (get_customer, api_event("GET", path, user_id, claims=claims)),
        (update_customer, api_event("PATCH", path, user_id, body=OWN, claims=claims)),
        (sync_customer, api_event("POST", f"{path}/sync", user_id, claims=claims)),
        (soft_delete_customer, api_event("DELETE", path, user_id, claims=claims)),
    ]


def adoption(user_id: str, claims: dict[str, Any] | None = None) -> tuple[Any, Json]:
    """A request to adopt a customer that Stripe does not have, and the function that it invokes."""
    body = json.dumps({"stripe_id": "cus_1"})
    event = api_event("PUT", f"/customers/{user_id}", user_id, body=body, claims=claims)
    return adopt_customer, event


IAM = {"accountId": "123456789012"}
ADMIN_TOKEN = {"claims": {"sub": "u-1", "scope": ADMIN}, "scopes": None}


class TestAuthorizer:
    """A request that the deployment's authorizer did not authorize is refused."""

    @pytest.mark.parametrize(
        ("required", "authorizer"),
        [
            (Authorizer.IAM, None),
            (Authorizer.IAM, {}),
            (Authorizer.IAM, "iam"),
            (Authorizer.IAM, {"iam": None}),
            (Authorizer.IAM, {"jwt": ADMIN_TOKEN}),
            (Authorizer.IAM, {"iam": IAM, "jwt": ADMIN_TOKEN}),
            (Authorizer.IAM, {"lambda": {"sub": "u-1"}}),
            (Authorizer.JWT, None),
            (Authorizer.JWT, {}),
            (Authorizer.JWT, {"jwt": None}),
            (Authorizer.JWT, {"jwt": "token"}),
            (Authorizer.JWT, {"jwt": {"claims": None}}),
            (Authorizer.JWT, {"iam": IAM}),
            (Authorizer.JWT, {"iam": IAM, "jwt": ADMIN_TOKEN}),
            (Authorizer.JWT, {"lambda": ADMIN_TOKEN}),
        ],
    )
    def test_of_other_kind_is_forbidden(
        self, world: World, customer: Customer, required: Authorizer, authorizer: Any
    ) -> None:
        world.configure(api_authorizer=required, jwt_admin_scope=ADMIN)
        before = world.items()
        for function, event in [*requests_of("u-1"), adoption("u-1")]:
            event["requestContext"]["authorizer"] = authorizer
            assert problem_of(world.call(function, event)) == (403, "forbidden")
            del event["requestContext"]["authorizer"]
            assert problem_of(world.call(function, event)) == (403, "forbidden")
        assert world.items() == before

    @pytest.mark.parametrize(
        ("required", "authorizer"),
        [
            (Authorizer.IAM, {"iam": IAM}),
            (Authorizer.JWT, {"jwt": ADMIN_TOKEN}),
            (Authorizer.NONE, None),
            (Authorizer.NONE, {"iam": IAM}),
        ],
    )
    def test_accepts_configured_authorizer(
        self, world: World, required: Authorizer, authorizer: Any
    ) -> None:
        world.configure(api_authorizer=required, jwt_admin_scope=ADMIN)
        for function, event in requests_of("u-1"):
            event["requestContext"]["authorizer"] = authorizer
            assert world.call(function, event)["statusCode"] < 300


class TestFieldsOfToken:
    """Without the admin scope a token sets only the user's own fields."""

    OWN: ClassVar[Json] = {
        "name": "Jane",
        "phone": "+49",
        "address": {"city": "Berlin"},
        "shipping": {"name": "Jane", "address": {"city": "Berlin"}},
        "preferred_locales": ["de"],
    }

    def create(self, world: World, claims: Json, **fields: Any) -> Json:
        world.configure(api_authorizer=Authorizer.JWT, jwt_admin_scope=ADMIN)
        body = json.dumps({"user_id": "u-1", "billing_email": EMAIL, **fields})
        return world.call(
            create_customer, api_event("POST", "/customers", body=body, claims=claims)
        )

    def test_are_the_users_own(self, world: World) -> None:
        created = self.create(world, {"sub": "u-1"}, **self.OWN)
        assert created["statusCode"] == 201
        assert created["json"]["name"] == "Jane"

    @pytest.mark.parametrize(
        "name",
        ["nonsense", *sorted(fields_of(Customer).keys() - OWN_FIELDS - {"user_id", "balance"})],
    )
    def test_others_are_forbidden(self, world: World, name: str) -> None:
        refused = self.create(world, {"sub": "u-1"}, name="Jane", **{name: None}, balance=-100000)
        assert problem_of(refused) == (403, "forbidden")
        named = {error["field"] for error in refused["json"]["errors"]}
        assert named == {name, "balance"}
        assert (world.items(), world.stripe_customers()) == ([], [])

    @pytest.mark.parametrize("path", ["/customers/u-1", "/me"])
    def test_are_those_of_an_update(self, world: World, customer: Customer, path: str) -> None:
        world.configure(api_authorizer=Authorizer.JWT, jwt_admin_scope=ADMIN)
        user_id = None if path == "/me" else "u-1"

        def update(**fields: Any) -> Json:
            body = json.dumps(fields)
            event = api_event("PATCH", path, user_id, body=body, claims={"sub": "u-1"})
            return world.call(update_customer, event)

        assert update(**self.OWN, billing_email=None)["json"]["name"] == "Jane"
        before = world.items()
        refused = update(name="Jane Roe", balance=-100000, metadata=None)
        assert problem_of(refused) == (403, "forbidden")
        assert {e["field"] for e in refused["json"]["errors"]} == {"balance", "metadata"}
        assert world.items() == before

    def test_are_all_with_the_admin_scope(self, world: World) -> None:
        claims = {"sub": "machine", "scope": ADMIN}
        created = self.create(world, claims, balance=-100000, metadata={"plan": "pro"})
        assert created["json"]["balance"] == -100000
        assert created["json"]["metadata"]["plan"] == "pro"


class TestAuthorization:
    """A JWT permits its own user; with the admin scope, any user."""

    def test_token_permits_own_user_only(self, world: World, customer: Customer) -> None:
        world.configure(api_authorizer=Authorizer.JWT)
        for function, event in [
            *requests_of("u-1", {"sub": "u-2"}),
            adoption("u-1", {"sub": "u-2"}),
        ]:
            assert problem_of(world.call(function, event)) == (403, "forbidden")
        own = api_event("GET", "/customers/u-1", "u-1", claims={"sub": "u-1"})
        assert world.call(get_customer, own)["statusCode"] == 200

    def test_token_permits_no_adoption(self, world: World) -> None:
        world.configure(api_authorizer=Authorizer.JWT, jwt_admin_scope=ADMIN)
        function, event = adoption("u-1", {"sub": "u-1"})
        assert problem_of(world.call(function, event)) == (403, "forbidden")
        function, event = adoption("u-1", {"sub": "u-1", "scope": ADMIN})
        assert problem_of(world.call(function, event)) == (404, "customer-not-found")

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
        world.configure(api_authorizer=Authorizer.JWT, jwt_admin_scope=scope)
        create = api_event("POST", "/customers", body=BODY, claims=claims)
        assert world.call(create_customer, create)["statusCode"] == status
        get = api_event("GET", "/customers/u-1", "u-1", claims=claims)
        assert world.call(get_customer, get)["statusCode"] == status


CLAIMS = {"sub": "u-1"}


class MeRoute(NamedTuple):
    """A route for the user of a token, and a body for it."""

    function: Any
    method: str
    path: str
    body: str | None

    def event(self, claims: Json) -> Json:
        return api_event(self.method, self.path, body=self.body, claims=claims)


@pytest.mark.parametrize(
    "route",
    [
        MeRoute(create_customer, "POST", "/me", OWN),
        MeRoute(get_customer, "GET", "/me", None),
        MeRoute(update_customer, "PATCH", "/me", OWN),
        MeRoute(sync_customer, "POST", "/me/sync", None),
    ],
    ids=["create", "get", "update", "sync"],
)
class TestMeRoutes:
    """The routes `/me`: the customer of the user to whom the token belongs, in every deployment."""

    @pytest.fixture(autouse=True, params=[Authorizer.IAM, Authorizer.JWT, Authorizer.NONE])
    def deployment(self, world: World, customer: Customer, request: pytest.FixtureRequest) -> None:
        world.configure(api_authorizer=request.param, jwt_admin_scope=ADMIN)

    def test_is_of_subject(self, world: World, route: MeRoute) -> None:
        event = route.event({"sub": "u-1", "scope": "openid"})
        response = world.call(route.function, event)
        assert (response["statusCode"], response["json"]["user_id"]) == (200, "u-1")

    def test_admin_scope_has_no_effect(self, world: World, route: MeRoute) -> None:
        admin = {"sub": "u-2", "scope": ADMIN}
        response = world.call(route.function, route.event(admin))
        if route.function is create_customer:
            assert (response["statusCode"], response["json"]["user_id"]) == (201, "u-2")
            fields = json.dumps({"billing_email": EMAIL, "balance": -1})
            response = world.call(route.function, route._replace(body=fields).event(admin))
            assert problem_of(response) == (403, "forbidden")
        else:
            assert problem_of(response) == (404, "customer-not-found")

    @pytest.mark.parametrize(
        "changes",
        [
            {"rawQueryString": "user_id=u-1"},
            {"rawQueryString": "user_id=u-2"},
            {"rawQueryString": "x"},
            {"pathParameters": {"user_id": "u-2"}},
            {"body": json.dumps({"user_id": "u-2", "billing_email": EMAIL})},
            {"body": json.dumps({"user_id": "u-1", "billing_email": EMAIL})},
            {"body": json.dumps({"user_id": None, "billing_email": EMAIL})},
        ],
    )
    def test_request_that_names_user_is_refused(
        self, world: World, route: MeRoute, changes: Json
    ) -> None:
        before = world.items()
        event = {**route.event(CLAIMS), **changes}
        response = world.call(route.function, event)
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == "user_id"
        assert world.items() == before

    @pytest.mark.parametrize("subject", [None, "", 7, ["u-1"]])
    def test_needs_subject(self, world: World, route: MeRoute, subject: Any) -> None:
        before = world.items()
        event = route.event({"sub": subject})
        assert problem_of(world.call(route.function, event)) == (403, "forbidden")
        assert world.items() == before

    @pytest.mark.parametrize(
        "authorizer",
        [None, {}, {"iam": IAM}, {"iam": IAM, "jwt": ADMIN_TOKEN}, {"lambda": ADMIN_TOKEN}],
    )
    def test_needs_jwt(self, world: World, route: MeRoute, authorizer: Any) -> None:
        before = world.items()
        event = route.event(CLAIMS)
        event["requestContext"]["authorizer"] = authorizer
        assert problem_of(world.call(route.function, event)) == (403, "forbidden")
        assert world.items() == before


@pytest.mark.parametrize("required", Authorizer)
@pytest.mark.parametrize(
    ("function", "method", "path"),
    [
        (soft_delete_customer, "DELETE", "/me"),
        (get_customer, "GET", "/me/sync"),
        (get_customer, "GET", "/me/"),
    ],
)
def test_other_route_is_not_for_the_user_of_a_token(
    world: World, required: Authorizer, function: Any, method: str, path: str
) -> None:
    """A soft delete is the backend's, even if a route for it is added by mistake."""
    world.create()
    world.configure(api_authorizer=required)
    before = world.items()
    response = world.call(function, api_event(method, path, claims=CLAIMS))
    assert response["statusCode"] == (403 if required is Authorizer.IAM else 422)
    assert world.items() == before


def test_jwt_is_refused_under_customers(world: World, customer: Customer) -> None:
    """Both authorizers are on one API: each route demands its own."""
    world.configure(jwt_admin_scope=ADMIN)
    admin = {"sub": "u-1", "scope": ADMIN}
    for function, event in requests_of("u-1", admin):
        assert problem_of(world.call(function, event)) == (403, "forbidden")
    for function, event in requests_of("u-1"):
        assert world.call(function, event)["statusCode"] < 300


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
