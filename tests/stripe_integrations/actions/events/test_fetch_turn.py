"""Workers with ambiguous events of one customer: one at a time fetches it, for the others too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.customers.refresh import refresh_from_stripe
from stripe_integrations.context import current
from stripe_integrations.models import Customer
from tests.world import USER, Json, World, stored_event

FETCH_CALLS = 3
FETCH_NAMES = ("fetch_requests", "fetch_requests_served", "fetching_until")


pytestmark = pytest.mark.usefixtures("customer", "a_minute_later")


@pytest.fixture
def a_minute_later(world: World) -> None:
    world.time += 60


def read() -> Customer:
    return StripeCustomer.require(USER)


def rename(world: World, name: str) -> Json:
    """Change the customer on Stripe; the event of it, which is received."""
    world.rename(read().stripe_id, name)
    payload = world.payload()
    StripeEvent.receive(payload)
    return payload


def ambiguous(world: World, name: str = "Second") -> str:
    """An ambiguous event, received: the second change of a second. Its state is not Stripe's."""
    StripeEvent.apply(rename(world, "First")["id"])
    payload = rename(world, name)
    world.rename(read().stripe_id, "Last")
    return str(payload["id"])


def once(world: World, action: Callable[[], Any]) -> None:
    """Let another worker act while the next one waits."""

    def act() -> None:
        world.during_sleep = lambda: None
        action()

    world.during_sleep = act


def calls_of(world: World, stripe_id: str) -> int:
    """Apply an event; the calls to Stripe meanwhile, of all workers."""
    before = len(world.stripe.requests)
    StripeEvent.apply(stripe_id)
    assert stored_event(stripe_id).state == "applied"
    assert read().name == "Last"
    return len(world.stripe.requests) - before


def stored(name: str) -> Any:
    return getattr(read(), name)


class TestTurn:
    def test_ends_with_the_fetch(self, world: World) -> None:
        assert calls_of(world, ambiguous(world)) == FETCH_CALLS
        assert [stored(name) for name in FETCH_NAMES] == [1, 1, None]

    def test_is_waited_for_and_the_fetch_serves_who_requested_it_before(self, world: World) -> None:
        event = ambiguous(world)
        assert read().request_fetch(takes_turn=True)
        once(world, lambda: StripeCustomer.sync(read()))
        assert calls_of(world, event) == FETCH_CALLS
        assert [stored(name) for name in FETCH_NAMES] == [2, 2, None]

    def test_fetch_that_began_before_the_request_does_not_serve_it(self, world: World) -> None:
        event = ambiguous(world)
        other = read()
        assert other.request_fetch(takes_turn=True)
        once(world, lambda: refresh_from_stripe(other))
        assert calls_of(world, event) == 2 * FETCH_CALLS
        assert stored("fetch_requests_served") == stored("fetch_requests")

    def test_object_of_unknown_age_serves_no_request(self, world: World) -> None:
        given = current().stripe.retrieve_customer(read().stripe_id)
        event = ambiguous(world)
        assert read().request_fetch(takes_turn=True)
        once(world, lambda: StripeCustomer.sync(read(), given))
        assert calls_of(world, event) == FETCH_CALLS - 1 + FETCH_CALLS

    def test_fetch_that_did_not_list_every_kind_serves_no_request(self, world: World) -> None:
        """As one by an earlier release, which stores fewer kinds."""
        event = ambiguous(world)
        assert read().request_fetch(takes_turn=True)

        def sync() -> None:
            StripeCustomer.sync(read()).update([Customer.listings.remove()])

        once(world, sync)
        assert calls_of(world, event) == 2 * FETCH_CALLS
        assert read().is_listed

    def test_of_a_dead_worker_is_not_waited_for_long(self, world: World) -> None:
        event = ambiguous(world)
        assert read().request_fetch(takes_turn=True)
        began = world.time
        assert calls_of(world, event) == FETCH_CALLS
        assert 1 < world.time - began < 4

    def test_expires(self, world: World) -> None:
        event = ambiguous(world)
        assert read().request_fetch(takes_turn=True)
        world.time += 11
        before = world.time
        assert calls_of(world, event) == FETCH_CALLS
        assert world.time == before

    def test_is_not_taken_of_a_changed_record(self, world: World) -> None:
        outdated = read()
        world.time += 60
        StripeEvent.apply(rename(world, "Newer")["id"])
        assert not outdated.request_fetch(takes_turn=True)
        assert outdated.request_fetch(takes_turn=False)


class TestRequest:
    def test_lets_no_other_write_fail(self, world: World) -> None:
        other, version = read(), read().version
        assert read().request_fetch(takes_turn=False)
        assert read().version == version
        StripeCustomer.sync(other)

    def test_of_a_released_customer_is_refused(self) -> None:
        released = read()
        StripeCustomer.release(USER)
        assert not released.request_fetch(takes_turn=False)
        assert StripeCustomer.get(USER) is None
