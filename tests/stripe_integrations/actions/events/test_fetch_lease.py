"""Workers with ambiguous events of one customer: one at a time fetches it, for the others too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from simulation.database.transport import Raw
from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.actions.customers.refresh import refresh_from_stripe
from stripe_integrations.actions.events import apply
from stripe_integrations.context import current, use
from stripe_integrations.errors import ApplyFailedError
from stripe_integrations.models import Customer
from tests.world import USER, Json, World, database_client, hooked, stored_event

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


def served(requests: int) -> dict[str, int]:
    return {"cards": requests, "subscriptions": requests}


def stored(name: str) -> Any:
    return getattr(read(), name)


class TestLease:
    def test_ends_with_the_fetch(self, world: World) -> None:
        assert calls_of(world, ambiguous(world)) == FETCH_CALLS
        assert [stored(name) for name in FETCH_NAMES] == [1, served(1), None]

    def test_is_waited_for_and_the_fetch_serves_earlier_requests(self, world: World) -> None:
        event = ambiguous(world)
        assert read().request_fetch(acquires_lease=True)
        once(world, lambda: StripeCustomer.sync(read()))
        assert calls_of(world, event) == FETCH_CALLS
        assert [stored(name) for name in FETCH_NAMES] == [2, served(2), None]

    def test_fetch_that_began_before_the_request_does_not_serve_it(self, world: World) -> None:
        event = ambiguous(world)
        other = read()
        assert other.request_fetch(acquires_lease=True)
        once(world, lambda: refresh_from_stripe(other))
        assert calls_of(world, event) == 2 * FETCH_CALLS
        assert stored("fetch_requests_served") == served(stored("fetch_requests"))

    def test_object_of_unknown_age_serves_no_request(self, world: World) -> None:
        given = current().stripe.retrieve_customer(read().stripe_id)
        event = ambiguous(world)
        assert read().request_fetch(acquires_lease=True)
        once(world, lambda: StripeCustomer.sync(read(), given))
        assert calls_of(world, event) == FETCH_CALLS - 1 + FETCH_CALLS

    def test_fetch_without_a_kind_serves_no_request(self, world: World) -> None:
        """A function of an earlier release, or with other `StoredRecords`, fetches fewer kinds."""
        world.configure(stored_records=frozenset({"Card", "Subscription", "TaxId"}))
        StripeCustomer.sync(read())
        tax_id = {"type": "eu_vat", "value": "DE123456789"}
        world.request("POST", f"/v1/customers/{read().stripe_id}/tax_ids", tax_id)
        created = world.payload("customer.tax_id.created")
        StripeEvent.receive(created)
        assert read().request_fetch(acquires_lease=True)
        other = world.new_context()
        other.settings = replace(world.settings, stored_records=frozenset({"Card", "Subscription"}))

        def sync() -> None:
            with use(other):
                StripeCustomer.sync(read())

        once(world, sync)
        StripeEvent.apply(created["id"])
        assert [tax_id.value for tax_id in read().tax_ids] == ["DE123456789"]

    def test_fetch_whose_lists_were_removed_serves_no_request(self, world: World) -> None:
        """As by a move of a customer with more children than a transaction can move."""
        event = ambiguous(world)
        assert read().request_fetch(acquires_lease=True)

        def sync() -> None:
            StripeCustomer.sync(read()).update([Customer.listings.remove()])

        once(world, sync)
        assert calls_of(world, event) == 2 * FETCH_CALLS
        assert read().is_listed

    def test_is_held_for_all_events_of_the_worker(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where each is attempted alone, since one has failed, none waits for the lease."""
        first, *others = [rename(world, f"Name {number}")["id"] for number in range(6)]
        StripeEvent.apply(first)

        def fail(_: Customer) -> None:
            raise KeyError("a fault of ours")

        monkeypatch.setattr(apply, "fetch_from_stripe", fail)
        began = world.time
        with pytest.raises(ApplyFailedError):
            apply.apply_events(others)
        assert world.time == began
        assert {stored_event(event).attempts for event in others} == {1}

    def test_changed_record_is_read_again_at_once(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        event = ambiguous(world)
        request_fetch = Customer.request_fetch
        changes = iter(range(6))  # more than there are waits for another worker

        def request_after_change(customer: Customer, *, acquires_lease: bool) -> bool:
            if acquires_lease and next(changes, None) is not None:
                read().update_with({})
            return request_fetch(customer, acquires_lease=acquires_lease)

        monkeypatch.setattr(Customer, "request_fetch", request_after_change)
        assert calls_of(world, event) == FETCH_CALLS
        assert next(changes, None) is None
        assert stored("fetch_requests") == 2  # one without the lease, and one with it

    def test_waits_while_a_transaction_writes_the_record(self, world: World) -> None:
        event = ambiguous(world)
        conflicts = iter(range(2))

        def refuse(request: Any, **_: Any) -> AWSResponse | None:
            is_request = b"fetch_requests" in request.body
            if not is_request or next(conflicts, None) is None:
                return None
            return AWSResponse(
                request.url, 400, {}, Raw({"__type": "TransactionConflictException"})
            )

        with hooked(database_client(), "before-send.dynamodb.UpdateItem", refuse):
            assert calls_of(world, event) == FETCH_CALLS
        assert next(conflicts, None) is None
        assert stored_event(event).attempts <= 1

    def test_of_a_dead_worker_is_not_waited_for_long(self, world: World) -> None:
        event = ambiguous(world)
        assert read().request_fetch(acquires_lease=True)
        began = world.time
        with world.counting() as counts:
            assert calls_of(world, event) == FETCH_CALLS
        assert 1 < world.time - began < 4
        assert counts.operations.count("UpdateItem") == 2  # the claim of the event, and the request

    def test_expires(self, world: World) -> None:
        event = ambiguous(world)
        assert read().request_fetch(acquires_lease=True)
        world.time += 11
        before = world.time
        assert calls_of(world, event) == FETCH_CALLS
        assert world.time == before

    def test_is_acquired_by_one_of_two_workers(self) -> None:
        first, second = read(), read()
        assert first.request_fetch(acquires_lease=True)
        assert not second.request_fetch(acquires_lease=True)

    def test_is_not_acquired_of_a_changed_record(self, world: World) -> None:
        outdated = read()
        world.time += 60
        StripeEvent.apply(rename(world, "Newer")["id"])
        assert not outdated.request_fetch(acquires_lease=True)
        assert outdated.request_fetch(acquires_lease=False)


class TestRequest:
    def test_lets_no_other_write_fail(self, world: World) -> None:
        other, version = read(), read().version
        assert read().request_fetch(acquires_lease=False)
        assert read().version == version
        StripeCustomer.sync(other)

    def test_of_a_released_customer_is_refused(self) -> None:
        released = read()
        StripeCustomer.release(USER)
        assert not released.request_fetch(acquires_lease=False)
        assert StripeCustomer.get(USER) is None

    def test_of_a_soft_deleted_record_is_refused(self, world: World) -> None:
        stale = read()
        StripeCustomer.soft_delete(read())
        before = world.items(record_type="Customer")
        assert not stale.request_fetch(acquires_lease=False)
        assert not stale.request_fetch(acquires_lease=True)
        assert world.items(record_type="Customer") == before
