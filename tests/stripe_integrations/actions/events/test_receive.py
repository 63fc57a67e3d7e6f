"""Receiving events: each is stored before the response, and linked to its customer."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.config import API_VERSION
from stripe_integrations.errors import CustomerNotFoundError, MalformedRequestError
from stripe_integrations.models import Customer, Event
from tests.world import START, Json, World, stored_event, stripe_event


def event_of(customer: Customer, **fields: Any) -> Json:
    """An event of a customer, with fields of the object in it."""
    return stripe_event(data={"object": {"id": customer.stripe_id, "object": "customer", **fields}})


class TestStored:
    def test_has_fields_and_link(self, world: World, customer: Customer) -> None:
        payload = event_of(customer)

        received = StripeEvent.receive(payload)

        for record in (received, stored_event("evt_1")):
            assert (record.stripe_id, record.kind) == ("evt_1", "customer.updated")
            assert (record.livemode, record.api_version) == (False, payload["api_version"])
            assert (record.created, record.pending_webhooks) == (START, 1)
            assert record.request == {"id": "req_1", "idempotency_key": None}
            assert record.webhook_message == payload
            assert record.valid is True
            assert record.processed is False
            assert (record.customer_id, record.user_id) == (customer.stripe_id, "u-1")
            assert (record.state, record.attempts) == ("pending", 0)

    def test_costs_two_database_calls(self, world: World, customer: Customer) -> None:
        world.deliver()
        world.rename(customer.stripe_id, "Jane")
        with world.counting() as counts:
            (response,) = world.deliver()
        assert response["statusCode"] == 200
        assert (counts.database, counts.stripe) == (2, 0)

    def test_repeated_delivery_changes_nothing(self, world: World, customer: Customer) -> None:
        payload = event_of(customer)
        StripeEvent.receive(payload)
        StripeEvent.apply("evt_1")
        before = world.items()

        assert StripeEvent.receive(payload).state == "applied"
        StripeEvent.apply("evt_1")

        assert world.items() == before

    def test_copy_in_our_api_version_replaces_unfinished_one_in_another(
        self, world: World, customer: Customer
    ) -> None:
        world.time += 10
        ours = {**event_of(customer, name="Jane"), "created": int(world.time)}
        StripeEvent.receive({**ours, "api_version": "2025-02-24.acacia"})

        received = StripeEvent.receive(ours)

        for record in (received, stored_event("evt_1")):
            assert (record.api_version, record.webhook_message) == (API_VERSION, ours)
            assert (record.state, record.turn) == ("pending", 0)
        world.time += 60
        with world.counting() as counts:
            StripeEvent.apply("evt_1")
        assert counts.stripe == 0
        assert world.get()["json"]["name"] == "Jane"

    @pytest.mark.parametrize("older", ["2025-02-24.acacia", None])
    def test_copy_in_other_api_version_replaces_nothing(
        self, world: World, customer: Customer, older: str | None
    ) -> None:
        ours = event_of(customer, name="Jane")
        StripeEvent.receive(ours)
        before = world.items()
        assert StripeEvent.receive({**ours, "api_version": older}).webhook_message == ours
        assert world.items() == before

    def test_copy_replaces_no_finished_payload(self, world: World, customer: Customer) -> None:
        ours = event_of(customer)
        StripeEvent.receive({**ours, "api_version": "2025-02-24.acacia"})
        StripeEvent.apply("evt_1")
        before = world.items()
        assert StripeEvent.receive(ours).state == "applied"
        assert world.items() == before

    def test_copy_of_foreign_event_is_not_stored(self, world: World) -> None:
        event = stripe_event()
        StripeEvent.receive({**event, "api_version": "2025-02-24.acacia"})
        before = world.items()
        StripeEvent.receive(event)
        assert world.items() == before
        assert stored_event("evt_1").webhook_message is None

    def test_too_large_payload_is_omitted(self, world: World, customer: Customer) -> None:
        noise = random.Random(1).randbytes(600_000).hex()
        StripeEvent.receive(event_of(customer, description=noise))

        assert stored_event("evt_1").webhook_message is None
        StripeEvent.apply("evt_1")
        assert stored_event("evt_1").state == "applied"

    def test_large_payload_is_compressed(self, world: World, customer: Customer) -> None:
        payload = event_of(customer, description="x" * 10**6)
        StripeEvent.receive(payload)
        assert stored_event("evt_1").webhook_message == payload

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"livemode": True}, "of the other mode"),
            ({"livemode": None}, "of the other mode"),
            ({"account": "acct_1"}, "of a connected account"),
            ({"object": "v2.core.event", "created": "2026-11-23T10:00:00.000Z"}, "API v1"),
        ],
    )
    def test_event_of_other_mode_account_or_api_is_ignored(
        self, world: World, customer: Customer, changes: Json, reason: str
    ) -> None:
        received = StripeEvent.receive({**event_of(customer), **changes})
        assert received.state == "ignored"
        assert reason in str(received.reason)
        assert received.user_id is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": None},
            {"id": "cus_1"},
            {"id": 7},
            {"id": "evt_" + "x" * 300},
            {"id": "evt_\ud800"},
            {"type": None},
            {"type": "x" * 300_000},
        ],
        ids=range(7),
    )
    def test_malformed_event_is_not(self, world: World, changes: Json) -> None:
        with pytest.raises(MalformedRequestError):
            StripeEvent.receive(stripe_event(**changes))
        assert world.items() == []

    @pytest.mark.parametrize(
        "odd",
        [
            {"created": None},
            {"created": -1},
            {"created": 10**40},
            {"created": START + 1.5},
            {"created": "9999999-01-01"},
            {"livemode": 1},
            {"livemode": [False]},
            {"account": "x" * 420_000},
            {"api_version": 7},
            {"api_version": ["2026"]},
            {"api_version": "\ud800"},
            {"api_version": "x" * 420_000},
            {"type": "customer.\ud800"},
            {"pending_webhooks": "many"},
            {"pending_webhooks": 1.5},
            {"pending_webhooks": True},
            {"pending_webhooks": 10**40},
            {"request": {"id": "x" * 500_000}},
            {"request": "\ud800"},
            {"data": {"object": {"object": "customer", "id": "cus_" + "x" * 3000}}},
            {"data": {"object": {"object": "customer", "id": ["cus_1"]}}},
            {"data": {"object": {"object": "customer", "id": "cus_1", "name": "\ud800"}}},
        ],
        ids=range(22),
    )
    def test_odd_event_is(self, world: World, customer: Customer, odd: Json) -> None:
        odd = json.loads(json.dumps(odd).replace("cus_1", customer.stripe_id))
        received = StripeEvent.receive({**event_of(customer), **odd})
        stored = stored_event("evt_1")
        assert stored.state == received.state
        if stored.user_id is None and stored.state == "ignored":
            assert stored.webhook_message is None
        else:
            assert (stored.webhook_message or {})["id"] == "evt_1"
        StripeEvent.apply("evt_1")
        assert stored_event("evt_1").state in ("applied", "ignored", "waiting")
        assert stored_event("evt_1").created > 0


class TestLink:
    @pytest.mark.parametrize(
        ("kind", "data"),
        [
            ("customer.created", {"object": {"object": "customer", "id": "cus_1"}}),
            ("customer.updated", {"object": {"object": "customer", "id": "cus_1"}}),
            ("customer.deleted", {"object": {"object": "customer", "id": "cus_1"}}),
            (
                "customer.subscription.updated",
                {"object": {"object": "subscription", "customer": "cus_1"}},
            ),
            ("customer.source.created", {"object": {"object": "card", "customer": "cus_1"}}),
            (
                "payment_method.attached",
                {"object": {"object": "payment_method", "customer": "cus_1"}},
            ),
            (
                "payment_method.detached",
                {
                    "object": {"object": "payment_method", "customer": None},
                    "previous_attributes": {"customer": "cus_1"},
                },
            ),
            (
                "checkout.session.completed",
                {"object": {"object": "checkout.session", "customer": "cus_1"}},
            ),
            ("invoice.paid", {"object": {"object": "invoice", "customer": "cus_1"}}),
            ("charge.succeeded", {"object": {"object": "charge", "customer": {"id": "cus_1"}}}),
            ("customer.discount.created", {"object": {"object": "discount", "customer": "cus_1"}}),
            ("customer.tax_id.created", {"object": {"object": "tax_id", "customer": "cus_1"}}),
        ],
    )
    def test_every_type_that_names_a_customer(
        self, world: World, customer: Customer, kind: str, data: Json
    ) -> None:
        data = json.loads(json.dumps(data).replace("cus_1", customer.stripe_id))
        received = StripeEvent.receive(stripe_event(kind, data=data))
        assert (received.customer_id, received.user_id) == (customer.stripe_id, "u-1")

    @pytest.mark.parametrize(
        "data",
        [{"object": {"object": "price"}}, {"object": None}, {}, None, {"object": {"customer": 7}}],
    )
    def test_event_without_customer_is_ignored(self, world: World, data: Json | None) -> None:
        received = StripeEvent.receive(stripe_event("price.created", data=data))
        assert (received.state, received.customer_id) == ("ignored", None)
        assert received.processed
        assert StripeCustomer.link_customer(stored_event("evt_1")).user_id is None

    def test_event_that_changes_no_record_does_not_wait(self, world: World) -> None:
        data = {"object": {"object": "invoice", "customer": "cus_late"}}
        received = StripeEvent.receive(stripe_event("invoice.paid", data=data))
        assert (received.state, received.customer_id) == ("ignored", "cus_late")

    def test_event_of_unknown_customer_waits(self, world: World) -> None:
        received = StripeEvent.receive(stripe_event())
        assert (received.state, received.user_id) == ("waiting", None)
        assert stored_event("evt_1").webhook_message is None
        with pytest.raises(CustomerNotFoundError):
            StripeCustomer.link_customer(stored_event("evt_1"))

    def test_customer_of_another_deployment_waits(self, world: World) -> None:
        """The webhook's role has no access to the claims of users."""
        metadata = {
            "stripe_integrations_user_id": "u-1",
            "stripe_integrations_token": "other/1",
        }
        world.request("POST", "/v1/customers", {"email": "jane@example.com", "metadata": metadata})
        assert [response["statusCode"] for response in world.deliver()] == [200]
        assert world.event_states() == {"customer.created": "waiting"}

    @pytest.mark.parametrize("is_stored", [True, False])
    def test_link_customer_links_event(
        self, world: World, customer: Customer, is_stored: bool
    ) -> None:
        event = Event.received(event_of(customer), valid=True)
        if is_stored:
            event.store()
            event = stored_event("evt_1")

        linked = StripeCustomer.link_customer(event)

        assert (linked.user_id, linked.state) == ("u-1", "pending")
        assert stored_event("evt_1").user_id == "u-1"

    def test_repeated_delivery_links_waiting_event(self, world: World, customer: Customer) -> None:
        early = Event.received(event_of(customer), valid=True)
        early.wait()
        early.store()
        again = StripeEvent.receive(event_of(customer))
        assert (again.user_id, again.state) == ("u-1", "pending")
        StripeEvent.apply("evt_1")
        assert stored_event("evt_1").state == "applied"
