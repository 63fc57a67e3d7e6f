"""The double's webhooks: signed as Stripe signs, repeated until they are accepted."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import stripe

from local.stripe_double import StripeDouble
from local.stripe_double.webhooks import Delivery
from tests.local.conftest import START, Clock

SECRET = "whsec_double_current"
PREVIOUS = "whsec_double_previous"
URL = "http://127.0.0.1:9/webhook"


@pytest.fixture(autouse=True)
def endpoint(double: StripeDouble) -> Any:
    return double.webhooks.add_endpoint(URL, SECRET)


def verify(delivery: Delivery, secret: str) -> stripe.Event:
    header = delivery.headers["Stripe-Signature"]
    # The real clock decides on the tolerance, and ours is ahead of it.
    construct: Any = stripe.Webhook.construct_event
    event: stripe.Event = construct(delivery.body, header, secret, tolerance=10**9)
    return event


def subjects(double: StripeDouble) -> list[str]:
    return [json.loads(delivery.body)["data"]["object"]["id"] for delivery in double.webhooks.due()]


class TestSignature:
    def test_stripe_verifies(self, api: Any, double: StripeDouble) -> None:
        api.customers.create({"name": "Zoë ✓"})
        (delivery,) = double.webhooks.due()
        event = verify(delivery, SECRET)
        assert (event.type, event.data.object.name) == ("customer.created", "Zoë ✓")
        assert event.pending_webhooks == 1
        with pytest.raises(stripe.SignatureVerificationError):
            verify(delivery, "whsec_double_other")

    def test_rolled_secret_signs_twice(self, api: Any, double: StripeDouble, endpoint: Any) -> None:
        endpoint.secrets.insert(0, PREVIOUS)
        api.customers.create()
        (delivery,) = double.webhooks.due()
        assert verify(delivery, SECRET).id == verify(delivery, PREVIOUS).id


class TestDeliveries:
    def test_due_until_accepted(self, api: Any, double: StripeDouble) -> None:
        api.customers.create()
        (first,) = double.webhooks.due()
        assert [delivery.event_id for delivery in double.webhooks.due()] == [first.event_id]
        double.webhooks.mark(first, 200)
        assert double.webhooks.due() == []
        assert api.events.retrieve(first.event_id).pending_webhooks == 0

    def test_repeated_ever_later_for_three_days(
        self, api: Any, double: StripeDouble, clock: Clock
    ) -> None:
        api.customers.create()
        attempts = []
        while double.webhooks.pending_count():
            for delivery in double.webhooks.due():
                attempts.append(clock.time - START)
                signed_at = int(delivery.headers["Stripe-Signature"].split(",")[0][2:])
                assert signed_at == int(clock.time)
                double.webhooks.mark(delivery, 503)
            clock.time = double.webhooks.next_due() or clock.time
        pauses = [later - earlier for earlier, later in pairwise(attempts)]
        assert pauses[:4] == [60, 120, 240, 480]
        assert attempts[-1] <= 3 * 24 * 3600 < attempts[-1] + 2 * pauses[-1]

    def test_endpoint_gets_its_types(self, api: Any, double: StripeDouble) -> None:
        double.webhooks.add_endpoint(f"{URL}/2", SECRET, ["customer.deleted", "invoice.*"])
        api.customers.delete(api.customers.create().id)
        assert [(delivery.url, delivery.event_type) for delivery in double.webhooks.due()] == [
            (URL, "customer.created"),
            (URL, "customer.deleted"),
            (f"{URL}/2", "customer.deleted"),
        ]

    def test_dropped_and_duplicated(self, api: Any, double: StripeDouble) -> None:
        double.webhooks.drop_next(1, "customer.created")
        double.webhooks.duplicate_next(1, "customer.created")
        dropped, twice, once = (api.customers.create().id for _ in range(3))
        assert subjects(double) == [twice, twice, once]
        listed = [event.data.object.id for event in api.events.list().data]
        assert listed == [once, twice, dropped]

    def test_held_and_released_in_another_order(self, api: Any, double: StripeDouble) -> None:
        double.webhooks.hold()
        made = [api.customers.create().id for _ in range(5)]
        assert double.webhooks.due() == []
        double.webhooks.release("reversed")
        assert subjects(double) == made[::-1]
        double.webhooks.release("random")
        assert subjects(double) not in (made, made[::-1])
        assert sorted(subjects(double)) == sorted(made)

    def test_older_version_has_older_shape(self, api: Any, double: StripeDouble) -> None:
        double.webhooks.add_endpoint(f"{URL}/old", SECRET, api_version="2024-06-20")
        price = {"currency": "usd", "recurring": {"interval": "month"}, "unit_amount": 5}
        price_id = api.prices.create({**price, "product_data": {"name": "Plan"}}).id
        items = [{"price": price_id}]
        customer = api.customers.create().id
        api.subscriptions.create({"customer": customer, "items": items, "trial_period_days": 7})
        new, old = (
            json.loads(delivery.body)
            for delivery in double.webhooks.due()
            if delivery.event_type == "customer.subscription.created"
        )
        assert (new["api_version"], old["api_version"]) == (stripe.api_version, "2024-06-20")
        (item,) = new["data"]["object"]["items"]["data"]
        assert old["data"]["object"]["current_period_end"] == item["current_period_end"]
        assert "current_period_end" not in old["data"]["object"]["items"]["data"][0]

    def test_endpoint_made_over_api(self, api: Any, double: StripeDouble) -> None:
        given = {"url": f"{URL}/api", "enabled_events": ["customer.updated"]}
        endpoint = api.webhook_endpoints.create(given)
        customer = api.customers.create().id
        api.customers.update(customer, {"name": "Ada"})
        (delivery,) = [d for d in double.webhooks.due() if d.url.endswith("/api")]
        assert verify(delivery, endpoint.secret).type == "customer.updated"

    def test_endpoints_are_listed_newest_first(self, api: Any) -> None:
        given = {"enabled_events": ["customer.updated"], "metadata": {"of": "dev"}}
        older, newer = (
            api.webhook_endpoints.create({"url": f"{URL}/{name}", **given})
            for name in ("older", "newer")
        )
        listed = api.webhook_endpoints.list({"limit": 2}).data
        assert [endpoint.id for endpoint in listed] == [newer.id, older.id]
        found = api.webhook_endpoints.retrieve(older.id)
        assert (found.url, found.metadata["of"]) == (f"{URL}/older", "dev")
        assert "secret" not in found

    def test_endpoint_is_disabled_and_given_other_events(
        self, api: Any, double: StripeDouble
    ) -> None:
        given = {"url": f"{URL}/api", "enabled_events": ["customer.deleted"]}
        endpoint = api.webhook_endpoints.create(given)
        enabled = {"enabled_events": ["customer.created"], "disabled": True, "url": f"{URL}/new"}
        assert api.webhook_endpoints.update(endpoint.id, enabled).status == "disabled"
        api.customers.create()
        assert not [d for d in double.webhooks.due() if d.url.endswith("/new")]
        assert api.webhook_endpoints.update(endpoint.id, {"disabled": False}).status == "enabled"
        api.customers.create()
        assert len([d for d in double.webhooks.due() if d.url.endswith("/new")]) == 1

    def test_deleted_endpoint_gets_no_deliveries(self, api: Any, double: StripeDouble) -> None:
        given = {"url": f"{URL}/api", "enabled_events": ["*"]}
        endpoint = api.webhook_endpoints.create(given)
        api.customers.create()
        assert api.webhook_endpoints.delete(endpoint.id).deleted
        assert not [d for d in double.webhooks.due() if d.url.endswith("/api")]
        with pytest.raises(stripe.InvalidRequestError, match="No such webhook_endpoint"):
            api.webhook_endpoints.retrieve(endpoint.id)
