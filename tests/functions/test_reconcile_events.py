"""The schedule: recovers events that never arrived, and retries unfinished ones."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.context import use
from stripe_integrations.models import Customer, Event, SweepCursor
from tests.world import EMAIL, USER, World, stored_event

LIST = "/v1/events"


@pytest.fixture
def customer(world: World, customer: Customer) -> Customer:
    """A customer, all of whose events have been swept."""
    world.reconcile()
    world.deliver_and_apply()
    world.time += 1000
    world.reconcile()
    world.time += 1000
    return customer


def lose(world: World, customer: Customer, times: int) -> list[str]:
    """Let changes happen whose webhooks never come; the ids of their events, oldest first."""
    world.stripe.webhooks.drop_next(times)
    before = len(world.stripe.account.events)
    for number in range(times):
        world.rename(customer.stripe_id, f"Name {number}")
    return list(world.stripe.account.events)[before:]


def become_due(world: World, customer: Customer) -> None:
    """Let a change arrive that the stream does not apply."""
    world.rename(customer.stripe_id, "Newest")
    world.deliver()
    world.time += 200


def listings(world: World) -> int:
    """How often Stripe's list of events was requested."""
    return sum(request.path == LIST for request in world.stripe.requests)


def at_listing(world: World, number: int, happen: Callable[[], None]) -> None:
    """Let something happen while Stripe returns this page of events."""
    first = listings(world)

    def check() -> None:
        if world.stripe.requests[-1].path == LIST and listings(world) == first + number:
            world.during_sleep = lambda: None
            happen()

    world.during_sleep = check


def kill_at_second_page(world: World) -> None:
    def die() -> None:
        raise ClientKilledError

    at_listing(world, 2, die)
    with pytest.raises(ClientKilledError):
        world.reconcile()


def stored_ids(world: World) -> set[str]:
    return {item["stripe_id"] for item in world.items(record_type="Event")}


def assert_swept_until(moment: float) -> None:
    """The cursor is there, and no sweep is interrupted."""
    cursor = SweepCursor.read()
    assert cursor.swept_until == moment
    assert cursor.started_at is None
    assert cursor.after is None


