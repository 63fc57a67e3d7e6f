"""`StripeCustomer.adopt`: a customer that exists on Stripe becomes a user's."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.context import use
from stripe_integrations.errors import (
    ConfigurationError,
    CustomerBeingCreatedError,
    CustomerNotFoundError,
    CustomerOfAnotherUserError,
    CustomerSoftDeletedError,
    InvalidFieldError,
    StripeAccessError,
    StripeIntegrationsError,
    StripeRefusedError,
    StripeUnavailableError,
    TakeOverRequiredError,
    UserHasAnotherCustomerError,
)
from stripe_integrations.models import Customer, CustomerClaim, Pointer
from stripe_integrations.models.metadata_update import MetadataUpdate
from tests.stripe_integrations.actions.customers.helpers import (
    acquire_claim,
    crash_create,
    during_sleep,
    stored_claim,
)
from tests.stripe_integrations.actions.customers.test_rebuild import (
    at_call,
    die,
    forget,
    images_of,
    put_back,
)
from tests.world import EMAIL, USER, Json, World

OTHER = User("u-2")
UPDATE = "POST /v1/customers/*"


@pytest.fixture
def existing(world: World) -> str:
    """A customer that exists on Stripe alone, with a card and a subscription."""
    made = world.request("POST", "/v1/customers", {"email": EMAIL, "name": "Jane"})
    stripe_id = str(made["id"])
    world.attach_card(stripe_id)
    world.subscribe(stripe_id)
    world.time += 3600
    return stripe_id


def on_stripe(world: World, stripe_id: str) -> Json:
    return world.request("GET", f"/v1/customers/{stripe_id}")


def set_metadata(world: World, stripe_id: str, **metadata: str) -> None:
    world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": metadata})


def changes_on_stripe(world: World, since: int = 0) -> list[str]:
    """The requests since a number of requests that changed something."""
    return [
        f"{request.method} {request.path}"
        for request in list(world.stripe.requests)[since:]
        if request.method != "GET"
    ]


def due(world: World) -> list[Json]:
    return world.items(record_type="MetadataUpdate")


def assert_is_owned(world: World, stripe_id: str, user_id: str = "u-1") -> None:
    """Claim, record, pointer and the metadata on Stripe name the same user and token."""
    claim = CustomerClaim.read(user_id)
    assert claim
    assert claim.stripe_id == stripe_id
    pointer = Pointer.read(stripe_id)
    assert pointer
    assert (pointer.user_id, pointer.token) == (user_id, claim.token)
    metadata = on_stripe(world, stripe_id)["metadata"]
    assert (metadata[USER_KEY], metadata[TOKEN_KEY]) == (user_id, claim.token)
    active = [item for item in world.items(record_type="Customer") if item["is_active"]]
    assert [item["user_id"] for item in active if item["stripe_id"] == stripe_id] == [user_id]
    assert [item["stripe_id"] for item in active if item["user_id"] == user_id] == [stripe_id]
    assert due(world) == []


class TestAdopted:
    def test_has_state_and_children_of_stripe(self, world: World, existing: str) -> None:
        adopted = StripeCustomer.adopt(USER, existing)

        stored = StripeCustomer.require(USER)
        for customer in (adopted, stored):
            assert (customer.stripe_id, customer.name, customer.email) == (existing, "Jane", EMAIL)
            assert len(customer.cards) == len(customer.subscriptions) == 1
            assert customer.metadata[USER_KEY] == "u-1"
            assert customer.is_listed
        assert adopted.is_new
        assert_is_owned(world, existing)
        assert CustomerClaim.second_of(stored_claim().token) == int(world.time)

    def test_keeps_metadata_of_others(self, world: World, existing: str) -> None:
        set_metadata(world, existing, plan="gold")
        StripeCustomer.adopt(USER, existing)
        assert on_stripe(world, existing)["metadata"]["plan"] == "gold"

    def test_is_returned_by_create(self, world: World, existing: str) -> None:
        StripeCustomer.adopt(USER, existing)
        assert StripeCustomer.create(USER, EMAIL).stripe_id == existing
        assert len(world.stripe_customers()) == 1

    def test_gets_later_events(self, world: World, existing: str) -> None:
        StripeCustomer.adopt(USER, existing)
        world.time += 60
        world.rename(existing, "Later")
        world.deliver_and_apply()
        assert StripeCustomer.require(USER).name == "Later"

    def test_gets_events_that_arrived_before(self, world: World, existing: str) -> None:
        world.configure(publish_types=("invoice.*",), event_bus_name="bus")
        event_id = world.receive("customer.subscription.created")
        assert world.event_states() == {"customer.subscription.created": "waiting"}
        StripeCustomer.adopt(USER, existing)
        world.stream()
        assert world.event_states()["customer.subscription.created"] == "applied"
        assert event_id in {message["event_id"] for message in world.published}

    def test_again_is_no_op(self, world: World, existing: str) -> None:
        first = StripeCustomer.adopt(USER, existing)
        before, requests = world.images(), len(world.stripe.requests)
        again = StripeCustomer.adopt(USER, existing, take_over=True)
        assert (first.is_new, again.is_new, again.stripe_id) == (True, False, existing)
        assert (world.images(), len(world.stripe.requests)) == (before, requests)

    def test_own_customer_is_no_op(self, world: World, customer: Customer) -> None:
        before = world.images()
        assert not StripeCustomer.adopt(USER, customer.stripe_id).is_new
        assert world.images() == before

    def test_is_rebuilt_after_restore(self, world: World, existing: str) -> None:
        created = StripeCustomer.create(USER, EMAIL).stripe_id
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        world.time += 60
        StripeCustomer.adopt(USER, existing)
        forget(world)
        world.rebuild()
        assert StripeCustomer.require(USER).stripe_id == existing
        world.time += 60
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        last = StripeCustomer.create(USER, EMAIL).stripe_id
        forget(world)
        world.rebuild()
        assert StripeCustomer.require(USER).stripe_id == last
        assert {
            item["stripe_id"]: item["is_active"] for item in world.items(record_type="Customer")
        } == {created: False, existing: False, last: True}

    @pytest.mark.parametrize("lost", ["CLAIM", "CUSTOMER", "POINTER"])
    def test_again_completes_part_of_backup(self, world: World, existing: str, lost: str) -> None:
        StripeCustomer.adopt(USER, existing)
        forget(world, lost)
        StripeCustomer.adopt(USER, existing)
        assert StripeCustomer.require(USER).stripe_id == existing
        if lost != "POINTER":  # a rebuild completes it
            assert_is_owned(world, existing)

    def test_of_lost_table_is_adopted_again(self, world: World, existing: str) -> None:
        StripeCustomer.adopt(USER, existing)
        forget(world)
        assert StripeCustomer.adopt(USER, existing).is_new
        assert_is_owned(world, existing)


class TestBudget:
    def test_new(self, world: World, existing: str) -> None:
        StripeCustomer.create(OTHER, EMAIL)  # the process has the deployment's name now
        with world.counting() as counts:
            StripeCustomer.adopt(USER, existing)
        assert (counts.database, counts.stripe) == (8, 5)

    def test_again(self, world: World, customer: Customer) -> None:
        with world.counting() as counts:
            StripeCustomer.adopt(USER, customer.stripe_id)
        assert (counts.database, counts.stripe) == (2, 0)


class TestRefusal:
    @pytest.mark.parametrize(
        "stripe_id",
        [None, 7, "", "cus_", "cus_1 ", "cus_1\n", "sub_1", "cus_é", "cus_" + "1" * 256],
    )
    def test_of_invalid_id(self, world: World, stripe_id: Any) -> None:
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.adopt(USER, stripe_id)
        assert refusal.value.field == "stripe_id"
        assert world.items() == []

    def test_of_invalid_flag(self, world: World, existing: str) -> None:
        flag: Any = "yes"
        with pytest.raises(InvalidFieldError, match="take_over"):
            StripeCustomer.adopt(USER, existing, take_over=flag)

    def test_of_unknown(self, world: World) -> None:
        self.assert_refused(world, CustomerNotFoundError, "cus_unknown")

    def test_of_deleted(self, world: World, existing: str) -> None:
        world.request("DELETE", f"/v1/customers/{existing}")
        self.assert_refused(world, CustomerNotFoundError, existing)

    def test_of_soft_deleted(self, world: World, existing: str) -> None:
        StripeCustomer.adopt(USER, existing)
        world.delete()
        self.assert_refused(world, CustomerSoftDeletedError, existing)
        self.assert_refused(world, CustomerOfAnotherUserError, existing, OTHER)

    def test_of_user_with_another_customer(
        self, world: World, existing: str, customer: Customer
    ) -> None:
        self.assert_refused(world, UserHasAnotherCustomerError, existing)

    def test_of_user_whose_customer_is_being_created(self, world: World, existing: str) -> None:
        acquire_claim()
        self.assert_refused(world, CustomerBeingCreatedError, existing)

    def test_of_customer_of_another_user(self, world: World, customer: Customer) -> None:
        error = self.assert_refused(world, CustomerOfAnotherUserError, customer.stripe_id, OTHER)
        assert "u-1" not in str(error)

    def test_of_customer_that_a_create_has_not_stored_yet(self, world: World) -> None:
        crash_create(world)
        (made,) = world.stripe_customers()
        self.assert_refused(world, CustomerOfAnotherUserError, made["id"], OTHER)
        self.assert_refused(world, CustomerOfAnotherUserError, made["id"], OTHER, take_over=True)
        assert StripeCustomer.create(USER, EMAIL).stripe_id == made["id"]

    def test_of_customer_of_another_user_without_pointer(
        self, world: World, customer: Customer
    ) -> None:
        forget(world, "POINTER")
        stripe_id = customer.stripe_id
        self.assert_refused(world, CustomerOfAnotherUserError, stripe_id, OTHER, take_over=True)

    @pytest.mark.parametrize(
        ("token", "user_id"),
        [
            ("shop-prod/1-a", "u-1"),
            ("shop-prod/1-a", "u-9"),
            ("a token", ""),
            ("stripe-customers/1-a", "u-9"),
            ("stripe-customers/1-a", ""),
        ],
    )
    def test_of_other_owner_in_metadata_unless_taken_over(
        self, world: World, existing: str, token: str, user_id: str
    ) -> None:
        set_metadata(world, existing, **{TOKEN_KEY: token, USER_KEY: user_id})
        error = self.assert_refused(world, TakeOverRequiredError, existing)
        assert "u-9" not in str(error)
        StripeCustomer.adopt(USER, existing, take_over=True)
        assert_is_owned(world, existing)

    def test_of_key_of_other_mode(self, world: World, existing: str) -> None:
        world.configure(livemode=True)
        with pytest.raises(ConfigurationError):
            StripeCustomer.adopt(USER, existing)
        assert world.items(pk="USER#u-1") == []

    def assert_refused(
        self,
        world: World,
        error: type[Exception],
        stripe_id: str,
        user: User = USER,
        *,
        take_over: bool = False,
    ) -> Exception:
        """Nothing is stored, and nothing is changed on Stripe."""
        before = [item for item in world.items() if item["record_type"] != "Deployment"]
        requests = len(world.stripe.requests)
        with pytest.raises(error) as refusal:
            StripeCustomer.adopt(user, stripe_id, take_over=take_over)
        assert [i for i in world.items() if i["record_type"] != "Deployment"] == before
        assert changes_on_stripe(world, requests) == []
        return refusal.value


class TestMetadata:
    """It is written after the commit, at the latest by the schedule."""

    def fail(self, world: World, existing: str, error: type[Exception], **fault: Any) -> None:
        world.stripe.faults.fail_next(None, match=UPDATE, **fault)
        with use(world.new_context()), pytest.raises(error):
            StripeCustomer.adopt(USER, existing)
        world.stripe.faults.clear()
        assert StripeCustomer.require(USER).stripe_id == existing
        assert len(due(world)) == 1

    @pytest.mark.parametrize(
        ("status", "error"),
        [(503, StripeUnavailableError), (429, StripeUnavailableError), (401, StripeAccessError)],
    )
    def test_is_written_by_schedule(
        self, world: World, existing: str, status: int, error: type[Exception]
    ) -> None:
        self.fail(world, existing, error, status=status)
        world.time += 300
        world.reconcile()
        assert_is_owned(world, existing)

    def test_is_written_by_repeated_call(self, world: World, existing: str) -> None:
        self.fail(world, existing, StripeUnavailableError, status=503)
        world.time += 300
        assert not StripeCustomer.adopt(USER, existing).is_new
        assert_is_owned(world, existing)
        assert StripeCustomer.require(USER).is_listed

    def test_is_not_written_by_two_workers_at_once(self, world: World, existing: str) -> None:
        before = len(world.stripe.requests)
        world.stripe.faults.delay(1, match=UPDATE)
        during_sleep(world, lambda: (StripeEvent.reconcile(), StripeCustomer.adopt(USER, existing)))
        StripeCustomer.adopt(USER, existing)
        assert changes_on_stripe(world, before) == [f"POST /v1/customers/{existing}"]

    def test_that_stripe_refuses_is_logged_once(
        self, world: World, existing: str, log: io.StringIO
    ) -> None:
        world.stripe.faults.fail_next(None, match=UPDATE, status=400)
        adopted = StripeCustomer.adopt(USER, existing)
        assert (adopted.is_new, due(world)) == (True, [])
        warning = next(line for line in log.getvalue().splitlines() if "metadata refused" in line)
        assert existing in warning
        assert "u-1" not in warning

    @pytest.mark.parametrize("take_over", [False, True])
    def test_of_other_deployment_since_is_replaced_only_by_take_over(
        self, world: World, existing: str, take_over: bool
    ) -> None:
        world.stripe.faults.fail_next(None, match=UPDATE, status=503)
        with use(world.new_context()), pytest.raises(StripeUnavailableError):
            StripeCustomer.adopt(USER, existing, take_over=take_over)
        world.stripe.faults.clear()
        set_metadata(world, existing, **{TOKEN_KEY: "shop-prod/1-a", USER_KEY: "u-9"})
        world.time += 300
        world.reconcile()
        owner = on_stripe(world, existing)["metadata"][USER_KEY]
        assert owner == ("u-1" if take_over else "u-9")
        assert due(world) == []

    def test_of_customer_that_stripe_has_deleted_is_finished(
        self, world: World, existing: str
    ) -> None:
        self.fail(world, existing, StripeUnavailableError, status=503)
        world.time += 300
        world.request("DELETE", f"/v1/customers/{existing}")
        assert [type(error) for error in StripeEvent.reconcile().failures] == []
        assert due(world) == []

    def test_of_customer_that_another_account_lacks_stays_due(
        self, world: World, existing: str
    ) -> None:
        """With the key of another account everything is missing."""
        self.fail(world, existing, StripeRefusedError, status=404)
        world.time += 300
        world.reconcile()
        assert_is_owned(world, existing)

    def test_with_fifty_keys_of_others_is_refused_without_undoing_the_adoption(
        self, world: World, existing: str
    ) -> None:
        set_metadata(world, existing, **{f"key_{number}": "1" for number in range(49)})
        assert StripeCustomer.adopt(USER, existing).is_new
        assert USER_KEY not in on_stripe(world, existing)["metadata"]
        assert due(world) == []
        StripeCustomer.release(USER)
        set_metadata(world, existing, key_0="")
        StripeCustomer.adopt(USER, existing)
        assert_is_owned(world, existing)

    def test_stays_due_during_outage(self, world: World, existing: str) -> None:
        self.fail(world, existing, StripeUnavailableError, status=503)
        world.time += 300
        world.stripe.faults.fail_next(None, match=UPDATE, status=503)
        result = StripeEvent.reconcile()
        assert [type(error) for error in result.failures] == [StripeUnavailableError]
        assert len(due(world)) == 1
        world.stripe.faults.clear()
        world.time += 300
        world.reconcile()
        assert_is_owned(world, existing)

    def test_of_soft_deleted_is_written(self, world: World, existing: str) -> None:
        self.fail(world, existing, StripeUnavailableError, status=503)
        world.delete()
        world.time += 300
        world.reconcile()
        assert on_stripe(world, existing)["metadata"][USER_KEY] == "u-1"
        assert due(world) == []

    def test_without_pointer_is_not_written(self, world: World, existing: str) -> None:
        self.fail(world, existing, StripeUnavailableError, status=503)
        forget(world, "POINTER")
        world.time += 300
        world.reconcile()
        assert on_stripe(world, existing)["metadata"] == {}
        assert due(world) == []

    def test_waits_for_time(self, world: World, existing: str) -> None:
        self.fail(world, existing, StripeUnavailableError, status=503)
        world.time += 300
        world.reconcile(remaining_seconds=20)
        assert len(due(world)) == 1


class TestRaces:
    def test_of_users_for_one_customer_has_one_winner(self, world: World, existing: str) -> None:
        """Each decides before the one before has stored anything."""
        users = [User(f"u-{number}") for number in range(50)]
        results = race(world, [partial(StripeCustomer.adopt, user, existing) for user in users])
        losers = [result for result in results if isinstance(result, Exception)]
        assert [type(loser) for loser in losers] == [CustomerOfAnotherUserError] * 49
        (winner,) = (result for result in results if isinstance(result, Customer))
        assert_is_owned(world, existing, str(winner.user_id))
        assert len(world.items(record_type="CustomerClaim")) == 1

    def test_of_customers_for_one_user_has_one_winner(self, world: World) -> None:
        ids = [world.request("POST", "/v1/customers", {"email": EMAIL})["id"] for _ in range(50)]
        requests = len(world.stripe.requests)
        results = race(world, [partial(StripeCustomer.adopt, USER, name) for name in ids])
        losers = [result for result in results if isinstance(result, Exception)]
        assert [type(loser) for loser in losers] == [UserHasAnotherCustomerError] * 49
        (winner,) = (result for result in results if isinstance(result, Customer))
        assert changes_on_stripe(world, requests) == [f"POST /v1/customers/{winner.stripe_id}"]
        assert_is_owned(world, winner.stripe_id)

    @pytest.mark.parametrize("is_first", [True, False])
    def test_with_create_has_one_customer(
        self, world: World, existing: str, is_first: bool
    ) -> None:
        outcomes: set[str] = set()
        calls: list[str] = ["?"]
        number = 0
        backup = world.images()
        while number < len(calls):
            number += 1
            put_back(world, backup)
            set_metadata(world, existing, **{USER_KEY: "", TOKEN_KEY: ""})

            def adopt() -> None:
                try:
                    StripeCustomer.adopt(USER, existing)
                except (CustomerBeingCreatedError, UserHasAnotherCustomerError) as error:
                    outcomes.add(type(error).__name__)

            def create() -> None:
                with use(world.new_context()):
                    StripeCustomer.create(USER, EMAIL)

            def adopt_in_between() -> None:
                with use(world.new_context()):
                    adopt()

            first, second = (create, adopt_in_between) if is_first else (adopt, create)
            with at_call(world, number, second) as calls:
                first()
            active = [item for item in world.items(record_type="Customer") if item["is_active"]]
            assert len(active) == 1, number
            assert StripeCustomer.require(USER).stripe_id == active[0]["stripe_id"]
            assert_is_owned(world, active[0]["stripe_id"])
        assert outcomes

    def test_killed_at_any_call_is_completed(self, world: World, existing: str) -> None:
        backup = world.images()
        with use(world.new_context()), at_call(world, 0, die) as calls:
            StripeCustomer.adopt(USER, existing)
        assert {"database", "stripe"} <= set(calls)
        for number in range(1, len(calls) + 1):
            put_back(world, backup)
            set_metadata(world, existing, **{USER_KEY: "", TOKEN_KEY: ""})
            process = use(world.new_context())
            with process, at_call(world, number, die), pytest.raises(ClientKilledError):
                StripeCustomer.adopt(USER, existing)
            is_stored = bool(images_of(world, "CLAIM"))
            assert is_stored or TOKEN_KEY not in on_stripe(world, existing)["metadata"]
            world.stream()
            world.time += 300
            world.reconcile()
            if is_stored:
                assert_is_owned(world, existing)
                assert len(StripeCustomer.require(USER).cards) == 1, number
            else:
                assert StripeCustomer.adopt(USER, existing).is_new


def race(world: World, calls: list[Callable[[], Customer]]) -> list[Customer | Exception]:
    """Run calls in threads, one at a time; each waits until all have retrieved their customers."""
    barrier, turn = threading.Barrier(len(calls)), threading.Lock()
    request_of, has_retrieved = world.stripe.request, threading.local()

    def request(*args: Any, **kwargs: Any) -> Any:
        response = request_of(*args, **kwargs)
        if not hasattr(has_retrieved, "done"):
            has_retrieved.done = True
            turn.release()
            barrier.wait()
            turn.acquire()
        return response

    def run(call: Callable[[], Customer]) -> Customer | Exception:
        with turn, use(world.new_context()):
            try:
                return call()
            except StripeIntegrationsError as error:
                return error

    with patch.object(world.stripe, "request", request), ThreadPoolExecutor(len(calls)) as callers:
        return list(callers.map(run, calls))


def test_claim_begins_when_the_customer_is_stored(world: World, existing: str) -> None:
    """What precedes may take long outside of Lambda: retries after conflicts and 429."""

    request_of = world.stripe.request

    def request(method: str, *args: Any, **kwargs: Any) -> Any:
        world.time += 200 if method == "GET" else 0
        return request_of(method, *args, **kwargs)

    world.stripe.faults.fail_next(None, match=UPDATE, status=503)
    slow = patch.object(world.stripe, "request", request)
    with use(world.new_context()), slow, pytest.raises(StripeUnavailableError):
        StripeCustomer.adopt(USER, existing)
    assert due(world)[0]["next_attempt"] > world.time


def test_claimed_item_is_finished_by_its_worker_only(world: World) -> None:
    first = MetadataUpdate.acquire("cus_1")
    assert first
    assert MetadataUpdate.acquire("cus_1") is None
    second = MetadataUpdate.of("cus_1")
    assert not second.claim_due()
    world.time += 300
    assert second.claim_due()
    first.finish()
    assert len(due(world)) == 1
    second.finish()
    assert due(world) == []
    assert not second.claim_due()
