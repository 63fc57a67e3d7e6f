"""The five functions behind the API, as their callers see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import functions.create_customer.app as create_customer
import functions.sync_customer.app as sync_customer
import functions.update_customer.app as update_customer
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY
from stripe_integrations.models import Customer, CustomerClaim
from tests.world import EMAIL, World, problem_of
from tools.lambda_events import api_event


def test_life_of_customer(world: World) -> None:
    created = world.create(name="Jane")
    again = world.create(name="Other")
    assert (created["statusCode"], again["statusCode"]) == (201, 200)
    assert created["json"] == {**world.get()["json"], "existing": False}
    assert created["json"]["name"] == "Jane"
    assert again["json"] == {**created["json"], "existing": True}
    assert created["headers"]["content-type"] == "application/json"

    updated = world.update(phone="+32", metadata={"plan": "pro"})
    assert updated["statusCode"] == 200
    assert updated["json"] == world.get()["json"]
    assert (updated["json"]["phone"], updated["json"]["name"]) == ("+32", "Jane")
    assert world.update(phone=None)["json"]["phone"] is None

    world.rename(created["json"]["stripe_id"], "Jane Roe")
    assert world.sync()["json"]["name"] == "Jane Roe"
    assert world.get()["json"]["name"] == "Jane Roe"

    deleted = world.delete()
    assert (deleted["statusCode"], "body" in deleted) == (204, False)
    assert problem_of(world.get()) == (404, "customer-not-found")
    new = world.create()
    assert new["statusCode"] == 201
    assert new["json"]["stripe_id"] != created["json"]["stripe_id"]


def test_existing_customer_is_adopted(world: World) -> None:
    made = world.request("POST", "/v1/customers", {"email": EMAIL, "name": "Jane"})
    adopted, again = world.adopt(made["id"]), world.adopt(made["id"], take_over=True)
    assert (adopted["statusCode"], again["statusCode"]) == (201, 200)
    assert adopted["json"] == again["json"] == world.get()["json"]
    assert (adopted["json"]["stripe_id"], adopted["json"]["name"]) == (made["id"], "Jane")
    assert problem_of(world.adopt(made["id"], "u-2")) == (409, "customer-of-another-user")
    other = world.request("POST", "/v1/customers", {"metadata": {TOKEN_KEY: "shop-prod/1-a"}})
    assert problem_of(world.adopt(other["id"])) == (409, "user-has-another-customer")
    assert problem_of(world.adopt(other["id"], "u-2")) == (409, "take-over-required")
    assert world.adopt(other["id"], "u-2", take_over=True)["statusCode"] == 201
    assert problem_of(world.adopt("cus_unknown", "u-3")) == (404, "customer-not-found")


class TestAdoptedFields:
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"stripe_id": None}, "stripe_id"),
            ({"take_over": "yes"}, "take_over"),
            ({"name": "Jane"}, "name"),
        ],
    )
    def test_invalid_one_is_named(self, world: World, fields: Any, field: str) -> None:
        response = world.adopt(**{"stripe_id": "cus_1", **fields})
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == field
        assert world.items() == []


class TestState:
    @pytest.mark.parametrize("operation", ["get", "update", "sync", "delete"])
    def test_unknown_user_is_not_found(self, world: World, operation: str) -> None:
        assert problem_of(getattr(world, operation)("u-none")) == (404, "customer-not-found")
        assert world.items() == []

    @pytest.mark.parametrize("operation", ["update", "sync", "delete"])
    def test_customer_being_created_is_conflict(self, world: World, operation: str) -> None:
        CustomerClaim.acquire("u-1", {"stripe": {}, "local": {}})
        assert problem_of(getattr(world, operation)()) == (409, "customer-being-created")

    def test_kinds_that_are_not_stored(self, world: World) -> None:
        stripe_id = world.create()["json"]["stripe_id"]
        world.request("POST", f"/v1/customers/{stripe_id}/sources", {"source": "tok_visa"})
        assert len(world.sync()["json"]["cards"]) == 1
        world.configure(stored_records=frozenset({"Subscription"}))
        assert world.get()["json"]["cards"] == []
        world.configure(stored_records=frozenset())
        response = world.sync()
        assert problem_of(response) == (501, "records-not-stored")
        assert "Card and Subscription" in response["json"]["detail"]


class TestFields:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "user_id"),
            ({"user_id": "u-1"}, "billing_email"),
            ({"billing_email": EMAIL}, "user_id"),
            ({"user_id": 7, "billing_email": EMAIL}, "user_id"),
            ({"user_id": "", "billing_email": EMAIL}, "user_id"),
            ({"user_id": "u-1", "billing_email": [EMAIL]}, "billing_email"),
            *(
                ({"user_id": "u-1", "billing_email": EMAIL, name: value}, name)
                for name, value in {
                    "livemode": True,
                    "is_active": True,
                    "user": {},
                    "self": 1,
                    "billing_email2": EMAIL,
                    "tax_exempt": "perhaps",
                    "name": "\ud800",
                }.items()
            ),
        ],
    )
    def test_invalid_field_is_named(self, world: World, body: dict[str, Any], field: str) -> None:
        event = api_event("POST", "/customers", body=json.dumps(body))
        response = world.call(create_customer, event)
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == field
        assert response["json"]["errors"][0].keys() == {"field", "detail"}
        assert (world.items(sk="CLAIM"), world.stripe_customers()) == ([], [])

    def test_all_invalid_fields_are_named_at_once(self, world: World) -> None:
        body = {"user_id": "u-1", "email": EMAIL, "balance": "7"}
        response = world.call(
            create_customer, api_event("POST", "/customers", body=json.dumps(body))
        )
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == "billing_email"
        assert response["json"]["errors"] == [
            {"field": "billing_email", "detail": "is missing"},
            {"field": "email", "detail": "must be passed as billing_email"},
            {"field": "balance", "detail": "must be a whole number"},
        ]


class TestUpdate:
    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"email": EMAIL}, "email"),
            ({"user_id": "u-1"}, "user_id"),
            ({"user_id": "u-2", "name": "Jane"}, "user_id"),
            ({"idempotency_key": "k-1"}, "idempotency_key"),
            ({"customer": {}}, "customer"),
            ({"self": 1}, "self"),
            ({"currency": "eur"}, "currency"),
            ({"balance": None}, "balance"),
            ({"tax_exempt": "perhaps"}, "tax_exempt"),
            ({"name": "\ud800"}, "name"),
        ],
    )
    def test_invalid_field_is_named(
        self, world: World, customer: Customer, fields: dict[str, Any], named: str
    ) -> None:
        before = world.items()
        event = api_event("PATCH", "/customers/u-1", "u-1", body=json.dumps(fields))
        response = world.call(update_customer, event)
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == named
        assert world.items() == before

    def test_deleted_customer_is_not_found(self, world: World, customer: Customer) -> None:
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        assert problem_of(world.update(name="Jane")) == (404, "customer-not-found")
        assert problem_of(world.get()) == (404, "customer-not-found")

    def test_header_is_the_idempotency_key(self, world: World, customer: Customer) -> None:
        key = {"Idempotency-Key": "k-1"}
        assert world.update(headers=key, name="Jane")["json"]["name"] == "Jane"
        world.rename(customer.stripe_id, "Newest")
        assert world.update(headers=key, name="Jane")["json"]["name"] == "Newest"

        response = world.update(headers=key, name="Other")
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == "idempotency_key"

    def test_malformed_body_is_refused(self, world: World, customer: Customer) -> None:
        for body in (None, "{", "[]"):
            event = api_event("PATCH", "/customers/u-1", "u-1", body=body)
            assert problem_of(world.call(update_customer, event)) == (400, "malformed-request")


class TestStripeFailures:
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
    def test_status_says_whether_to_retry(
        self, world: World, customer: Customer, fault: dict[str, Any], status: int, kind: str
    ) -> None:
        before = world.items()
        world.stripe.faults.fail_next(None, **fault)
        response = world.sync()
        assert problem_of(response) == (status, kind)
        assert ("retry-after" in response["headers"]) is (status == 503)
        assert world.items() == before

    @pytest.mark.parametrize(("milliseconds", "calls"), [(5_000, 0), (12_000, 1)])
    def test_remaining_time_limits_calls(
        self, world: World, customer: Customer, milliseconds: int, calls: int
    ) -> None:
        world.stripe.faults.fail_next(None, status=503)
        event = api_event("POST", "/customers/u-1/sync", "u-1")
        with world.counting() as counts:
            response = world.invoke(sync_customer, event, milliseconds)
        assert (response["statusCode"], counts.stripe) == (503, calls)