class TestSweep:
    def test_recovers_event_that_was_never_delivered(
        self, world: World, customer: Customer
    ) -> None:
        (lost,) = lose(world, customer, 1)
        world.time += 60
        assert world.reconcile() == {"swept": 1, "recovered": 1, "attempted": 0}
        assert stored_event(lost).valid
        assert stored_event(lost).state == "pending"
        world.time += 200
        assert world.reconcile() == {"swept": 1, "recovered": 0, "attempted": 1}
        assert stored_event(lost).state == "applied"
        assert StripeCustomer.require(USER).name == "Name 0"

    def test_stream_applies_recovered_event(self, world: World, customer: Customer) -> None:
        (lost,) = lose(world, customer, 1)
        world.reconcile()
        world.stream_events(lost)
        assert stored_event(lost).state == "applied"

    def test_does_not_receive_stored_events_again(self, world: World, customer: Customer) -> None:
        world.rename(customer.stripe_id, "Newest")
        world.deliver_and_apply()
        before = world.items(record_type="Event")
        with world.counting() as counts:
            assert world.reconcile()["recovered"] == 0
        assert counts.stripe == 1
        assert world.items(record_type="Event") == before

    def test_first_one_begins_shortly_before_itself(self, world: World) -> None:
        world.stripe.webhooks.drop_next(2)
        customer = StripeCustomer.create(USER, EMAIL)
        world.time += 550
        assert world.reconcile()["recovered"] == 1
        world.time += 10_000
        world.rename(customer.stripe_id, "Newest")
        assert world.reconcile()["recovered"] == 1

    def test_overlap_finds_event_that_stripe_lists_late(
        self, world: World, customer: Customer
    ) -> None:
        (lost,) = lose(world, customer, 1)
        late = world.stripe.account.events.pop(lost)
        world.time += 500
        assert world.reconcile()["recovered"] == 0
        world.stripe.account.events[lost] = late
        world.time += 300
        assert world.reconcile()["recovered"] == 1
        assert Event.find(lost)

    def test_reads_many_pages_to_the_end(self, world: World, customer: Customer) -> None:
        lost = lose(world, customer, 210)
        assert world.reconcile()["recovered"] == 210
        assert stored_ids(world) >= set(lost)
        assert_swept_until(world.time)

    def test_applies_event_of_other_api_version(self, world: World, customer: Customer) -> None:
        (lost,) = lose(world, customer, 1)
        world.stripe.account.events[lost]["api_version"] = "2025-02-24.acacia"
        world.reconcile()
        world.time += 200
        world.reconcile()
        assert stored_event(lost).state == "applied"
        assert StripeCustomer.require(USER).name == "Name 0"

    def test_ignores_event_of_other_mode_or_account(self, world: World, customer: Customer) -> None:
        first, second = lose(world, customer, 2)
        world.stripe.account.events[first]["livemode"] = True
        world.stripe.account.events[second]["account"] = "acct_1"
        world.reconcile()
        world.time += 200
        world.reconcile()
        assert {stored_event(first).state, stored_event(second).state} == {"ignored"}
        assert StripeCustomer.require(USER).name is None

    @pytest.mark.parametrize("pattern", ["price.created", "price.*"])
    def test_recovers_types_of_custom_handlers_only(self, world: World, pattern: str) -> None:
        world.configure(event_handlers={pattern: f"{__name__}:ignore"})
        world.stripe.webhooks.drop_next(2)
        product = {"product_data": {"name": "Plan"}}
        world.request("POST", "/v1/prices", {"currency": "usd", "unit_amount": 500, **product})
        world.reconcile()
        assert [item["kind"] for item in world.items(record_type="Event")] == ["price.created"]


def ignore(event: Event, customer: Customer | None) -> None:
    """A custom handler that has nothing to do."""


class TestInterruptedSweep:
    def test_one_without_time_is_resumed(self, world: World, customer: Customer) -> None:
        lose(world, customer, 210)
        swept_until = SweepCursor.read().swept_until
        began = world.time
        world.stripe.faults.delay(6, None, match=f"GET {LIST}")

        assert world.reconcile(remaining_seconds=55)["swept"] == 200

        assert SweepCursor.read().swept_until == swept_until
        assert SweepCursor.read().after is not None
        world.stripe.faults.clear()
        world.time += 300
        done = world.reconcile()
        assert (done["swept"], done["recovered"]) == (10, 10)
        assert_swept_until(began)

    def test_killed_one_is_resumed_and_the_next_finds_the_rest(
        self, world: World, customer: Customer
    ) -> None:
        lost = lose(world, customer, 110)
        swept_until = SweepCursor.read().swept_until
        kill_at_second_page(world)
        assert SweepCursor.read().swept_until == swept_until
        world.time += 2000
        (since,) = lose(world, customer, 1)

        done = world.reconcile()

        assert (done["swept"], done["recovered"]) == (10, 10)
        assert stored_ids(world) >= set(lost)
        assert Event.find(since) is None
        world.reconcile()
        assert Event.find(since)

    def test_begins_again_when_its_last_event_is_not_listed(
        self, world: World, customer: Customer
    ) -> None:
        lost = lose(world, customer, 110)
        kill_at_second_page(world)
        del world.stripe.account.events[SweepCursor.read().after or ""]
        assert world.reconcile()["swept"] == 109
        assert stored_ids(world) >= set(lost)
        assert SweepCursor.read().after is None

    @pytest.mark.parametrize("operation", ["BatchGetItem", "PutItem"])
    def test_one_without_database_is_repeated(
        self, world: World, customer: Customer, log: io.StringIO, operation: str
    ) -> None:
        (lost,) = lose(world, customer, 1)
        swept_until = SweepCursor.read().swept_until
        with world.failing_database("InternalServerError", operation=operation):
            world.reconcile()
        assert "DatabaseUnavailableError" in log.getvalue()
        assert SweepCursor.read().swept_until == swept_until
        world.time += 5000
        world.reconcile()
        assert Event.find(lost)

    def test_of_two_at_once_one_sweeps(
        self, world: World, customer: Customer, log: io.StringIO
    ) -> None:
        lost = lose(world, customer, 110)

        def reconcile_elsewhere() -> None:
            with use(world.new_context()):
                world.reconcile()

        at_listing(world, 1, reconcile_elsewhere)
        world.reconcile()
        assert '"message":"failed"' not in log.getvalue()
        assert stored_ids(world) >= set(lost)
        assert_swept_until(world.time)


