"""`StripeAccount.verify`: every difference is found and named, and a clean table has none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import pytest

from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.account import verify as verify_module
from stripe_integrations.actions.account.page import Finding
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.adapters.stripe_gateway import StripeGateway
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import use
from stripe_integrations.errors import RunInProgressError
from stripe_integrations.models import (
    Customer,
    CustomerClaim,
    Event,
    Owner,
    Pointer,
    UserRecords,
)
from stripe_integrations.models.claim import new_token
from stripe_integrations.models.difference import DifferenceKind
from stripe_integrations.models.run import Run, RunKind, RunState
from stripe_integrations.models.table import transact
from tests.stripe_integrations.actions.account.verification import (
    create,
    lose_events,
    on_stripe,
    remove,
    report,
    run_schedule,
    settle,
    verify,
)
from tests.world import EMAIL, USER, World, database_client, hooked, stored_event

MISSING, EXTRA, STALE = DifferenceKind.MISSING, DifferenceKind.EXTRA, DifferenceKind.STALE
DUPLICATE, ORPHAN = DifferenceKind.DUPLICATE, DifferenceKind.ORPHAN


@pytest.fixture(autouse=True)
def _schedule(world: World) -> None:
    run_schedule(world)


class TestCleanTable:
    def test_has_no_difference(self, world: World) -> None:
        for number in range(3):
            stripe_id = create(world, f"u-{number}", name="Jane")
            world.attach_card(stripe_id)
            world.subscribe(stripe_id)
        on_stripe(world)
        settle(world)
        progress = verify()
        assert (progress.results, progress.differences) == ({"unchanged": 7}, {})
        assert report(progress) == {}

    def test_takes_no_longer_than_its_pages(self, world: World) -> None:
        create(world)
        settle(world)
        assert verify().seconds < 60

    def test_is_not_changed(self, world: World) -> None:
        world.subscribe(create(world))
        settle(world)

        def stored() -> list[Any]:
            of_run = ("Run", "RunLock", "Window", "RateBudget", "SweepCursor")
            return [item for item in world.items() if item["record_type"] not in of_run]

        before = stored()
        verify()
        assert stored() == before

    def test_needs_a_call_per_page_alone(self, world: World) -> None:
        for number in range(120):
            create(world, f"u-{number}")
        lose_events(world)
        world.time += 3600
        before = len(world.stripe.requests)
        verify()
        paths = [request.path for request in list(world.stripe.requests)[before:]]
        assert Counter(paths) - Counter({"/v1/events": len(paths)}) == {
            "/v1/customers": 2,
            "/v1/subscriptions": 1,
        }

    def test_of_soft_deleted_customers_is_clean(self, world: World) -> None:
        stripe_id = create(world, name="Jane")
        world.subscribe(stripe_id)
        settle(world)
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        world.rename(stripe_id, "Janet")
        lose_events(world)
        settle(world)
        assert verify().results == {"frozen": 2}

    def test_of_erased_customers_is_clean(self, world: World) -> None:
        of_user, unassigned = create(world), on_stripe(world)
        for stripe_id in (of_user, unassigned):
            world.subscribe(stripe_id)
        settle(world)
        StripeCustomer.erase(USER)
        StripeCustomer.erase_stripe_customer(unassigned)
        settle(world)
        assert verify().results == {"erased": 4}

    def test_ignores_customers_of_other_deployments(self, world: World) -> None:
        on_stripe(world, metadata={USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"})
        lose_events(world)
        settle(world)
        assert verify().differences == {}

    def test_ignores_unassigned_customers_where_they_are_not_stored(self, world: World) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
        world.subscribe(on_stripe(world))
        settle(world)
        assert verify().results == {"unassigned": 2}

    def test_ignores_removed_objects(self, world: World) -> None:
        stripe_id = create(world)
        world.subscribe(stripe_id)
        settle(world)
        record = UserRecords.read("u-1").customer(stripe_id)
        assert record
        (subscription,) = record.subscriptions
        assert subscription.observation
        record.update_with({}, [subscription.tombstone(subscription.observation)])
        assert verify().differences == {}

    def test_with_customers_of_test_clocks_is_clean(self, world: World) -> None:
        StripeCustomer.adopt(USER, on_stripe(world, test_clock="clock_1"))
        settle(world)
        before = len(world.stripe.requests)
        assert verify().differences == {}
        paths = [request.path for request in list(world.stripe.requests)[before:]]
        assert [path for path in paths if "/v1/customers/" in path]

    def test_embedded_objects_are_compared_by_id(self, world: World) -> None:
        subscription = world.subscribe(create(world))
        settle(world)
        (item,) = world.stripe.account.subscription_items[subscription]
        item["price"]["nickname"] = "Gold"
        listed = world.request("GET", "/v1/subscriptions")["data"]
        assert listed[0]["items"]["data"][0]["price"]["nickname"] == "Gold"
        assert verify().differences == {}


class TestDifferences:
    """Fifty of each kind, planted between as many customers without one."""

    COUNT = 50

    def plant(self, world: World, plant: Callable[[int], str]) -> set[str]:
        """Plant differences; their ids."""
        for number in range(self.COUNT):
            create(world, f"good-{number}")
        planted = set()
        for number in range(self.COUNT):
            planted.add(plant(number))
            lose_events(world)
        world.time += 3600
        return planted

    def check(self, world: World, planted: set[str], kind: DifferenceKind, reason: str) -> None:
        progress = verify()
        assert progress.differences == {kind: self.COUNT}
        assert report(progress) == dict.fromkeys(planted, (kind, reason))

    def test_missing_unassigned(self, world: World) -> None:
        self.check(world, self.plant(world, lambda _: on_stripe(world)), MISSING, "")

    def test_missing_of_users(self, world: World) -> None:
        def plant(number: int) -> str:
            metadata = {USER_KEY: f"u-{number}", TOKEN_KEY: new_token()}
            return on_stripe(world, metadata=metadata)

        self.check(world, self.plant(world, plant), MISSING, "")

    def test_extra(self, world: World) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}")
            world.request("DELETE", f"/v1/customers/{stripe_id}")
            return stripe_id

        self.check(world, self.plant(world, plant), EXTRA, "deleted on Stripe")

    def test_extra_that_stripe_does_not_know(self, world: World) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}")
            del world.stripe.account.customers[stripe_id]
            return stripe_id

        self.check(world, self.plant(world, plant), EXTRA, "unknown to Stripe")

    def test_stale(self, world: World) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}", name="Jane")
            lose_events(world)
            world.time += 60
            changes = {"name": "Janet", "phone": "1", "metadata": {"plan": "pro"}}
            world.request("POST", f"/v1/customers/{stripe_id}", changes)
            return stripe_id

        self.check(world, self.plant(world, plant), STALE, "metadata, name, phone")

    def test_duplicate(self, world: World) -> None:
        def plant(number: int) -> str:
            create(world, f"u-{number}")
            metadata = {USER_KEY: f"u-{number}", TOKEN_KEY: new_token()}
            return on_stripe(world, metadata=metadata)

        self.check(world, self.plant(world, plant), DUPLICATE, "")

    @pytest.mark.parametrize(
        ("keys", "reason"),
        [
            (["record"], "pointer without record"),
            (["pointer"], "record without pointer"),
            (["record", "pointer"], "claim without record"),
            (["claim"], "record without claim"),
        ],
    )
    def test_orphan(self, world: World, keys: list[str], reason: str) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}")
            pk = f"USER#u-{number}"
            every = {
                "record": (pk, f"CUSTOMER#{stripe_id}"),
                "pointer": Pointer.key_of(stripe_id),
                "claim": CustomerClaim.key_in(pk),
            }
            remove(*(every[key] for key in keys))
            return stripe_id

        self.check(world, self.plant(world, plant), ORPHAN, reason)

    def test_orphan_whose_claim_points_elsewhere(self, world: World) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}")
            CustomerClaim(
                f"USER#u-{number}", "CLAIM", token="x/1-a", stripe_id=f"cus_{number}"
            ).save()
            return stripe_id

        reason = "record and claim of different customers"
        self.check(world, self.plant(world, plant), ORPHAN, reason)

    def test_orphan_whose_pointer_names_another_owner(self, world: World) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}")
            Pointer.to(Owner(None, stripe_id)).save()
            return stripe_id

        planted = self.plant(world, plant)
        self.check(world, planted, ORPHAN, "record and pointer of different owners")

    def test_orphan_whose_customer_was_erased(self, world: World) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}")
            transact(lambda t: Pointer.erase_in(t, Pointer.read(stripe_id), stripe_id))
            return stripe_id

        planted = self.plant(world, plant)
        self.check(world, planted, ORPHAN, "record of a customer that was erased")

    def test_missing_subscription(self, world: World) -> None:
        def plant(number: int) -> str:
            stripe_id = create(world, f"u-{number}", currency="usd")
            return world.subscribe(stripe_id)

        self.check(world, self.plant(world, plant), MISSING, "")

    def test_stale_subscription(self, world: World) -> None:
        def plant(number: int) -> str:
            subscription = world.subscribe(create(world, f"u-{number}"))
            StripeCustomer.sync(StripeCustomer.require(User(f"u-{number}")))
            lose_events(world)
            world.time += 60
            world.request("POST", f"/v1/subscriptions/{subscription}", {"metadata": {"a": "b"}})
            return subscription

        self.check(world, self.plant(world, plant), STALE, "metadata")

    def test_stale_item_beyond_the_first_page(self, world: World) -> None:
        subscription = world.subscribe(create(world), items=12)
        world.deliver_and_apply()
        first = world.request("GET", "/v1/subscription_items", {"subscription": subscription})
        item = first["data"][-1]["id"]
        lose_events(world)
        changes = {"items": [{"id": item, "quantity": 7}]}
        world.request("POST", f"/v1/subscriptions/{subscription}", changes)
        lose_events(world)
        settle(world)
        (found,) = report(verify()).values()
        assert found[0] is STALE
        assert "items" in found[1]

    def test_are_named_beside_each_other(self, world: World) -> None:
        create(world, "u-1")
        deleted, renamed = create(world, "u-2"), create(world, "u-3")
        subscribed = create(world, "u-4", currency="usd")
        world.deliver_and_apply()
        missing = on_stripe(world)
        world.request("DELETE", f"/v1/customers/{deleted}")
        world.rename(renamed, "Jane")
        subscription = world.subscribe(subscribed)
        lose_events(world)
        settle(world)
        assert report(verify()) == {
            missing: (MISSING, ""),
            deleted: (EXTRA, "deleted on Stripe"),
            renamed: (STALE, "name"),
            subscription: (MISSING, ""),
        }

    def test_are_reported_as_progress(self, world: World) -> None:
        missing = on_stripe(world)
        lose_events(world)
        settle(world)
        progress = list(StripeAccount.verify())
        assert progress[0].results == {"suspected": 1}
        assert [f for p in progress for f in p.findings] == [Finding(missing, MISSING, "")]
        assert progress[-1].differences == {MISSING: 1}

    def test_have_no_values(self, world: World) -> None:
        stripe_id = create(world, name="Jane Doe")
        world.deliver_and_apply()
        world.rename(stripe_id, "Janet Doe")
        lose_events(world)
        settle(world)
        progress = verify()
        run = [item for item in world.items() if item["pk"] == f"RUN#{progress.run_id}"]
        assert "Difference" in {item["record_type"] for item in run}
        assert "Doe" not in repr(run)

    def test_expire(self, world: World) -> None:
        on_stripe(world)
        lose_events(world)
        settle(world)
        verify()
        (item,) = world.items(record_type="Difference")
        assert world.time + 29 * 86_400 < item["expires_at"] < world.time + 31 * 86_400
        assert world.items(record_type="Suspicion") == []

    def test_of_record_of_a_later_release_is_unreadable(self, world: World) -> None:
        stripe_id = create(world)
        subscription = world.subscribe(stripe_id)
        settle(world)
        Customer("USER#u-1", f"CUSTOMER#{stripe_id}").update(
            [Customer.schema_version.set(99)], add_version_condition=False
        )
        progress = list(StripeAccount.verify())
        found = [finding for each in progress for finding in each.findings]
        assert [(f.stripe_id, f.reason) for f in found] == [
            (stripe_id, "NewerSchemaError"),
            (subscription, "NewerSchemaError"),
        ]


class TestChangesDuringTheRun:
    """A change whose events arrive late is no difference."""

    @pytest.mark.parametrize("entries", [10, 1000])
    def test_are_no_differences(
        self, world: World, monkeypatch: pytest.MonkeyPatch, entries: int
    ) -> None:
        monkeypatch.setattr(verify_module, "_MAX_ENTRIES", entries)
        stripe_ids = [create(world, f"u-{number}") for number in range(130)]
        lose_events(world)
        world.time += 3600
        run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        unchanged = iter(stripe_ids)
        suspected = 0
        for number, step in enumerate(StripeAccount.work(run_id)):
            suspected += step.page.results["suspected"]  # type: ignore[index]
            assert step.page.findings == []
            for stripe_id in islice(unchanged, 8):
                self.change(world, stripe_id, number)
            if number % 3 == 2:
                world.time += 400
                world.deliver_and_apply()
                world.context.deadline = math.inf
        progress = StripeAccount.progress(run_id)
        assert (progress.state, progress.differences) == (RunState.FINISHED, {})
        assert suspected

    @staticmethod
    def change(world: World, stripe_id: str, number: int) -> None:
        match hash(stripe_id) % 4:
            case 0:
                world.rename(stripe_id, f"name {number}")
            case 1:
                world.subscribe(stripe_id)
            case 2:
                world.request("DELETE", f"/v1/customers/{stripe_id}")
            case 3:
                on_stripe(world)
                StripeCustomer.create(User(f"new-{stripe_id}"), EMAIL)

    @pytest.mark.parametrize("what", ["customer", "subscription"])
    def test_before_each_check_is_none(
        self, world: World, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        """It changes on Stripe just before each fetch, and each event is applied soon after."""
        stripe_id = create(world, currency="usd")
        path = f"/v1/customers/{stripe_id}"
        listing, fetch = "list_customers_page", "retrieve_customer"
        if what == "subscription":
            path = f"/v1/subscriptions/{world.subscribe(stripe_id)}"
            listing, fetch = "list_subscriptions_page", "list_subscriptions"
        settle(world)
        values = iter("123")

        def change() -> None:
            if value := next(values, None):
                world.request("POST", path, {"metadata": {"n": value}})

        def apply() -> None:
            with monkeypatch.context() as patch, use(world.context):
                patch.setattr(StripeGateway, fetch, fetched)
                world.deliver_and_apply()
                world.context.deadline = math.inf

        listed, fetched = getattr(StripeGateway, listing), getattr(StripeGateway, fetch)

        def list_and_change(*args: Any) -> Any:
            page = listed(*args)
            change()
            apply()  # the record is newer than the page
            return page

        def change_and_fetch(*args: Any) -> Any:
            world.during_sleep = lambda: None
            change()
            found = fetched(*args)
            world.during_sleep = schedule_and_apply
            return found

        schedule = world.during_sleep

        def schedule_and_apply() -> None:
            schedule()
            apply()

        monkeypatch.setattr(StripeGateway, listing, list_and_change)
        monkeypatch.setattr(StripeGateway, fetch, change_and_fetch)
        progress = verify()
        assert (progress.differences, progress.results.get("suspected", 0)) == ({}, 0)
        assert next(values, None) is None

    def test_during_a_fetch_is_none(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fetched state is older than the record; at the next fetch it is newer."""
        stripe_id = create(world)
        settle(world)
        world.rename(stripe_id, "Jane")
        fetch = StripeGateway.retrieve_customer
        numbers = count(1)

        def change_around_fetch(gateway: StripeGateway, customer_id: str) -> Any:
            number = next(numbers)
            if number == 2:
                world.rename(stripe_id, "2")
            found = fetch(gateway, customer_id)
            if number == 1:
                world.rename(stripe_id, "1")
                with use(world.context):
                    world.deliver_and_apply()
                    world.context.deadline = math.inf
            return found

        steps = StripeAccount.work(StripeAccount.start(kind=RunKind.VERIFY).run_id)
        assert next(steps).page.results == {"suspected": 1}
        monkeypatch.setattr(StripeGateway, "retrieve_customer", change_around_fetch)
        assert [step.page.findings for step in steps if step.page.findings] == []

    def test_wait_for_unfinished_events(self, world: World) -> None:
        stripe_id = create(world)
        settle(world)
        world.rename(stripe_id, "Jane")
        world.deliver()
        (event,) = world.items(kind="customer.updated")
        later = int(world.time) + 3000
        stored_event(event["stripe_id"]).update([Event.next_attempt.set(later)])
        world.context.deadline = math.inf
        progress = verify()
        assert (progress.differences, progress.results) == ({}, {"unchanged": 1})
        assert progress.seconds > 3000

    def test_are_undecided_if_no_event_is_swept(self, world: World) -> None:
        stripe_id = create(world)
        settle(world)
        world.rename(stripe_id, "Jane")
        world.during_sleep = lambda: None
        progress = verify()
        undecided = (DifferenceKind.UNDECIDED, "its events were not swept")
        assert report(progress) == {stripe_id: undecided}
        assert 2 * 3600 <= progress.seconds < 3 * 3600


