"""Stripe's events: kept before they are answered, linked, and applied once in effect."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
from stripe_integrations.errors import (
    CustomerNotFoundError,
    MalformedRequestError,
    StripeUnavailableError,
)
from stripe_integrations.models import Customer, CustomerClaim, Event, EventState
from tests.world import START, World

USER = User("u-1")
EMAIL = "jane@example.com"


@pytest.fixture
def customer(world: World) -> Customer:
    customer = StripeCustomer.create(USER, EMAIL)
    world.deliver_and_apply()
    return customer


def event(kind: str = "customer.updated", number: int = 1, **changes: Any) -> dict[str, Any]:
    """An event as Stripe sends it."""
    return {
        "id": f"evt_{number}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(START),
        "data": {"object": {"id": "cus_unknown", "object": "customer"}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": "req_1", "idempotency_key": None},
        "type": kind,
        **changes,
    }


# ---- received


def test_an_event_is_stored_with_its_fields_and_linked(world: World, customer: Customer) -> None:
    payload = event(data={"object": {"id": customer.stripe_id, "object": "customer"}})

    received = StripeEvent.receive(payload)

    for record in (received, Event.find("evt_1")):
        assert (record.stripe_id, record.kind) == ("evt_1", "customer.updated")
        assert (record.livemode, record.api_version) == (False, "2026-10-28.endive")
        assert (record.created, record.pending_webhooks) == (START, 1)
        assert record.request == {"id": "req_1", "idempotency_key": None}
        assert record.webhook_message == payload
        assert record.valid is True
        assert record.processed is False
        assert (record.customer_id, record.user_id) == (customer.stripe_id, "u-1")
        assert (record.state, record.attempts, record.expires_at) == ("pending", 0, None)


def test_receiving_keeps_to_its_budget_of_calls(world: World, customer: Customer) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Jane"})
    with world.counting() as counts:
        (answer,) = world.deliver()
    assert answer["statusCode"] == 200
    assert (counts.database, counts.stripe) == (2, 0)


def test_the_same_event_again_changes_nothing(world: World, customer: Customer) -> None:
    payload = event(data={"object": {"id": customer.stripe_id, "object": "customer"}})
    StripeEvent.receive(payload)
    StripeEvent.apply("evt_1")
    before = world.items()

    StripeEvent.receive(payload)
    StripeEvent.apply("evt_1")

    assert world.items() == before


CUSTOMER_NAMED = [
    ("customer.created", {"object": {"object": "customer", "id": "cus_1"}}),
    ("customer.updated", {"object": {"object": "customer", "id": "cus_1"}}),
    ("customer.deleted", {"object": {"object": "customer", "id": "cus_1"}}),
    ("customer.subscription.updated", {"object": {"object": "subscription", "customer": "cus_1"}}),
    ("customer.source.created", {"object": {"object": "card", "customer": "cus_1"}}),
    ("payment_method.attached", {"object": {"object": "payment_method", "customer": "cus_1"}}),
    (
        "payment_method.detached",
        {
            "object": {"object": "payment_method", "customer": None},
            "previous_attributes": {"customer": "cus_1"},
        },
    ),
    ("checkout.session.completed", {"object": {"object": "checkout.session", "customer": "cus_1"}}),
    ("invoice.paid", {"object": {"object": "invoice", "customer": "cus_1"}}),
    ("charge.succeeded", {"object": {"object": "charge", "customer": {"id": "cus_1"}}}),
    ("customer.discount.created", {"object": {"object": "discount", "customer": "cus_1"}}),
    ("customer.tax_id.created", {"object": {"object": "tax_id", "customer": "cus_1"}}),
]


@pytest.mark.parametrize(("kind", "data"), CUSTOMER_NAMED)
def test_every_type_that_names_a_customer_is_linked(
    world: World, kind: str, data: dict[str, Any]
) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    data = json.loads(json.dumps(data).replace("cus_1", customer.stripe_id))
    received = StripeEvent.receive(event(kind, data=data))

    assert (received.customer_id, received.user_id) == (customer.stripe_id, "u-1")


@pytest.mark.parametrize(
    "data",
    [{"object": {"object": "price"}}, {"object": None}, {}, None, {"object": {"customer": 7}}],
)
def test_an_event_that_names_no_customer_is_stored_and_done(
    world: World, data: dict[str, Any]
) -> None:
    received = StripeEvent.receive(event("price.created", data=data))
    assert (received.state, received.customer_id) == ("ignored", None)
    assert received.processed
    assert Event.find("evt_1").expires_at.timestamp() == START + 90 * 86400


def test_a_type_that_changes_no_record_is_linked_and_done(world: World, customer: Customer) -> None:
    received = StripeEvent.receive(
        event(
            "invoice.paid", data={"object": {"object": "invoice", "customer": customer.stripe_id}}
        )
    )
    assert (received.state, received.user_id) == ("ignored", "u-1")


def test_an_event_of_an_unknown_customer_waits(world: World) -> None:
    received = StripeEvent.receive(event())
    assert (received.state, received.user_id) == ("waiting", None)
    StripeEvent.apply("evt_1")
    assert Event.find("evt_1").state == "waiting"


def test_link_customer_says_that_a_customer_is_unknown(world: World) -> None:
    StripeEvent.receive(event())
    with pytest.raises(CustomerNotFoundError):
        StripeCustomer.link_customer(Event.find("evt_1"))


def test_link_customer_links_an_event_that_is_in_the_table_already(
    world: World, customer: Customer
) -> None:
    data = {"object": {"id": customer.stripe_id, "object": "customer"}}
    Event.received(event(data=data), valid=True).store()

    linked = StripeCustomer.link_customer(Event.find("evt_1"))

    assert linked.user_id == "u-1"
    assert Event.find("evt_1").user_id == "u-1"


def test_link_customer_finds_the_customer_of_an_event_that_was_just_received(
    world: World, customer: Customer
) -> None:
    data = {"object": {"id": customer.stripe_id, "object": "customer"}}
    linked = StripeCustomer.link_customer(Event.received(event(data=data), valid=True))
    assert (linked.user_id, linked.state) == ("u-1", "pending")
    assert Event.find("evt_1").user_id == "u-1"


def test_what_receive_returns_is_what_stands_in_the_table(world: World, customer: Customer) -> None:
    data = {"object": {"id": customer.stripe_id, "object": "customer"}}
    StripeEvent.receive(event(data=data))
    StripeEvent.apply("evt_1")
    assert StripeEvent.receive(event(data=data)).state == "applied"


def test_a_waiting_event_that_comes_again_is_linked_once_its_customer_is_known(
    world: World, customer: Customer
) -> None:
    data = {"object": {"id": customer.stripe_id, "object": "customer"}}
    early = Event.received(event(data=data), valid=True)
    early.wait()
    early.store()
    again = StripeEvent.receive(event(data=data))
    assert (again.user_id, again.state) == ("u-1", "waiting")
    StripeEvent.apply("evt_1")
    assert Event.find("evt_1").state == "applied"


def test_an_event_that_has_ended_stays_as_it_is(world: World, customer: Customer) -> None:
    data = {"object": {"id": customer.stripe_id, "object": "customer"}}
    StripeEvent.receive(event(data=data))
    with use(world.new_context()):
        slow = Event.claim("evt_1")
        world.time += 200
        StripeEvent.apply("evt_1")
    ended = world.items(record_type="Event", stripe_id="evt_1")
    world.time += 100

    slow.finish(EventState.IGNORED, "too late")
    slow.schedule_retry(ValueError())
    slow.continue_waiting()
    slow.fail("too late")

    assert world.items(record_type="Event", stripe_id="evt_1") == ended


def test_a_worker_that_is_overtaken_leaves_the_event_to_the_faster_one(
    world: World, customer: Customer
) -> None:
    data = {"object": {"id": customer.stripe_id, "object": "customer"}}
    StripeEvent.receive(event(data=data))

    def faster() -> None:
        world.during_sleep = lambda: None
        world.time += 200
        with use(world.new_context()):
            StripeEvent.apply("evt_1")
            StripeCustomer.soft_delete(StripeCustomer.get(USER))

    world.during_sleep = faster
    with use(world.new_context()):
        StripeEvent.apply("evt_1")
    record = Event.find("evt_1")
    assert (record.state, record.reason, record.attempts) == ("applied", None, 2)


def test_a_waiting_event_does_not_expire(world: World) -> None:
    data = {"object": {"object": "customer", "id": "cus_late"}}
    assert StripeEvent.receive(event(data=data)).state == "waiting"
    (item,) = world.items(record_type="Event")
    assert "expires_at" not in item


def test_link_customer_leaves_an_event_alone_that_names_no_customer(world: World) -> None:
    StripeEvent.receive(event("price.created", data={}))
    assert StripeCustomer.link_customer(Event.find("evt_1")).user_id is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"livemode": True}, "of the other mode"),
        ({"livemode": None}, "of the other mode"),
        ({"account": "acct_1"}, "of a connected account"),
        ({"object": "v2.core.event", "created": "2026-11-23T10:00:00.000Z"}, "API v1"),
    ],
)
def test_an_event_that_is_none_of_ours_is_ignored_with_its_reason(
    world: World, customer: Customer, changes: dict[str, Any], reason: str
) -> None:
    payload = event(data={"object": {"id": customer.stripe_id, "object": "customer"}}, **changes)
    received = StripeEvent.receive(payload)
    assert received.state == "ignored"
    assert reason in received.reason
    assert received.user_id is None


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": "cus_1"},
        {"id": 7},
        {"id": "evt_" + "x" * 300},
        {"type": None},
    ],
)
def test_what_is_no_event_is_malformed(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequestError):
        StripeEvent.receive(event(**changes))
    assert world.items() == []


@pytest.mark.parametrize(
    "odd",
    [
        {"created": None},
        {"created": -1},
        {"created": 10**40},
        {"created": 1.5},
        {"created": "9999999-01-01"},
        {"livemode": 1},
        {"livemode": [False]},
        {"api_version": 7},
        {"api_version": ["2026"]},
        {"api_version": "\ud800"},
        {"type": "customer.\ud800"},
        {"pending_webhooks": "many"},
        {"pending_webhooks": 1.5},
        {"pending_webhooks": True},
        {"request": {"id": "x" * 500_000}},
        {"request": "\ud800"},
        {"data": {"object": {"object": "customer", "id": "cus_" + "x" * 3000}}},
        {"data": {"object": {"object": "customer", "id": ["cus_1"]}}},
        {"data": {"object": {"object": "customer", "id": "cus_1", "name": "\ud800"}}},
    ],
)
def test_whatever_is_odd_about_an_event_it_is_stored(world: World, odd: dict[str, Any]) -> None:
    received = StripeEvent.receive(event(**odd))
    stored = Event.find("evt_1")
    assert stored.state == received.state
    assert stored.webhook_message["id"] == "evt_1"
    StripeEvent.apply("evt_1")
    assert Event.find("evt_1").created > 0


def test_a_payload_that_is_too_large_for_the_table_is_left_out(
    world: World, customer: Customer
) -> None:
    noise = random.Random(1).randbytes(600_000).hex()
    data = {"object": {"id": customer.stripe_id, "object": "customer", "description": noise}}
    StripeEvent.receive(event(data=data))

    assert Event.find("evt_1").webhook_message is None
    StripeEvent.apply("evt_1")
    assert Event.find("evt_1").state == "applied"


def test_a_large_payload_is_kept_compressed(world: World, customer: Customer) -> None:
    data = {"object": {"id": customer.stripe_id, "object": "customer", "description": "x" * 10**6}}
    StripeEvent.receive(event(data=data))
    assert Event.find("evt_1").webhook_message["data"] == data


# ---- applied


def test_what_happens_on_stripe_comes_through(world: World, customer: Customer) -> None:
    stripe_id = customer.stripe_id
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Newest"})
    method = world.ask(
        "POST", "/v1/payment_methods", {"type": "card", "card": {"token": "tok_visa"}}
    )
    world.ask("POST", f"/v1/payment_methods/{method['id']}/attach", {"customer": stripe_id})
    world.deliver_and_apply()

    record = StripeCustomer.get(USER)
    assert record.name == "Newest"
    assert [card.stripe_id for card in record.cards] == [method["id"]]

    world.ask("POST", f"/v1/payment_methods/{method['id']}/detach")
    world.deliver_and_apply()

    assert StripeCustomer.get(USER).cards == []
    assert set(world.event_states().values()) <= {"applied", "ignored"}


def test_applying_keeps_to_its_budget_of_database_calls(world: World, customer: Customer) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
    world.deliver()
    (waiting,) = world.items(record_type="Event", state="pending")
    with world.counting() as counts:
        StripeEvent.apply(waiting["stripe_id"])
    assert counts.operations == ["UpdateItem", "Query", "TransactWriteItems"]


def test_old_events_in_any_order_leave_what_stripe_has(world: World, customer: Customer) -> None:
    for number in range(4):
        world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": f"Name {number}"})
    world.stripe.webhooks.hold()
    world.stripe.webhooks.release("reversed")
    for delivery in world.stripe.webhooks.due():
        world.webhook(delivery.body, delivery.headers)
        world.stream((f"EVENT#{delivery.event_id}", "EVENT"))
    assert StripeCustomer.get(USER).name == "Name 3"


def test_a_customer_that_is_deleted_on_stripe_is_soft_deleted(
    world: World, customer: Customer
) -> None:
    world.ask("DELETE", f"/v1/customers/{customer.stripe_id}")
    world.deliver_and_apply()
    assert StripeCustomer.get(USER) is None
    assert world.event_states()["customer.deleted"] == "applied"


def test_an_event_changes_nothing_of_a_soft_deleted_record(
    world: World, customer: Customer
) -> None:
    StripeCustomer.soft_delete(customer)
    before = world.items(record_type="Customer")
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
    world.deliver_and_apply()
    assert world.items(record_type="Customer") == before
    (record,) = world.items(record_type="Event", kind="customer.updated")
    assert (record["state"], record["reason"]) == ("ignored", "the customer is soft-deleted")


def test_customer_created_finishes_a_create_that_got_no_further_than_stripe(world: World) -> None:
    world.stripe.faults.time_out(None, match="POST /v1/customers", when="after")
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL, currency="eur")
    world.stripe.faults.clear()

    world.deliver_and_apply()

    (on_stripe,) = world.stripe_customers()
    customer = StripeCustomer.get(USER)
    assert (customer.stripe_id, customer.currency) == (on_stripe["id"], "eur")
    (record,) = world.items(record_type="Event")
    assert (record["kind"], record["state"]) == ("customer.created", "applied")
    assert (record["customer_id"], record["user_id"]) == (on_stripe["id"], "u-1")
    assert StripeCustomer.create(USER, EMAIL).stripe_id == on_stripe["id"]


def test_customer_created_of_somebody_elses_customer_is_not_adopted(world: World) -> None:
    CustomerClaim.acquire("u-1", {"stripe": {"email": EMAIL}, "local": {}})
    for metadata in ({}, {"stripe_integrations_user_id": "u-1"}):
        world.ask("POST", "/v1/customers", {"email": EMAIL, "metadata": metadata})
    world.deliver_and_apply()
    assert StripeCustomer.get(USER) is None
    assert set(world.event_states().values()) == {"waiting"}


def test_events_ahead_of_their_customer_are_applied_once_it_is_known(world: World) -> None:
    StripeCustomer.create(USER, EMAIL)
    (on_stripe,) = world.stripe_customers()
    pointers = [item for item in world.items() if item["sk"] == "POINTER"]
    for item in pointers:
        Event.connection().delete_item(world.settings.table_name, item["pk"], item["sk"])
    world.ask("POST", f"/v1/customers/{on_stripe['id']}", {"name": "Newest"})
    world.deliver()
    assert world.event_states()["customer.updated"] == "waiting"
    Event.connection().put_item(
        world.settings.table_name,
        pointers[0]["pk"],
        "POINTER",
        attributes={"user_id": {"S": "u-1"}, "record_type": {"S": "Pointer"}},
    )

    world.stream(("USER#u-1", f"CUSTOMER#{on_stripe['id']}"))

    assert StripeCustomer.get(USER).name == "Newest"
    assert world.event_states()["customer.updated"] == "applied"


def test_an_event_that_changes_no_record_does_not_wait_for_its_customer(world: World) -> None:
    data = {"object": {"object": "invoice", "customer": "cus_late"}}
    received = StripeEvent.receive(event("invoice.paid", data=data))
    assert (received.state, received.customer_id) == ("ignored", "cus_late")


def test_a_failed_try_is_counted_and_keeps_its_kind_of_error(
    world: World, customer: Customer
) -> None:
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Secret Name"})
    world.deliver()
    (item,) = world.items(record_type="Event", state="pending")
    world.stripe.faults.fail_next(None, status=503)

    answer = world.stream((item["pk"], "EVENT"))

    assert answer == {"batchItemFailures": []}
    record = Event.find(item["stripe_id"])
    assert (record.state, record.attempts) == ("pending", 1)
    assert record.last_error == "StripeUnavailableError"

    world.stripe.faults.clear()
    world.time += 60
    assert world.stream((item["pk"], "EVENT")) == {"batchItemFailures": []}
    record = Event.find(item["stripe_id"])
    assert (record.state, record.attempts, record.last_error) == ("applied", 2, None)
    assert StripeCustomer.get(USER).name == "Secret Name"


def test_one_failing_event_does_not_hold_up_the_others(world: World, customer: Customer) -> None:
    other = StripeCustomer.create(User("u-2"), EMAIL)
    for record in (customer, other):
        world.ask("POST", f"/v1/customers/{record.stripe_id}", {"name": "Newest"})
    world.deliver()
    keys = [
        (item["pk"], "EVENT") for item in world.items(record_type="Event", kind="customer.updated")
    ]
    world.stripe.faults.fail_next(2, status=503)

    world.stream(*keys)

    names = {StripeCustomer.get(USER).name, StripeCustomer.get(User("u-2")).name}
    assert names == {None, "Newest"}


def test_an_event_that_is_not_there_is_nothing_to_do(world: World) -> None:
    StripeEvent.apply("evt_none")
    assert world.items() == []


@pytest.mark.parametrize("stored", [frozenset(), frozenset({"Card"}), frozenset({"Subscription"})])
def test_a_deployment_without_cards_or_subscriptions_applies_what_it_keeps(
    table_name: str, stored: frozenset[str]
) -> None:
    world = World(table_name, stored_records=stored)
    with use(world.context):
        customer = StripeCustomer.create(USER, EMAIL)
        world.ask("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"})
        world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": "Newest"})
        world.deliver_and_apply()
        record = StripeCustomer.get(USER)
        assert record.name == "Newest"
        assert len(record.cards) == ("Card" in stored)
