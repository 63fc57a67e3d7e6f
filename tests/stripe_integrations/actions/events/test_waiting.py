"""Events ahead of their customer wait for it, by whichever way it becomes known."""

from __future__ import annotations

from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.errors import StripeRefusedError, StripeUnavailableError
from stripe_integrations.models import Card, CustomerClaim, Event, Pointer
from tests.world import World

USER = User("u-1")
EMAIL = "jane@example.com"
DAY = 86400


@pytest.fixture
def on_stripe(world: World) -> str:
    """A customer that a create of ours has made on Stripe, and did not come back with."""
    world.stripe.faults.time_out(1, match="POST /v1/customers", should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    (customer,) = world.stripe_customers()
    return str(customer["id"])


@pytest.fixture
def waiting(world: World, on_stripe: str) -> str:
    """An event of that customer, received."""
    world.time += 10
    world.ask("POST", f"/v1/customers/{on_stripe}", {"name": "Newest"})
    payload = world.payload("customer.updated")
    assert StripeEvent.receive(payload).state == "waiting"
    return str(payload["id"])


def receive_created(world: World, **changes: Any) -> str:
    payload = {**world.payload("customer.created"), **changes}
    StripeEvent.receive(payload)
    return str(payload["id"])


def test_a_waiting_event_is_linked_and_applied_when_the_item_of_its_customer_is_new(
    world: World, on_stripe: str, waiting: str
) -> None:
    StripeCustomer.create(USER, EMAIL)
    world.stream(("USER#u-1", f"CUSTOMER#{on_stripe}"))
    event = Event.find(waiting)
    assert (event.state, event.user_id, event.customer_id) == ("applied", "u-1", on_stripe)
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_waiting_event_that_the_index_missed_is_applied_by_the_schedule(
    world: World, waiting: str
) -> None:
    StripeCustomer.create(USER, EMAIL)
    world.time += 200
    assert world.reconcile()["tried"] == 1
    event = Event.find(waiting)
    assert (event.state, event.user_id) == ("applied", "u-1")
    assert StripeCustomer.get(USER).name == "Newest"


def test_the_schedule_looks_again_and_again_and_such_an_event_does_not_expire(
    world: World,
) -> None:
    world.ask("POST", "/v1/customers", {"email": EMAIL})
    others = receive_created(world)
    for number in range(8):
        world.time = Event.find(others).next_try
        world.reconcile()
        event = Event.find(others)
        assert (event.state, event.attempts) == ("waiting", number + 1)
        assert event.expires_at is None
    assert world.dead_letters == []


def test_an_event_whose_customer_stays_unknown_for_a_day_is_ignored(
    world: World, waiting: str
) -> None:
    world.time += DAY - 1
    world.reconcile()
    assert Event.find(waiting).state == "waiting"
    world.time = Event.find(waiting).next_try
    world.reconcile()
    event = Event.find(waiting)
    assert (event.state, event.reason) == ("ignored", "not a customer of ours")
    assert event.expires_at.timestamp() == world.time + 90 * DAY


def test_a_waiting_event_is_tried_by_whoever_learns_of_its_customer(
    world: World, on_stripe: str, waiting: str
) -> None:
    StripeEvent.apply(waiting)
    assert Event.find(waiting).next_try > world.time
    StripeCustomer.create(USER, EMAIL)
    world.stream(("USER#u-1", f"CUSTOMER#{on_stripe}"))
    assert (Event.find(waiting).state, Event.find(waiting).attempts) == ("applied", 2)


def test_the_created_event_brings_the_waiting_ones_of_its_batch_along(
    world: World, waiting: str
) -> None:
    created = receive_created(world)
    world.stream()
    assert Event.find(created).state == Event.find(waiting).state == "applied"
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_create_is_finished_by_an_event_in_another_version_of_the_api(
    world: World, on_stripe: str
) -> None:
    created = receive_created(world, api_version="2025-02-24.acacia")
    StripeEvent.apply(created)
    assert StripeCustomer.get(USER).stripe_id == on_stripe
    assert Event.find(created).state == "applied"


def test_a_create_whose_customer_was_changed_since_is_finished_with_what_is_true_now(
    world: World, on_stripe: str
) -> None:
    world.time += 10
    world.ask("POST", f"/v1/customers/{on_stripe}", {"name": "Newest"})
    StripeEvent.apply(receive_created(world, api_version=None))
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_create_whose_customer_says_not_when_it_was_made_is_finished(
    world: World, on_stripe: str
) -> None:
    payload = world.payload("customer.created")
    del payload["data"]["object"]["created"]
    StripeEvent.receive(payload)
    StripeEvent.apply(payload["id"])
    assert StripeCustomer.get(USER).stripe_id == on_stripe


def test_a_create_whose_customer_is_gone_is_not_finished(world: World, on_stripe: str) -> None:
    created = receive_created(world, api_version=None)
    world.ask("DELETE", f"/v1/customers/{on_stripe}")
    StripeEvent.apply(created)
    assert Event.find(created).state == "waiting"
    assert StripeCustomer.get(USER) is None


def test_a_customer_of_a_former_token_is_come_back_to_only_if_it_is_still_there(
    world: World, on_stripe: str
) -> None:
    for is_there, state in ((False, "waiting"), (True, "applied")):
        created = receive_created(world)
        CustomerClaim.read("u-1").renew_token()
        if not is_there:
            world.stripe.account.deleted_customers.add(on_stripe)
        StripeEvent.apply(created)
        assert Event.find(created).state == state
        assert (StripeCustomer.get(USER) is not None) is is_there
        world.stripe.account.deleted_customers.clear()


def test_a_404_is_no_news_of_a_customer_that_is_not_known(world: World, on_stripe: str) -> None:
    created = receive_created(world, api_version=None)
    world.stripe.faults.fail_next(None, status=404, code="resource_missing")
    with pytest.raises(StripeRefusedError):
        StripeEvent.apply(created)
    assert Event.find(created).state == "pending"
    world.stripe.faults.clear()
    world.time = Event.find(created).next_try
    world.reconcile()
    assert Event.find(created).state == "applied"


def test_a_created_event_of_an_older_claim_adopts_nothing(world: World, on_stripe: str) -> None:
    old = world.payload("customer.created")
    customer = StripeCustomer.create(USER, EMAIL)
    StripeCustomer.soft_delete(customer)
    Pointer(f"STRIPE#{on_stripe}", "POINTER").delete()
    new = StripeCustomer.create(USER, EMAIL)
    StripeEvent.receive(old)
    StripeEvent.apply(old["id"])
    assert Event.find(old["id"]).state == "waiting"
    assert StripeCustomer.get(USER).stripe_id == new.stripe_id


def test_a_detached_card_that_names_no_customer_is_found_by_its_pointer(world: World) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    world.time += 10
    method = world.ask(
        "POST", "/v1/payment_methods", {"type": "card", "card": {"token": "tok_visa"}}
    )["id"]
    path = f"/v1/payment_methods/{method}"
    world.ask("POST", f"{path}/attach", {"customer": customer.stripe_id})
    world.deliver_and_apply()
    world.time += 10
    world.ask("POST", f"{path}/detach")
    payload = world.payload("payment_method.detached")
    del payload["data"]["previous_attributes"]

    received = StripeEvent.receive(payload)
    assert (received.user_id, received.customer_id) == ("u-1", customer.stripe_id)
    StripeEvent.apply(payload["id"])

    assert Event.find(payload["id"]).state == "applied"
    assert StripeCustomer.get(USER).cards == []


def test_a_detached_card_that_arrives_before_its_attach_is_found_once_that_was_applied(
    world: World,
) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    world.time += 10
    method = world.ask(
        "POST", "/v1/payment_methods", {"type": "card", "card": {"token": "tok_visa"}}
    )["id"]
    path = f"/v1/payment_methods/{method}"
    world.ask("POST", f"{path}/attach", {"customer": customer.stripe_id})
    world.time += 10
    world.ask("POST", f"{path}/detach")
    detached = world.payload("payment_method.detached")
    del detached["data"]["previous_attributes"]

    assert StripeEvent.receive(detached).state == "waiting"
    StripeEvent.apply(detached["id"])
    attached = world.payload("payment_method.attached")
    StripeEvent.receive(attached)
    StripeEvent.apply(attached["id"])
    world.time = Event.find(detached["id"]).next_try
    world.reconcile()

    assert Event.find(detached["id"]).state == "applied"
    assert StripeCustomer.get(USER).cards == []
    assert [card["sk"] for card in world.items(record_type="Card")] == [
        Card.key_under(customer.stripe_id, method)
    ]


def test_a_pointer_whose_customer_is_not_visible_yet_puts_the_event_off(
    world: World, waiting: str, on_stripe: str
) -> None:
    Pointer.to(on_stripe, "u-1").save()
    world.stream()
    event = Event.find(waiting)
    assert event.state == "pending"
    assert event.last_error == "ConflictError"
