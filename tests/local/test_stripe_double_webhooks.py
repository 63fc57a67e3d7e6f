"""Webhook deliveries pulled from the double, on a clock of our own."""

import json
import random
from itertools import pairwise

import pytest
import stripe

from local.stripe_double import StripeDouble, sign
from local.stripe_double.webhooks import Delivery

START = 1_800_000_000
SECRET = "whsec_double_current"
PREVIOUS = "whsec_double_previous"
URL = "http://127.0.0.1:9/webhook"
KEY = {"Authorization": "Bearer sk_test_double"}


class World:
    def __init__(self) -> None:
        self.time = float(START)
        self.double = StripeDouble(now=lambda: self.time, random=random.Random(5))

    def customer(self, **params) -> str:
        return self.double.request("POST", "/v1/customers", params, KEY).body["id"]

    def due(self) -> list[Delivery]:
        return self.double.webhooks.due()

    def event(self, event_id: str) -> dict:
        return self.double.request("GET", f"/v1/events/{event_id}", {}, KEY).body


@pytest.fixture
def world() -> World:
    world = World()
    world.double.webhooks.add_endpoint(URL, SECRET)
    return world


def verify(delivery: Delivery, secret: str) -> stripe.Event:
    header = delivery.headers["Stripe-Signature"]
    # The tolerance is judged by the real clock, ours is in the future.
    return stripe.Webhook.construct_event(delivery.body, header, secret, tolerance=10**9)


def test_a_delivery_is_signed_as_stripe_verifies_it(world):
    world.customer(name="Zoë ✓")
    (delivery,) = world.due()
    event = verify(delivery, SECRET)
    assert (event.type, event.data.object.name) == ("customer.created", "Zoë ✓")
    assert event.pending_webhooks == 1
    assert delivery.url == URL
    assert delivery.headers["Stripe-Signature"].startswith(f"t={START},v1=")
    assert delivery.body.decode().startswith('{\n  "id": "evt_')
    with pytest.raises(stripe.SignatureVerificationError):
        verify(delivery, "whsec_double_other")


def test_a_rolled_secret_signs_twice(world):
    endpoint = next(iter(world.double.webhooks.endpoints.values()))
    endpoint.secrets.insert(0, PREVIOUS)
    world.customer()
    (delivery,) = world.due()
    assert delivery.headers["Stripe-Signature"].count("v1=") == 2
    assert verify(delivery, SECRET).id == verify(delivery, PREVIOUS).id


def test_the_signature_is_the_librarys_own(world):
    payload = b'{"object": "event"}'
    header = stripe.WebhookSignature.generate_signature_header(payload.decode(), SECRET, START)
    assert sign(payload, SECRET, START + 0.7) == header


def test_a_delivery_is_due_until_it_is_accepted(world):
    world.customer()
    (first,) = world.due()
    assert [delivery.event_id for delivery in world.due()] == [first.event_id]
    world.double.webhooks.mark(first, 200)
    assert world.due() == []
    assert world.event(first.event_id)["pending_webhooks"] == 0
    world.double.webhooks.mark(first, 500)
    assert world.due() == []


def test_a_refused_delivery_comes_again_ever_later_for_three_days(world):
    world.customer()
    attempts = []
    while world.double.webhooks.pending_count():
        for delivery in world.due():
            attempts.append(world.time - START)
            signed_at = int(delivery.headers["Stripe-Signature"].split(",")[0][2:])
            assert signed_at == int(world.time)
            assert delivery.attempt == len(attempts)
            world.double.webhooks.mark(delivery, 503)
        world.time = world.double.webhooks.next_due() or world.time
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert pauses[:4] == [60, 120, 240, 480]
    assert pauses == sorted(pauses)
    assert attempts[-1] <= 3 * 24 * 3600 < attempts[-1] + 2 * pauses[-1]
    assert [entry["status"] for entry in world.double.webhooks.log] == [503] * len(attempts)


def test_an_endpoint_gets_the_types_it_wants(world):
    world.double.webhooks.add_endpoint(f"{URL}/2", SECRET, ["customer.deleted", "invoice.*"])
    customer = world.customer()
    world.double.request("DELETE", f"/v1/customers/{customer}", {}, KEY)
    got = [(delivery.url, delivery.event_type) for delivery in world.due()]
    assert got == [
        (URL, "customer.created"),
        (URL, "customer.deleted"),
        (f"{URL}/2", "customer.deleted"),
    ]
    assert json.loads(world.due()[1].body)["pending_webhooks"] == 2