class TestRun:
    def plant(self, world: World) -> tuple[set[str], set[str]]:
        """Customers that are missing, and customers that Stripe has deleted, among others."""
        deleted, missing = set(), set()
        for number in range(150):
            create(world, f"u-{number}")
            if number % 5 == 0:
                missing.add(on_stripe(world))
            if number % 5 == 1:
                deleted.add(create(world, f"d-{number}"))
        for stripe_id in deleted:
            world.request("DELETE", f"/v1/customers/{stripe_id}")
        lose_events(world)
        world.time += 3600
        return missing, deleted

    def check(self, run_id: str, planted: tuple[set[str], set[str]]) -> None:
        missing, deleted = planted
        progress = StripeAccount.progress(run_id)
        assert progress.state is RunState.FINISHED
        assert progress.results == {
            "unchanged": 150,
            "missing": len(missing),
            "extra": len(deleted),
        }
        assert report(progress) == {
            **dict.fromkeys(missing, (MISSING, "")),
            **dict.fromkeys(deleted, (EXTRA, "deleted on Stripe")),
        }

    def test_of_customers_of_one_second_is_complete(self, world: World) -> None:
        for number in range(250):
            StripeCustomer.create(User(f"u-{number}"), EMAIL)
        stripe_ids = {item["stripe_id"] for item in world.items(record_type="Customer")}
        (gone, *_) = stripe_ids
        world.request("DELETE", f"/v1/customers/{gone}")
        lose_events(world)
        world.time += 3600
        progress = verify()
        assert report(progress) == {gone: (EXTRA, "deleted on Stripe")}
        assert progress.results == {"unchanged": 249, "extra": 1}

    @pytest.mark.parametrize(
        ("moment", "operation", "every"),
        [
            ("before-send.dynamodb", "PutItem", 7),
            ("before-send.dynamodb", "TransactWriteItems", 1),
            ("before-send.dynamodb", "Query", 7),
            ("after-call.dynamodb", "PutItem", 7),
            ("after-call.dynamodb", "TransactWriteItems", 1),
        ],
    )
    def test_that_is_killed_again_and_again_finds_the_same(
        self, world: World, moment: str, operation: str, every: int
    ) -> None:
        planted = self.plant(world)
        run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        kills = 0
        for number in range(1, 200):
            left = iter(range(number * every))

            def die(left: Iterator[int] = left, **given: Any) -> None:
                called = given["model"].name if "model" in given else given["event_name"]
                if called.endswith(operation) and next(left, None) is None:
                    raise KeyboardInterrupt

            with hooked(database_client(), moment, die):
                try:
                    list(StripeAccount.work(run_id))
                    break
                except KeyboardInterrupt:
                    kills += 1
        assert kills
        self.check(run_id, planted)

    def test_is_divided_between_workers(self, world: World) -> None:
        planted = self.plant(world)
        run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        workers = [StripeAccount.work(run_id, str(number)) for number in range(3)]
        next(workers[0])
        Run.read(run_id).request_split(is_requested=True)
        while workers:
            for worker in list(workers):
                if next(worker, None) is None:
                    workers.remove(worker)
        assert StripeAccount.progress(run_id).windows > 2
        self.check(run_id, planted)

    def test_is_stopped_and_resumed(self, world: World) -> None:
        planted = self.plant(world)
        run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        for _ in range(20):
            for _ in StripeAccount.work(run_id):
                StripeAccount.stop(run_id)
            if StripeAccount.progress(run_id).state is RunState.FINISHED:
                break
            assert StripeAccount.progress(run_id).state is RunState.STOPPED
            StripeAccount.resume(run_id)
        self.check(run_id, planted)

    def test_is_stopped_while_it_waits(self, world: World) -> None:
        on_stripe(world)
        lose_events(world)
        world.time += 3600
        run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        began = world.time

        def stop() -> None:
            if world.time > began + 300:
                StripeAccount.stop(run_id)

        world.during_sleep = stop
        list(StripeAccount.work(run_id))
        assert StripeAccount.progress(run_id).state is RunState.STOPPED
        assert world.time < began + 600

    def test_excludes_others(self, world: World) -> None:
        StripeAccount.start(kind=RunKind.VERIFY)
        with pytest.raises(RunInProgressError):
            StripeAccount.start()

    def test_keeps_its_calls_below_the_endpoints_rate(self, world: World) -> None:
        for _ in range(30):
            on_stripe(world)
        lose_events(world)
        world.time += 3600
        calls: list[float] = []
        retrieve = StripeGateway.retrieve_customer

        def record(gateway: StripeGateway, stripe_id: str) -> Any:
            found = retrieve(gateway, stripe_id)
            calls.append(world.time)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StripeGateway, "retrieve_customer", record)
            verify()
        assert len(calls) == 30
        assert calls[-1] - calls[0] >= 29 / 12.5 - 0.1

    def test_of_a_list_without_our_customers_reads_it_in_parts(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with the key of another account: the table has much more than the list."""
        monkeypatch.setattr(verify_module, "_MAX_ENTRIES", 10)
        stripe_ids = [create(world, f"u-{number}") for number in range(45)]
        for stripe_id in stripe_ids:
            del world.stripe.account.customers[stripe_id]
        lose_events(world)
        world.time += 3600
        run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        sizes = [
            sum(step.page.results.values())
            for step in StripeAccount.work(run_id)
            if not step.page.findings
        ]
        assert max(sizes) <= 11
        assert report(StripeAccount.progress(run_id)) == dict.fromkeys(
            stripe_ids, (EXTRA, "unknown to Stripe")
        )
        assert len([c for c in world.items(record_type="Customer") if c["is_active"]]) == 45
