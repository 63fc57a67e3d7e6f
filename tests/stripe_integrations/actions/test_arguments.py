"""What the actions accept: users with ids of any type, Stripe's objects, and records of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import stripe

from local.stripe_double.webhooks import sign
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models import Customer
from tests.world import EMAIL, WEBHOOK_SECRET, Json, World, stored_event

EVENT = "stripe._event.Event"


def constructed(payload: Json, now: float) -> stripe.Event:
    """An event as a view gets it from Stripe's library."""
    body = json.dumps(payload)
    header = sign(body.encode(), WEBHOOK_SECRET, now)
    event: stripe.Event = stripe.Webhook.construct_event(
        body, header, WEBHOOK_SECRET, tolerance=10**9
    )
    return event


class TestUserId:
    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            (5, "5"),
            (-5, "-5"),
            (0, "0"),
            (2**128, str(2**128)),
            (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
            ("é/?#", "é/?#"),
        ],
    )
    def test_integer_and_uuid_are_stored_as_text(
        self, world: World, given: Any, stored: str
    ) -> None:
        customer = StripeCustomer.create(SimpleNamespace(id=given), EMAIL)
        assert customer.user_id == stored
        for user in (User(given), User(stored)):
            assert StripeCustomer.require(user).stripe_id == customer.stripe_id

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (True, "bool"),
            (5.0, "float"),
            (None, "User without id"),
            (b"u-1", "bytes"),
            (["u-1"], "list"),
            (10**400, "int"),
        ],
    )
    def test_other_type_is_named(self, world: World, given: Any, named: str) -> None:
        with pytest.raises(InvalidFieldError, match=rf"user_id: .*{named}$"):
            StripeCustomer.get(User(given))


class TestStripeObject:
    def test_event_of_stripes_library_is_received(self, world: World, customer: Customer) -> None:
        world.attach_card(customer.stripe_id)
        world.subscribe(customer.stripe_id)
        payload = world.payload("customer.subscription.created")
        item = payload["data"]["object"]["items"]["data"][0]
        assert item["price"]["unit_amount_decimal"] == "500"  # a decimal in Stripe's library

        event = StripeEvent.receive(constructed(payload, world.time))

        assert stored_event(event.stripe_id).webhook_message == payload
        assert event.customer_id == customer.stripe_id
        StripeEvent.apply(event.stripe_id)
        (subscription,) = StripeCustomer.sync(customer).subscriptions
        assert subscription.stripe_id == payload["data"]["object"]["id"]

    def test_its_dict_is_received(self, world: World, customer: Customer) -> None:
        world.subscribe(customer.stripe_id)
        payload = world.payload("customer.subscription.created")
        event = constructed(payload, world.time)
        nested = {**event.to_dict(recursive=False)}
        for given in (event.to_dict(), nested):
            received = StripeEvent.receive({**given, "id": f"evt_{len(world.items())}"})
            stored = stored_event(received.stripe_id).webhook_message or {}
            assert stored["data"] == payload["data"]

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (None, "NoneType"),
            ("evt_1", "str"),
            (b"{}", "bytes"),
            ([], "list"),
            (stripe.Event, "type"),
            ({"id": "evt_1", "type": "x", "data": {1, 2}}, "set"),
        ],
    )
    def test_anything_else_is_named_by_type(self, world: World, given: Any, named: str) -> None:
        with pytest.raises(InvalidFieldError, match=rf"^payload: .*\b{named}\b"):
            StripeEvent.receive(given)


class TestRecord:
    @pytest.mark.parametrize(
        "action",
        [
            StripeCustomer.sync,
            StripeCustomer.soft_delete,
            StripeCustomer.link_customer,
            StripeEvent.apply,
            StripeEvent.replay,
            lambda given: StripeCustomer.sync_from_stripe_data(given, {"id": "cus_1"}),
            lambda given: StripeCustomer.sync(given, {"id": "cus_1"}),
        ],
    )
    def test_of_other_type_is_refused(self, world: World, action: Callable[[Any], object]) -> None:
        event = constructed({"id": "evt_1", "object": "event", "email": EMAIL}, world.time)
        for given, named in ((None, "NoneType"), (event, EVENT), (User("u-1"), "User")):
            with pytest.raises(InvalidFieldError, match=named) as refusal:
                action(given)
            assert EMAIL not in str(refusal.value)
        assert world.items() == []

    @pytest.mark.parametrize("action", [StripeCustomer.sync_from_stripe_data, StripeCustomer.sync])
    def test_customer_of_stripe_of_other_type_is_refused(
        self, world: World, customer: Customer, action: Callable[[Customer, Any], Customer]
    ) -> None:
        with pytest.raises(InvalidFieldError, match=r"^stripe_customer: .*not str$"):
            action(customer, "cus_1")