class TestRetry:
    @pytest.fixture
    def ambiguous(self, world: World) -> list[str]:
        """Due events of three customers, each of which calls Stripe."""
        ids = []
        for number in range(3):
            customer = StripeCustomer.create(User(f"v-{number}"), EMAIL)
            world.rename(customer.stripe_id, "Newest")
            ids.append(world.receive())
        world.time += 200
        return ids

    @pytest.mark.parametrize("status", [400, 401, 503])
    def test_does_not_need_stripes_list(
        self, world: World, customer: Customer, log: io.StringIO, status: int
    ) -> None:
        become_due(world, customer)
        world.stripe.faults.fail_next(None, status=status)
        assert world.reconcile() == {"swept": 0, "recovered": 0, "attempted": 1}
        assert '"message":"failed"' in log.getvalue()
        assert StripeCustomer.require(USER).name == "Newest"

    @pytest.mark.parametrize("status", [429, 503, 401])
    def test_stops_claiming_when_stripe_fails(
        self, world: World, ambiguous: list[str], status: int
    ) -> None:
        world.stripe.faults.fail_next(None, match="GET /v1/customers/*", status=status)
        assert world.reconcile()["attempted"] == 1
        assert sorted(stored_event(stripe_id).attempts for stripe_id in ambiguous) == [0, 0, 1]
        world.stripe.faults.clear()
        world.time += 200
        world.reconcile()
        assert {stored_event(stripe_id).state for stripe_id in ambiguous} == {"applied"}

    def test_continues_after_failure_of_one_customer(
        self, world: World, ambiguous: list[str]
    ) -> None:
        world.stripe.faults.fail_next(1, status=404, match="GET /v1/customers/*")
        world.reconcile()
        states = sorted(stored_event(stripe_id).state for stripe_id in ambiguous)
        assert states == ["applied", "applied", "pending"]

    def test_claims_nothing_without_time(self, world: World, ambiguous: list[str]) -> None:
        done = world.reconcile(remaining_seconds=29)
        assert done == {"swept": 0, "recovered": 0, "attempted": 0}
        assert {stored_event(stripe_id).attempts for stripe_id in ambiguous} == {0}

    def test_leaves_what_is_not_due(self, world: World, customer: Customer) -> None:
        world.rename(customer.stripe_id, "Newest")
        world.deliver()
        assert world.reconcile()["attempted"] == 0

    def test_fetches_once_for_several_events_of_one_customer(self, world: World) -> None:
        customer = StripeCustomer.create(USER, EMAIL)
        for number in range(5):
            world.rename(customer.stripe_id, f"Name {number}")
        world.deliver()
        world.time += 200
        with world.counting() as counts:
            assert world.reconcile()["attempted"] == 6
        assert counts.stripe == 4
        assert StripeCustomer.require(USER).name == "Name 4"

    def test_unreadable_queue_is_read_by_next_run(
        self, world: World, customer: Customer, log: io.StringIO
    ) -> None:
        become_due(world, customer)
        with world.failing_database("InternalServerError", operation="Query"):
            assert world.reconcile()["attempted"] == 0
        assert "DatabaseUnavailableError" in log.getvalue()
        assert world.reconcile()["attempted"] == 1
