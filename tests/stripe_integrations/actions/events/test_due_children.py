"""Children that were never listed: the schedule fetches them where the stream has not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from unittest.mock import patch

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeAccount, StripeCustomer, StripeEvent
from stripe_integrations.actions.customers.assign import store_unassigned
from stripe_integrations.actions.customers.snapshot import CustomerSnapshot
from stripe_integrations.actions.events.reconcile import Reconciliation, fetch_due_children
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import use
from stripe_integrations.errors import StripeRefusedError, StripeUnavailableError
from stripe_integrations.models import Customer, Owner, read_customer
from tests.world import EMAIL, USER, World

KEY = "app_user"
CARDS = "GET /v1/customers/*/payment_methods"
MANY = 5


@pytest.fixture(autouse=True)
def _stores_unassigned(world: World) -> None:
    world.configure(unassigned_customers=UnassignedCustomers.STORE, adopt_from=KEY)


@pytest.fixture
def existing(world: World) -> str:
    """A customer that exists on Stripe alone, with a card."""
    stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
    world.attach_card(stripe_id)
    world.time += 3600
    return stripe_id


@pytest.fixture
def unassigned(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stored customer that no user has, with more cards than one transaction moves."""
    stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
    world.deliver_and_apply()
    for _ in range(MANY):
        world.attach_card(stripe_id)
    world.deliver_and_apply()
    assert len(record_of(stripe_id).cards) == MANY
    monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 4)
    return stripe_id


def record_of(stripe_id: str, user_id: str | None = None) -> Customer:
    record = read_customer(Owner(user_id, stripe_id))
    assert record
    return record


def backfill(world: World, mapping: Iterable[tuple[str, str]] = ()) -> None:
    """Run a backfill to its end, outside of Lambda."""
    with use(world.new_context()):
        for _progress in StripeAccount.backfill(mapping):
            pass


def adopt_by_event(world: World, stripe_id: str) -> None:
    """Let an event name the user of an unassigned customer, while the stream is off."""
    world.time += 60
    world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": {KEY: "u-1"}})
    world.deliver()
    StripeEvent.apply(world.payload("customer.updated")["id"])


def store_late(stripe_id: str) -> Customer:
    """Store a customer long after its creation, by a process that dies then."""
    assert store_unassigned(CustomerSnapshot.from_fetch({"id": stripe_id}))
    return record_of(stripe_id)


def fetch_due(world: World, remaining_seconds: float = 290) -> Reconciliation:
    """Fetch what is due, without the sweep, whose events may lead to a fetch."""
    result = Reconciliation()
    process = world.new_context()
    process.deadline = world.time + remaining_seconds
    with use(process):
        fetch_due_children(result)
    return result


class TestDueChildren:
    def test_of_customer_that_an_event_assigned_are_fetched(
        self, world: World, unassigned: str
    ) -> None:
        """The event's own invocation leaves the fetch to the stream."""
        adopt_by_event(world, unassigned)
        assert len(StripeCustomer.require(USER).cards) < MANY
        world.time += 300
        world.reconcile()
        assert len(StripeCustomer.require(USER).cards) == MANY

    def test_of_customer_that_was_adopted_by_killed_process_are_fetched(
        self, world: World, existing: str
    ) -> None:
        world.stripe.faults.fail_next(None, match=CARDS, status=503)
        with pytest.raises(StripeUnavailableError):
            StripeCustomer.adopt(USER, existing)
        world.stripe.faults.clear()
        assert StripeCustomer.require(USER).cards == []
        world.time += 300
        fetch_due(world)
        assert len(StripeCustomer.require(USER).cards) == 1

    def test_of_released_customer_are_fetched(self, world: World, unassigned: str) -> None:
        StripeCustomer.adopt(USER, unassigned)
        StripeCustomer.release(USER)
        assert len(record_of(unassigned).cards) < MANY
        world.time += 300
        fetch_due(world)
        assert len(record_of(unassigned).cards) == MANY

    def test_of_interrupted_adoption_are_fetched(self, world: World, unassigned: str) -> None:
        record_of(unassigned).drop_excess_children()
        world.time += 300
        fetch_due(world)
        assert len(record_of(unassigned).cards) == MANY

    def test_of_customer_that_a_killed_worker_assigned_by_mapping_are_fetched(
        self, world: World, unassigned: str
    ) -> None:
        world.reconcile()
        world.time += 3600
        killed = patch(
            "stripe_integrations.actions.account.mapping.refresh_until_written",
            side_effect=ClientKilledError,
        )
        with killed, pytest.raises(ClientKilledError):
            backfill(world, [("u-1", unassigned)])
        assert len(StripeCustomer.require(USER).cards) < MANY
        world.time += 300
        fetch_due(world)
        assert len(StripeCustomer.require(USER).cards) == MANY

    def test_of_customer_that_was_stored_late_are_fetched(
        self, world: World, existing: str
    ) -> None:
        store_late(existing)
        world.time += 300
        fetch_due(world)
        assert len(record_of(existing).cards) == 1

    def test_are_fetched_once(self, world: World, existing: str) -> None:
        store_late(existing)
        world.time += 300
        fetch_due(world)
        with world.counting() as counts:
            fetch_due(world)
        assert (counts.operations, counts.stripe) == (["Query"], 0)

    def test_are_fetched_though_fewer_kinds_are_stored_by_now(
        self, world: World, existing: str
    ) -> None:
        world.configure(stored_records=frozenset({"Card", "TaxId"}))
        stored = store_late(existing)
        stored.update_with({"listings": {"cards": [0, 0]}})
        world.configure(stored_records=frozenset({"Card"}))
        world.time += 300
        fetch_due(world)
        assert len(record_of(existing).cards) == 1
        with world.counting() as counts:
            fetch_due(world)
        assert counts.stripe == 0


