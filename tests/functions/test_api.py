"""The four functions behind the API: what they answer, and that bad input changes nothing."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import pytest

import functions.create_customer.app as create_customer
import functions.get_customer.app as get_customer
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
from stripe_integrations.context import use
from stripe_integrations.entrypoints.http import MAX_API_BODY_BYTES
from stripe_integrations.models import CustomerClaim
from tests.world import World
from tools.lambda_events import api_event, lambda_context

PROBLEM = "urn:stripe-integrations:problem:"


def problem_of(answer: dict[str, Any]) -> tuple[int, str]:
    """Status and type of a problem, checked to be one."""
    problem = answer["json"]
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert problem["status"] == answer["statusCode"]
    assert problem["title"]
    assert problem["detail"]
    return answer["statusCode"], problem["type"].removeprefix(PROBLEM)


def test_the_story_of_a_customer(world: World) -> None:
    created = world.create(name="Jane")
    again = world.create(name="Other")
    assert (created["statusCode"], again["statusCode"]) == (201, 200)
    assert created["json"] == again["json"] == world.get()["json"]
    assert created["json"]["name"] == "Jane"
    assert created["headers"]["content-type"] == "application/json"

    world.ask("POST", f"/v1/customers/{created['json']['stripe_id']}", {"name": "Jane Roe"})
    assert world.sync()["json"]["name"] == "Jane Roe"
    assert world.get()["json"]["name"] == "Jane Roe"

    deleted = world.delete()
    assert (deleted["statusCode"], "body" in deleted) == (204, False)
    assert problem_of(world.get()) == (404, "customer-not-found")
    new = world.create()
    assert new["statusCode"] == 201
    assert new["json"]["stripe_id"] != created["json"]["stripe_id"]


@pytest.mark.parametrize("operation", ["get", "sync", "delete"])
def test_an_unknown_user_is_not_found(world: World, operation: str) -> None:
    assert problem_of(getattr(world, operation)("u-none")) == (404, "customer-not-found")
    assert world.items() == []


@pytest.mark.parametrize("operation", ["sync", "delete"])
def test_a_customer_that_is_being_created_is_a_conflict(world: World, operation: str) -> None:
    CustomerClaim.acquire("u-1", {"stripe": {}, "local": {}})
    assert problem_of(getattr(world, operation)()) == (409, "customer-being-created")


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
        ("{}", 422, "invalid-field"),
        ('{"user_id": "u-1"}', 422, "invalid-field"),
        ('{"billing_email": "jane@example.com"}', 422, "invalid-field"),
        ('{"user_id": 7, "billing_email": "jane@example.com"}', 422, "invalid-field"),
        ('{"user_id": "", "billing_email": "jane@example.com"}', 422, "invalid-field"),
        ('{"user_id": "u-1", "billing_email": ["jane@example.com"]}', 422, "invalid-field"),
        (
            '{"user_id": "u-1", "billing_email": "j@example.com", "livemode": true}',
            422,
            "invalid-field",
        ),
        ('{"user_id": "u-1", "billing_email": "j@example.com", "user": {}}', 422, "invalid-field"),
        ('{"user_id": "u-1", "billing_email": "j@example.com", "self": 1}', 422, "invalid-field"),
        (
            '{"user_id": "u-1", "billing_email": "j@example.com", "name": "\\ud800"}',
            422,
            "invalid-field",
        ),
        ('{"x": "' + "x" * MAX_API_BODY_BYTES + '"}', 413, "request-too-large"),
    ],
)
def test_bad_input_gets_a_clear_answer_and_changes_nothing(
    world: World, body: str | None, status: int, kind: str
) -> None:
    answer = world.call(create_customer, api_event("POST", "/customers", body=body))
    assert problem_of(answer) == (status, kind)
    assert world.items() == []
    assert world.stripe_customers() == []


def test_the_refused_field_is_named(world: World) -> None:
    for name in ("livemode", "is_active", "user", "billing_email2"):
        answer = world.create(**{name: True})
        assert (answer["statusCode"], answer["json"]["field"]) == (422, name)
    answer = world.create(tax_exempt="perhaps")
    assert (answer["statusCode"], answer["json"]["field"]) == (422, "tax_exempt")


def test_a_base64_body_is_read(world: World) -> None:
    body = json.dumps({"user_id": "u-1", "billing_email": "jane@example.com"})
    event = api_event("POST", "/customers", body=base64.b64encode(body.encode()).decode())
    assert world.call(create_customer, {**event, "isBase64Encoded": True})["statusCode"] == 201
    event["body"] = "!!!"
    answer = world.call(create_customer, {**event, "isBase64Encoded": True})
    assert problem_of(answer) == (400, "malformed-request")


def test_a_body_that_is_not_json_by_its_media_type_is_refused(world: World) -> None:
    event = api_event("POST", "/customers", body="a=b", headers={"Content-Type": "text/plain"})
    del event["headers"]["content-type"]
    assert problem_of(world.call(create_customer, event)) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ({"status": 401}, 502, "stripe-refused"),
        ({"status": 403}, 502, "stripe-refused"),
        ({"status": 404, "code": "resource_missing"}, 502, "stripe-refused"),
        ({"status": 429}, 503, "stripe-unavailable"),
        ({"status": 500}, 503, "stripe-unavailable"),
    ],
)
def test_stripe_refusing_or_out_of_reach_is_told(
    world: World, fault: dict[str, Any], status: int, kind: str
) -> None:
    world.create()
    before = world.items()
    world.stripe.faults.fail_next(None, **fault)
    answer = world.sync()
    assert problem_of(answer) == (status, kind)
    assert ("retry-after" in answer["headers"]) is (status == 503)
    assert world.items() == before


def test_a_token_opens_only_its_own_users_customer(world: World) -> None:
    world.create("u-1")
    other = {"sub": "u-2"}
    body = json.dumps({"user_id": "u-1", "billing_email": "jane@example.com"})
    for function, event in (
        (get_customer, api_event("GET", "/customers/u-1", "u-1", claims=other)),
        (sync_customer, api_event("POST", "/customers/u-1/sync", "u-1", claims=other)),
        (soft_delete_customer, api_event("DELETE", "/customers/u-1", "u-1", claims=other)),
        (create_customer, api_event("POST", "/customers", body=body, claims=other)),
    ):
        assert problem_of(world.call(function, event)) == (403, "forbidden")
    nobody = api_event("GET", "/customers/u-1", "u-1", claims={"client_id": "machine"})
    assert problem_of(world.call(get_customer, nobody)) == (403, "forbidden")
    own = api_event("GET", "/customers/u-1", "u-1", claims={"sub": "u-1"})
    assert world.call(get_customer, own)["statusCode"] == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": "openid customers/admin"},
        {"scp": "[openid customers/admin]"},
        {"sub": "u-2", "scope": "customers/admin"},
    ],
)
def test_a_token_with_the_admin_scope_opens_every_users_customer(
    table_name: str, claims: dict[str, str]
) -> None:
    world = World(table_name, jwt_admin_scope="customers/admin")
    with use(world.context):
        body = json.dumps({"user_id": "u-1", "billing_email": "jane@example.com"})
        created = world.call(
            create_customer, api_event("POST", "/customers", body=body, claims=claims)
        )
        read = api_event("GET", "/customers/u-1", "u-1", claims=claims)
        assert created["statusCode"] == 201
        assert world.call(get_customer, read)["statusCode"] == 200


@pytest.mark.parametrize(
    ("scope", "claims"),
    [
        ("customers/admin", {"sub": "u-2", "scope": "customers/administrator"}),
        ("customers/admin", {"sub": "u-2", "scope": "xcustomers/admin customers/admin2"}),
        ("customers/admin", {"sub": "customers/admin"}),
        ("customers/admin", {"sub": "u-2", "scope": ["customers/admin"]}),
        ("customers/admin", {"sub": "u-2", "scope": "[customers/admin]"}),
        ("customers/admin", {"sub": "u-2", "scp": "[[customers/admin]]"}),
        ("customers/admin", {"sub": "u-2", "scope": "openid\u00a0customers/admin"}),
        ("customers/admin", {"sub": "u-2", "scope": "openid\ncustomers/admin"}),
        (None, {"sub": "u-2", "scope": "None"}),
        (None, {"sub": "u-2", "scope": ""}),
    ],
)
def test_any_other_scope_opens_nothing(
    table_name: str, scope: str | None, claims: dict[str, Any]
) -> None:
    world = World(table_name, jwt_admin_scope=scope)
    with use(world.context):
        world.create("u-1")
        read = api_event("GET", "/customers/u-1", "u-1", claims=claims)
        assert problem_of(world.call(get_customer, read)) == (403, "forbidden")


def test_a_fault_of_ours_shows_no_stack_trace_and_logs_no_value(
    world: World, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("jane@example.com")

    monkeypatch.setattr("stripe_integrations.actions.StripeCustomer.get", broken)
    answer = world.get()

    assert problem_of(answer) == (500, "internal-error")
    logged = log.getvalue()
    assert "KeyError" in logged
    assert "in_a_test" not in logged
    assert "broken" in logged
    assert "jane" not in answer["body"] + logged


def test_personal_data_is_in_no_log(world: World, log: io.StringIO) -> None:
    world.call(create_customer, api_event("POST", "/customers", body='{"Jane Roe": 1}'))
    world.create(name="Jane Roe", phone="+32 1", tax_exempt="perhaps")
    world.create(name="Jane Roe", phone="+32 1")
    world.stripe.faults.fail_next(1, status=402, message="jane@example.com was declined")
    world.sync()
    world.ask("POST", f"/v1/customers/{world.get()['json']['stripe_id']}", {"name": "Jane Poe"})
    world.stripe.faults.fail_next(3, status=400, message="jane@example.com was declined")
    world.settle()
    world.stripe.faults.clear()
    world.settle()
    world.deliver()
    world.delete()
    logged = log.getvalue()
    for told in (
        '"status":201',
        '"state":"pending"',
        "StripeRefusedError",
        '"stripe_event_id":"evt_',
    ):
        assert told in logged
    for value in ("jane", "Jane", "+32", "sk_test", "whsec", "u-1"):
        assert value not in logged, value


def test_records_that_are_left_out_are_told(table_name: str) -> None:
    world = World(table_name, stored_records=frozenset())
    with use(world.context):
        world.create()
        answer = world.sync()
    assert problem_of(answer) == (501, "records-not-stored")
    assert "Card and Subscription" in answer["json"]["detail"]


def test_records_that_are_left_out_later_are_not_answered(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.ask("POST", f"/v1/customers/{stripe_id}/sources", {"source": "tok_visa"})
    assert len(world.sync()["json"]["cards"]) == 1
    context = world.new_context()
    context.settings = replace(world.settings, stored_records=frozenset({"Subscription"}))
    with use(context):
        assert world.get()["json"]["cards"] == []


def test_an_invocation_without_time_asks_stripe_no_more(world: World) -> None:
    world.create()
    asked = len(world.stripe.requests)
    event = api_event("POST", "/customers/u-1/sync", "u-1")
    answer = sync_customer.handler(event, lambda_context(remaining_milliseconds=5_000))
    assert answer["statusCode"] == 503
    assert len(world.stripe.requests) == asked


def test_an_invocation_with_little_time_asks_stripe_once(world: World) -> None:
    world.create()
    world.stripe.faults.fail_next(None, status=503)
    asked = len(world.stripe.requests)
    event = api_event("POST", "/customers/u-1/sync", "u-1")
    answer = sync_customer.handler(event, lambda_context(remaining_milliseconds=12_000))
    assert answer["statusCode"] == 503
    assert len(world.stripe.requests) == asked + 1


def test_a_missing_setting_is_our_fault_and_named_in_the_log_only(
    world: World, log: io.StringIO
) -> None:
    world.settings.__dict__["api_key"] = None
    answer = world.create()
    assert problem_of(answer) == (500, "misconfigured")
    assert "STRIPE_API_KEY" not in answer["body"]
    assert "STRIPE_API_KEY" in log.getvalue()
