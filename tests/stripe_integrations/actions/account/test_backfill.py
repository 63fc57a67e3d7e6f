"""`StripeAccount.backfill`: every customer and subscription of the account is stored once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.customers import refresh
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.errors import (
    OtherAccountError,
    RunInProgressError,
    RunNotFoundError,
    SweepMissingError,
)
from stripe_integrations.models import Customer, Owner, Pointer, read_customer
from stripe_integrations.models.claim import new_token
from stripe_integrations.models.run import PaymentMethodPolicy, Run, RunKind, RunLock, RunState
from stripe_integrations.models.window import WalkedList, Window
from tests.stripe_integrations.actions.account.helpers import (
    backfill,
    calls,
    lose_events,
    make,
    record_of,
)
from tests.world import EMAIL, USER, World

LIST = "GET /v1/customers"


pytestmark = pytest.mark.usefixtures("stores_unassigned")


class TestBackfill:
    def test_stores_customers_with_children(self, world: World) -> None:
        first = make(world, name="Jane")
        world.attach_card(first)
        world.subscribe(first)
        second = make(world)
        lose_events(world)
        world.time += 3600
        assert backfill() == {"stored": 2, "fetched": 1}
        record = record_of(first)
        assert (record.name, record.user_id) == ("Jane", None)
        assert len(record.cards) == len(record.subscriptions) == 1
        assert record_of(second).is_active

    def test_worker_keeps_no_other_window_than_its_own(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large run has thousands of windows: a worker's memory does not grow with them."""
        make(world)
        world.time += 3600
        read: list[weakref.ref[Window]] = []
        all_of = Window.all_of

        def recorded(run_id: str) -> list[Window]:
            windows = all_of(run_id)
            read.extend(map(weakref.ref, windows))
            return windows

        monkeypatch.setattr(Window, "all_of", recorded)
        walking = StripeAccount.backfill()
        before, after_a_page = next(walking), next(walking)
        assert (before.results, after_a_page.results) == ({}, {"stored": 1})
        gc.collect()
        assert len(read) > 1
        assert sum(window() is not None for window in read) <= 1
        walking.close()

    def test_of_empty_account(self, world: World) -> None:
        assert backfill() == {}

    def test_repeated_changes_nothing(self, world: World) -> None:
        stripe_id = make(world)
        world.subscribe(stripe_id)
        lose_events(world)
        world.time += 3600
        backfill()
        before = record_of(stripe_id)
        world.time += 3600
        assert backfill() == {"unchanged": 2}
        assert record_of(stripe_id).version == before.version

    def test_updates_what_is_older(self, world: World) -> None:
        stripe_id = make(world, name="Jane")
        world.time += 3600
        backfill()
        world.time += 3600
        world.rename(stripe_id, "Janet")
        lose_events(world)
        world.time += 3600
        assert backfill() == {"updated": 1}
        assert record_of(stripe_id).name == "Janet"

    def test_reads_every_page(self, world: World) -> None:
        made = {make(world) for _ in range(230)}
        world.time += 3600
        assert backfill() == {"stored": 230}
        assert {item["stripe_id"] for item in world.items(record_type="Customer")} == made
        assert calls(world).count(LIST) == 3

    def test_needs_no_call_per_customer(self, world: World) -> None:
        for _ in range(120):
            make(world)
        world.time += 3600
        before = len(calls(world))
        backfill()
        assert len(calls(world)) - before == 3  # two pages of customers, one of subscriptions

    def test_lists_payment_methods_of_customer_with_default(self, world: World) -> None:
        stripe_id = make(world)
        method = world.attach_card(stripe_id)
        settings = {"invoice_settings": {"default_payment_method": method}}
        world.request("POST", f"/v1/customers/{stripe_id}", settings)
        lose_events(world)
        world.time += 3600
        before = len(calls(world))
        backfill()
        assert [card.is_default for card in record_of(stripe_id).cards] == [True]
        assert len(calls(world)) - before == 3

    @pytest.mark.parametrize(("policy", "cards"), [("all", 1), ("none", 0)])
    def test_lists_payment_methods_by_policy(self, world: World, policy: str, cards: int) -> None:
        stripe_id = make(world)
        world.attach_card(stripe_id)
        world.subscribe(stripe_id)
        lose_events(world)
        world.time += 3600
        backfill(payment_methods=PaymentMethodPolicy(policy))
        record = record_of(stripe_id)
        assert (len(record.cards), len(record.subscriptions)) == (cards, 1)

    def test_skips_customers_of_other_deployments(self, world: World) -> None:
        stripe_id = make(world, metadata={USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"})
        world.time += 3600
        assert backfill() == {"foreign": 1}
        assert Pointer.find(stripe_id) is None

    def test_restores_customer_of_own_token(self, world: World) -> None:
        world.create()
        stripe_id = StripeCustomer.require(USER).stripe_id
        for item in world.items():
            if item["record_type"] in ("Customer", "CustomerClaim", "Pointer"):
                Customer(item["pk"], item["sk"]).delete(add_version_condition=False)
        world.time += 3600
        assert backfill() == {"stored": 1}
        assert StripeCustomer.require(USER).stripe_id == stripe_id

    def test_reports_customer_whose_user_was_removed_from_its_metadata(self, world: World) -> None:
        stripe_id = make(world, metadata={TOKEN_KEY: new_token()})
        world.time += 3600
        progress = list(StripeAccount.backfill())
        (finding,) = [finding for each in progress for finding in each.findings]
        assert (finding.stripe_id, finding.result) == (stripe_id, "conflict")
        assert Pointer.find(stripe_id) is None
        assert world.items(record_type="Customer") == []

    def test_skips_unassigned_customers_where_they_are_not_stored(self, world: World) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
        stripe_id = make(world)
        world.subscribe(stripe_id)
        lose_events(world)
        world.time += 3600
        assert backfill() == {"unassigned": 2}
        assert Pointer.find(stripe_id) is None

    def test_does_not_change_soft_deleted_customer(self, world: World) -> None:
        world.create(name="Jane")
        customer = StripeCustomer.require(USER)
        world.subscribe(customer.stripe_id)
        world.deliver_and_apply()
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        world.rename(customer.stripe_id, "Janet")
        lose_events(world)
        world.time += 3600
        assert backfill() == {"frozen": 2}
        assert record_of(customer.stripe_id).name == "Jane"

    def test_reports_customer_that_cannot_be_read(self, world: World) -> None:
        stripe_id = make(world)
        world.time += 3600
        backfill()
        Customer.get(f"UNASSIGNED#{stripe_id}", f"CUSTOMER#{stripe_id}").update(
            [Customer.schema_version.set(99)], add_version_condition=False
        )
        world.time += 3600
        steps = list(StripeAccount.work(StripeAccount.start().run_id))
        findings = [finding for step in steps for finding in step.page.findings]
        assert [finding.reason for finding in findings] == ["NewerSchemaError"]

    def test_is_not_started_before_first_sweep(self, world: World) -> None:
        for item in world.items(record_type="SweepCursor"):
            Customer(item["pk"], item["sk"]).delete(add_version_condition=False)
        with pytest.raises(SweepMissingError):
            StripeAccount.start()


class TestBesideEvents:
    def test_page_that_overlaps_the_stored_state_is_fetched(self, world: World) -> None:
        stripe_id = make(world, name="Jane")
        world.time += 3600
        backfill()
        world.rename(stripe_id, "Janet")
        lose_events(world)
        assert backfill() == {"fetched": 1}
        assert record_of(stripe_id).name == "Janet"

    def test_page_that_equals_the_stored_state_is_not_fetched(self, world: World) -> None:
        world.subscribe(make(world))
        lose_events(world)
        world.time += 3600
        backfill()
        assert backfill() == {"unchanged": 2}

    def test_events_of_stored_customers_are_applied(self, world: World) -> None:
        stripe_id = make(world, name="Jane")
        world.time += 3600
        backfill()
        world.time += 60
        world.rename(stripe_id, "Janet")
        world.deliver_and_apply()
        assert record_of(stripe_id).name == "Janet"

    def test_customer_stored_by_another_worker_is_compared(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stripe_id = make(world)
        world.time += 3600
        read_all = Pointer.read_all

        def read(ids: Any) -> dict[str, Pointer]:
            found = read_all(ids)
            monkeypatch.setattr(Pointer, "read_all", read_all)
            StripeCustomer.adopt(USER, stripe_id)
            return found

        monkeypatch.setattr(Pointer, "read_all", read)
        backfill()
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        assert read_customer(Owner(None, stripe_id)) is None

    @pytest.mark.parametrize("end", ["soft-delete", "release"])
    def test_customer_that_is_removed_during_its_fetch_does_not_stop_the_run(
        self, world: World, monkeypatch: pytest.MonkeyPatch, end: str
    ) -> None:
        world.create()
        world.deliver_and_apply()
        world.time += 1  # the run reads what was created before its second
        fetch = refresh.fetch_from_stripe

        def fetch_slowly(customer: Customer, *args: Any) -> Any:
            monkeypatch.setattr(refresh, "fetch_from_stripe", fetch)
            fetched = fetch(customer, *args)
            if end == "release":
                StripeCustomer.release(USER)
            else:
                StripeCustomer.soft_delete(StripeCustomer.require(USER))
            return fetched

        def sync() -> None:
            world.during_sleep = lambda: None
            StripeCustomer.sync(StripeCustomer.require(USER))
            world.rename(StripeCustomer.require(USER).stripe_id, "Janet")
            monkeypatch.setattr(refresh, "fetch_from_stripe", fetch_slowly)

        world.during_sleep = sync  # the page that follows overlaps it
        backfill()
        assert refresh.fetch_from_stripe is fetch
        assert StripeCustomer.get(USER) is None


class TestRun:
    def test_is_the_only_one(self, world: World) -> None:
        StripeAccount.start()
        with pytest.raises(RunInProgressError):
            StripeAccount.start()

    def test_is_continued_by_another_worker_after_a_kill(self, world: World) -> None:
        made = {make(world) for _ in range(250)}
        world.time += 3600
        run_id = StripeAccount.start().run_id
        next(StripeAccount.work(run_id, "0"))
        world.time += 3600
        results = list(StripeAccount.work(run_id, "1"))
        assert len(results) == 3
        assert {item["stripe_id"] for item in world.items(record_type="Customer")} == made
        assert StripeAccount.progress(run_id).results == {"stored": 250}

    def test_that_was_killed_after_a_page_was_written_repeats_it(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(120):
            make(world)
        world.time += 3600
        run_id = StripeAccount.start().run_id

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Window, "advance", die)
            next(StripeAccount.work(run_id))
        before = len(calls(world))
        list(StripeAccount.work(run_id))
        assert StripeAccount.progress(run_id).results == {"stored": 20, "unchanged": 100}
        assert len(calls(world)) - before == 3

    def test_is_stopped_and_resumed(self, world: World) -> None:
        for _ in range(250):
            make(world)
        world.time += 3600
        run_id = StripeAccount.start().run_id
        for _ in StripeAccount.work(run_id):
            StripeAccount.stop(run_id)
        assert StripeAccount.progress().results == {"stored": 100}
        assert StripeAccount.progress().state is RunState.STOPPED
        StripeAccount.resume(run_id)
        list(StripeAccount.work(run_id))
        assert StripeAccount.progress().results == {"stored": 250}
        assert StripeAccount.progress().state is RunState.FINISHED

    def test_that_was_stopped_gives_way_to_another(self, world: World) -> None:
        first = StripeAccount.start().run_id
        StripeAccount.stop(first)
        second = StripeAccount.start().run_id
        with pytest.raises(RunInProgressError):
            StripeAccount.resume(first)
        assert StripeAccount.progress().run_id == second

    def test_that_is_resumed_during_the_start_of_another_remains_the_only_one(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = StripeAccount.start().run_id
        StripeAccount.stop(first)
        take_in = RunLock.take_in

        def resume_and_take(*args: Any) -> None:
            monkeypatch.setattr(RunLock, "take_in", take_in)
            StripeAccount.resume(first)
            take_in(*args)

        monkeypatch.setattr(RunLock, "take_in", resume_and_take)
        with pytest.raises(RunInProgressError):
            StripeAccount.start()
        running = world.items(record_type="Run", state="running")
        assert [item["run_id"] for item in running] == [first]

    def test_unknown(self, world: World) -> None:
        with pytest.raises(RunNotFoundError):
            StripeAccount.progress()
        with pytest.raises(RunNotFoundError):
            StripeAccount.stop("1-a")

    def test_continues_where_the_last_object_of_a_page_is_gone(self, world: World) -> None:
        made = [make(world) for _ in range(150)]
        world.time += 3600
        run_id = StripeAccount.start().run_id
        steps = StripeAccount.work(run_id)
        step = next(steps)
        last = str(step.window.cursor_id)
        world.request("DELETE", f"/v1/customers/{last}")
        list(steps)
        stored = {item["stripe_id"] for item in world.items(record_type="Customer")}
        assert stored == set(made)

    def test_does_not_change_the_context_of_the_caller(self, world: World) -> None:
        make(world)
        world.time += 3600
        for _ in StripeAccount.backfill():
            assert StripeCustomer.get(USER) is None
            assert world.context.before_stripe_call is None


class TestWindows:
    def windows(self, run_id: str) -> list[tuple[int | None, int]]:
        return [
            (window.created_from, window.created_before)
            for window in Window.all_of(run_id)
            if window.walked_list is WalkedList.CUSTOMERS
        ]

    def test_are_divided_for_idle_workers_without_gap(self, world: World) -> None:
        made = set()
        for _ in range(6):
            made |= {make(world) for _ in range(60)}
            world.time += 40 * 86_400
        run_id = StripeAccount.start().run_id
        workers = [StripeAccount.work(run_id, str(number)) for number in range(3)]
        next(workers[0])
        self._find_no_window(run_id)
        interleave(workers)
        windows = self.windows(run_id)
        assert len(windows) > 1
        assert windows[0][0] is None
        for (_, before), (following, _) in pairwise(windows):
            assert before == following
        assert {item["stripe_id"] for item in world.items(record_type="Customer")} == made

    @staticmethod
    def _find_no_window(run_id: str) -> None:
        Run.read(run_id).request_split(is_requested=True)

    def test_are_taken_over_when_their_lease_ends(self, world: World) -> None:
        for _ in range(120):
            make(world)
        world.time += 3600
        run_id = StripeAccount.start().run_id
        slow = StripeAccount.work(run_id, "0")
        next(slow)
        world.time += 300
        assert len(list(StripeAccount.work(run_id, "1"))) == 2
        assert list(slow) == []


def interleave(workers: Iterable[Iterator[Any]]) -> None:
    """Let workers take turns, a page each, until none is left."""
    working = list(workers)
    while working:
        for worker in list(working):
            if next(worker, None) is None:
                working.remove(worker)


class TestAccount:
    def test_with_the_key_of_another_account_is_refused(self, world: World) -> None:
        for _ in range(4):
            make(world)
        world.time += 3600
        backfill()
        world.time += 3600
        world.stripe.account.customers.clear()
        with pytest.raises(OtherAccountError):
            StripeAccount.start()
        assert StripeAccount.progress().state is RunState.FINISHED
        assert StripeAccount.start(kind=RunKind.VERIFY)  # it only reads

    def test_of_deleted_customers_is_the_same_account(self, world: World) -> None:
        stripe_id = make(world)
        world.time += 3600
        backfill()
        world.request("DELETE", f"/v1/customers/{stripe_id}")
        lose_events(world)
        assert backfill() == {}


class TestBudgets:
    def test_calls_stay_below_the_endpoints_rate(self, world: World) -> None:
        for _ in range(30):
            world.attach_card(make(world))
        lose_events(world)
        world.time += 3600
        began = world.time
        backfill(payment_methods=PaymentMethodPolicy.ALL)
        listed = [c for c in calls(world) if c.endswith("/payment_methods")]
        assert world.time - began >= len(listed) / 12.5 - 1

    def test_user_calls_do_not_wait(self, world: World) -> None:
        make(world)
        world.time += 3600
        list(StripeAccount.backfill())
        began = world.time
        StripeCustomer.create(User("u-5"), EMAIL)
        assert world.time == began