def test_deliveries_are_dropped_and_duplicated_on_demand(world):
    webhooks = world.double.webhooks
    webhooks.drop_next(1, "customer.created")
    webhooks.duplicate_next(1, "customer.created")
    world.customer(name="dropped")
    world.customer(name="twice")
    world.customer(name="once")
    names = [json.loads(delivery.body)["data"]["object"]["name"] for delivery in world.due()]
    assert names == ["twice", "twice", "once"]
    events = world.double.request("GET", "/v1/events", {}, KEY).body["data"]
    assert [event["data"]["object"]["name"] for event in events] == ["once", "twice", "dropped"]


def test_deliveries_are_held_and_released_in_another_order(world):
    world.double.webhooks.hold()
    made = [world.customer() for _ in range(5)]
    assert world.due() == []
    assert world.double.webhooks.next_due() is None

    def order() -> list[str]:
        return [json.loads(delivery.body)["data"]["object"]["id"] for delivery in world.due()]

    world.double.webhooks.release()
    assert order() == made
    world.double.webhooks.release("reversed")
    assert order() == made[::-1]
    world.double.webhooks.release("random")
    assert order() not in (made, made[::-1])
    assert sorted(order()) == sorted(made)


def test_an_event_is_sent_again_on_demand(world):
    world.customer()
    (delivery,) = world.due()
    world.double.webhooks.mark(delivery, 200)
    world.double.webhooks.resend(delivery.event_id)
    assert [again.event_id for again in world.due()] == [delivery.event_id]


def test_a_removed_endpoint_gets_nothing_more(world):
    world.customer()
    (endpoint,) = world.double.webhooks.endpoints
    (delivery,) = world.due()
    world.double.webhooks.remove_endpoint(endpoint)
    world.customer()
    assert world.due() == []
    assert world.event(delivery.event_id)["pending_webhooks"] == 0


def test_an_endpoint_on_an_older_version_gets_the_older_shape(world):
    world.double.webhooks.add_endpoint(f"{URL}/old", SECRET, api_version="2024-06-20")
    customer = world.customer()
    recurring = {"interval": "month"}
    price = {
        "currency": "usd",
        "product_data": {"name": "Plan"},
        "recurring": recurring,
        "unit_amount": 5,
    }
    price_id = world.double.request("POST", "/v1/prices", price, KEY).body["id"]
    params = {"customer": customer, "items": [{"price": price_id}], "trial_period_days": 7}
    subscription = world.double.request("POST", "/v1/subscriptions", params, KEY).body
    new, old = (
        json.loads(delivery.body)
        for delivery in world.due()
        if delivery.event_type == "customer.subscription.created"
    )
    assert new["data"]["object"] == subscription
    assert (new["api_version"], old["api_version"]) == (stripe.api_version, "2024-06-20")
    shown = old["data"]["object"]
    item = subscription["items"]["data"][0]
    assert shown["current_period_end"] == item["current_period_end"]
    assert shown["quantity"] == 1
    assert "current_period_end" not in shown["items"]["data"][0]

    headers = {**KEY, "Stripe-Version": "2024-06-20"}
    path = f"/v1/subscriptions/{subscription['id']}"
    assert world.double.request("GET", path, {}, headers).body == shown


def test_as_many_deliveries_are_pulled_as_can_be_made_at_once(world):
    for name in ("first", "second", "third"):
        world.customer(name=name)
    first, second, third = world.due()
    pulled = world.double.webhooks.due(1, exclude={first.number})
    assert [delivery.event_id for delivery in pulled] == [second.event_id]
    pulled = world.double.webhooks.due(5, exclude={first.number, second.number})
    assert [delivery.event_id for delivery in pulled] == [third.event_id]
    assert world.double.webhooks.due(0) == []


def test_an_endpoint_that_is_made_over_the_api_gets_what_it_asked_for_signed_with_its_secret() -> (
    None
):
    world = World()
    asked = {"url": URL, "enabled_events": ["customer.updated"], "api_version": "2024-06-20"}
    endpoint = world.double.request("POST", "/v1/webhook_endpoints", asked, KEY).body
    customer = world.customer()
    world.double.request("POST", f"/v1/customers/{customer}", {"name": "Ada"}, KEY)

    (delivery,) = world.due()
    signature = delivery.headers["Stripe-Signature"]
    event = stripe.Webhook.construct_event(
        delivery.body, signature, endpoint["secret"], tolerance=None
    )

    assert (event.type, event.api_version) == ("customer.updated", "2024-06-20")