class TestAreNotFetched:
    def assert_no_fetch(self, world: World, remaining_seconds: float = 290) -> None:
        with world.counting() as counts:
            result = fetch_due(world, remaining_seconds)
        assert (counts.stripe, result.failures) == (0, [])

    def test_while_the_stream_may_fetch_them(self, world: World, existing: str) -> None:
        store_late(existing)
        self.assert_no_fetch(world)

    def test_after_the_stream(self, world: World, existing: str) -> None:
        store_late(existing)
        world.stream()
        world.time += 300
        self.assert_no_fetch(world)

    def test_after_the_customer_was_adopted_with_them(self, world: World, existing: str) -> None:
        StripeCustomer.adopt(USER, existing)
        world.time += 300
        self.assert_no_fetch(world)

    def test_of_customer_that_was_just_created(self, world: World) -> None:
        StripeCustomer.create(USER, EMAIL)
        world.time += 300
        self.assert_no_fetch(world)

    @pytest.mark.parametrize("is_deleted_on_stripe", [False, True])
    def test_of_soft_deleted(
        self, world: World, unassigned: str, is_deleted_on_stripe: bool
    ) -> None:
        adopt_by_event(world, unassigned)
        customer = StripeCustomer.require(USER)
        if is_deleted_on_stripe:
            customer.soft_delete_as_deleted_on_stripe()
        else:
            customer.soft_delete()
        world.time += 300
        with world.counting() as counts:
            fetch_due(world)
        assert (counts.operations, counts.stripe) == (["Query"], 0)

    def test_of_customer_that_a_run_stored(self, world: World) -> None:
        world.reconcile()
        walked = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
        world.time += 3600
        backfill(world)
        assert not record_of(walked).is_listed
        world.time += 300
        self.assert_no_fetch(world)

    def test_without_time(self, world: World, existing: str) -> None:
        store_late(existing)
        world.time += 300
        self.assert_no_fetch(world, remaining_seconds=20)


class TestFailure:
    @pytest.fixture
    def two(self, world: World, existing: str) -> list[str]:
        """Two customers whose children are due, in this order."""
        other = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
        world.attach_card(other)
        for stripe_id in (existing, other):
            store_late(stripe_id)
            world.time += 300
        return [existing, other]

    @pytest.fixture
    def fail(self, world: World, two: list[str]) -> Callable[..., Reconciliation]:
        """Fetch while Stripe fails for the first customer, or for another id."""

        def fail(status: int, stripe_id: str = two[0]) -> Reconciliation:
            match = f"GET /v1/customers/{stripe_id}"
            world.stripe.faults.fail_next(None, match=match, status=status)
            result = fetch_due(world)
            world.stripe.faults.clear()
            return result

        return fail

    def test_of_one_does_not_delay_the_others(
        self, world: World, two: list[str], fail: Callable[..., Reconciliation]
    ) -> None:
        failures = fail(404).failures
        assert [type(error) for error in failures] == [StripeRefusedError]
        assert [len(record_of(stripe_id).cards) for stripe_id in two] == [0, 1]
        fetch_due(world)
        assert [len(record_of(stripe_id).cards) for stripe_id in two] == [1, 1]

    def test_by_an_outage_leaves_the_rest_to_the_next_run(
        self, world: World, two: list[str], fail: Callable[..., Reconciliation]
    ) -> None:
        failures = fail(503, "*").failures
        assert [type(error) for error in failures] == [StripeUnavailableError]
        assert [len(record_of(stripe_id).cards) for stripe_id in two] == [0, 0]
        fetch_due(world)
        assert [len(record_of(stripe_id).cards) for stripe_id in two] == [1, 1]

    def test_that_lasts_does_not_keep_the_others_waiting(
        self, two: list[str], fail: Callable[..., Reconciliation]
    ) -> None:
        for _ in range(20):
            fail(503)
        assert [len(record_of(stripe_id).cards) for stripe_id in two] == [0, 1]
