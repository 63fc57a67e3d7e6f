"""The user's id in a path or in a query: which are accepted, and whom they reach."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import functions.adopt_customer.app as adopt_customer
import functions.get_customer.app as get_customer
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
import functions.update_customer.app as update_customer
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.config import Authorizer
from stripe_integrations.models import Customer
from tests.world import EMAIL, Json, World, problem_of
from tools.lambda_events import api_event


class Route(NamedTuple):
    """A route, by what it has after the user's id, with its function and a body for it."""

    method: str
    function: Any
    tail: str
    body: str | None = None

    def event(self, path: str, user_id: str | None = None, **more: Any) -> Json:
        return api_event(self.method, path, user_id, body=self.body, **more)


def routes(*others: Route) -> pytest.MarkDecorator:
    """Run a test for each route of a user's own customer, and for these others."""
    of_own = [
        Route("GET", get_customer, ""),
        Route("PATCH", update_customer, "", '{"name": "Jane"}'),
        Route("POST", sync_customer, "/sync"),
        Route("DELETE", soft_delete_customer, ""),
    ]
    return pytest.mark.parametrize("route", [*of_own, *others], ids=lambda route: route.method)


ROUTES = routes()
ALL_ROUTES = routes(Route("PUT", adopt_customer, "", '{"stripe_id": "cus_1"}'))
SAFE = ["u-1", "sync", "customers", "5", "a@b.c", "auth:1~2_3", "-", "A" * 500]
ANY = [
    *SAFE,
    "a?b",
    "a/b",
    "a b",
    "a+b",
    "a&user_id=u-1",
    "%41",
    "a%3Fb",
    "é😀",
    ".",
    "..",
    "#",
    "\n",
]
UNSAFE = [
    *("a?b", "a/b", "a b", "a+b", "a%3Fb", "a%b", "é", "a#b", "a;b", "a|b", "a\\b", "a\n", "\x00"),
    *(".", "..", ".a", "", "\uff41", "٣"),
]
SAME_IN_QUERY = ["user_id=u%2D1", "user%5Fid=u-1", "user_id=%75-1"]
INVALID_QUERIES = [
    *("", "user_id", "user_id=", "=u-1", "&", "user=u-1", "USER_ID=u-1"),
    *("user_id=u-1&user_id=u-1", "user_id=u-1&user_id=u-2", "user_id=u-1&x=1", "x=1&user_id=u-1"),
    *(
        "user_id=u-1&",
        "&user_id=u-1",
        "user_id[]=u-1",
        "user_id=a+b",
        "user_id=%FF",
        "user_id=%",
        "user_id=%4",
    ),
    "user_id=" + "u" * 501,
]


class TestPath:
    @ROUTES
    @pytest.mark.parametrize("user_id", SAFE)
    def test_safe_id_is_accepted(self, world: World, route: Route, user_id: str) -> None:
        StripeCustomer.create(User(user_id), EMAIL)
        for prefix in ("", "/v1"):
            event = route.event(f"{prefix}/customers/{user_id}{route.tail}", user_id)
            status = world.call(route.function, event)["statusCode"]
            assert status < 300 or (route.method == "DELETE" and prefix and status == 404)

    @ALL_ROUTES
    @pytest.mark.parametrize("user_id", UNSAFE)
    def test_other_id_is_refused(self, world: World, route: Route, user_id: str) -> None:
        event = route.event(f"/customers/{user_id}{route.tail}", user_id)
        response = world.call(route.function, event)
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == "user_id"

    @ALL_ROUTES
    @pytest.mark.parametrize(
        ("path", "query"),
        [
            ("/customers/u-1?b", ""),
            ("/customers/u-1%3Fb", ""),
            ("/customers/u-10", ""),
            ("/customers/u-2", ""),
            ("/customers", ""),
            ("/", ""),
            ("", ""),
            (None, ""),
            ("/customers/u-1", "b"),
            ("/customers/u-1", "user_id=u-1"),
            ("/customers/u-1", "user_id=u-2"),
            ("/customers/u-1", ["user_id=u-1"]),
        ],
    )
    def test_id_that_differs_from_raw_path_is_refused(
        self,
        world: World,
        customer: Customer,
        route: Route,
        path: Any,
        query: Any,
    ) -> None:
        event = route.event("/customers/u-1", "u-1")
        event |= {"rawPath": path and path + route.tail, "rawQueryString": query}
        assert problem_of(world.call(route.function, event)) == (422, "invalid-field")
        assert StripeCustomer.require(User("u-1"))


class TestQuery:
    @ROUTES
    @pytest.mark.parametrize("user_id", ANY)
    def test_any_id_is_accepted(self, world: World, route: Route, user_id: str) -> None:
        customer = StripeCustomer.create(User(user_id), EMAIL)
        other = StripeCustomer.create(User("u-other"), EMAIL)
        query = "user_id=" + "".join(f"%{byte:02X}" for byte in user_id.encode())
        response = world.call(route.function, route.event(f"/customers{route.tail}", query=query))
        assert response["statusCode"] < 300
        if route.method == "DELETE":
            assert StripeCustomer.get(User(user_id)) is None
        else:
            assert response["json"]["stripe_id"] == customer.stripe_id
        assert StripeCustomer.require(User("u-other")).version == other.version

    @ROUTES
    @pytest.mark.parametrize("query", SAME_IN_QUERY)
    def test_is_decoded_once(
        self, world: World, customer: Customer, route: Route, query: str
    ) -> None:
        event = route.event(f"/customers{route.tail}", query=query)
        assert world.call(route.function, event)["statusCode"] < 300

    @ALL_ROUTES
    @pytest.mark.parametrize("query", INVALID_QUERIES)
    def test_other_query_is_refused(
        self, world: World, customer: Customer, route: Route, query: str
    ) -> None:
        event = route.event(f"/customers{route.tail}", query=query)
        # What API Gateway has parsed is not used.
        event["queryStringParameters"] = {"user_id": "u-1"}
        response = world.call(route.function, event)
        assert problem_of(response) == (422, "invalid-field")
        assert StripeCustomer.require(User("u-1")).stripe_id == customer.stripe_id

    @ROUTES
    def test_is_of_the_tokens_user(self, world: World, customer: Customer, route: Route) -> None:
        world.configure(api_authorizer=Authorizer.JWT)
        for subject, status in (("u-2", 403), ("u-1", 200 if route.method != "DELETE" else 204)):
            claims = {"sub": subject}
            event = route.event(f"/customers{route.tail}", query="user_id=u-1", claims=claims)
            assert world.call(route.function, event)["statusCode"] == status
