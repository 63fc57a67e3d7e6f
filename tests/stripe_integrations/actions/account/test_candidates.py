"""A backfill that gives unassigned customers to the users whom their metadata names."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.account import candidates
from stripe_integrations.config import ExistingCustomers, UnassignedCustomers
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models import Owner, read_customer
from stripe_integrations.models.run import PaymentMethodPolicy, RunKind
from stripe_integrations.models.window import WalkedList, Window
from tests.stripe_integrations.actions.account.helpers import (
    backfill,
    calls,
    findings_of,
    lose_events,
    make,
    record_of,
    set_schema_version,
)
from tests.world import USER, World

KEY = "app_user"
OTHER = User("u-2")


@pytest.fixture(autouse=True)
def _adopts_from_metadata(world: World) -> None:
    world.reconcile()
    world.context.deadline = math.inf
    world.configure(
        unassigned_customers=UnassignedCustomers.STORE,
        existing_customers=ExistingCustomers.CHECK,
        adopt_from=KEY,
    )


def named(world: World, user_id: str, **fields: Any) -> str:
    """A customer on Stripe whose metadata names a user, created an hour ago."""
    stripe_id = make(world, metadata={KEY: user_id}, **fields)
    world.time += 3600
    return stripe_id


class TestAssigns:
    def test_the_one_customer_that_names_a_user(self, world: World) -> None:
        stripe_id, unnamed = named(world, "u-1"), make(world)
        card = world.attach_card(stripe_id)
        world.request(
            "POST",
            f"/v1/customers/{stripe_id}",
            {"invoice_settings": {"default_payment_method": card}},
        )
        lose_events(world)
        world.time += 3600
        assert backfill(by_metadata=True) == {"stored": 2, "staged": 1}
        customer = StripeCustomer.require(USER)
        assert customer.stripe_id == stripe_id
        assert [card.stripe_id for card in customer.cards] == [card]
        assert read_customer(Owner(None, unnamed))

    def test_without_a_call_or_a_change_on_stripe(self, world: World) -> None:
        stripe_id = named(world, "u-1")
        backfill(by_metadata=True, payment_methods=PaymentMethodPolicy.NONE)
        made = [call for call in calls(world) if not call.startswith("POST")]
        assert made[-2:] == ["GET /v1/customers", "GET /v1/subscriptions"]
        assert world.request("GET", f"/v1/customers/{stripe_id}")["metadata"] == {KEY: "u-1"}

    def test_also_where_an_earlier_walk_has_stored_it(self, world: World) -> None:
        stripe_id = named(world, "u-1")
        backfill()
        assert StripeCustomer.get(USER) is None
        world.time += 3600
        assert backfill(by_metadata=True) == {"unchanged": 1, "staged": 1}
        assert StripeCustomer.require(USER).stripe_id == stripe_id

    def test_many_on_several_pages_and_workers(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(candidates, "_PAGE", 3)
        made = {f"u-{number}": named(world, f"u-{number}") for number in range(60)}
        twice = [named(world, "twice") for _ in range(7)]
        run_id = StripeAccount.start(by_metadata=True).run_id
        workers = [StripeAccount.work(run_id, str(number)) for number in range(3)]
        findings = []
        while workers:
            for worker in list(workers):
                step = next(worker, None)
                if step is None:
                    workers.remove(worker)
                else:
                    findings += step.page.findings
        for user_id, stripe_id in made.items():
            assert StripeCustomer.require(User(user_id)).stripe_id == stripe_id
        assert sorted(finding.stripe_id for finding in findings) == sorted(twice)
        assert StripeCustomer.get(User("twice")) is None

    def test_after_a_kill_the_same(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        made = {f"u-{number}": named(world, f"u-{number}") for number in range(5)}
        run_id = StripeAccount.start(by_metadata=True).run_id
        advance = Window.advance

        def die(window: Window, *args: Any) -> None:
            if window.walked_list is WalkedList.CANDIDATES:
                raise KeyboardInterrupt
            advance(window, *args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Window, "advance", die)
            list(StripeAccount.work(run_id))
        assert not [f for s in StripeAccount.work(run_id) for f in s.page.findings]
        for user_id, stripe_id in made.items():
            assert StripeCustomer.require(User(user_id)).stripe_id == stripe_id

    def test_is_undone(self, world: World) -> None:
        stripe_id = named(world, "u-1")
        run_id = StripeAccount.start(by_metadata=True).run_id
        list(StripeAccount.work(run_id))
        assert record_of(stripe_id).user_id == "u-1"
        world.time += 3600
        list(StripeAccount.undo(run_id))
        assert record_of(stripe_id).user_id is None
        world.time += 3600
        # The customer was released from this user, who therefore does not get it again.
        assert [finding.result for finding in findings_of(by_metadata=True)] == ["conflict"]
        assert record_of(stripe_id).user_id is None


class TestLeavesUnassigned:
    def test_customers_that_name_one_user(self, world: World) -> None:
        stripe_ids = {named(world, "u-1"), named(world, "u-1")}
        findings = findings_of(by_metadata=True)
        assert {finding.stripe_id for finding in findings} == stripe_ids
        assert {f.reason for f in findings} == {
            "several customers name this user in their metadata"
        }
        assert all(record_of(stripe_id).user_id is None for stripe_id in stripe_ids)

    def test_customer_of_a_user_who_has_another_one(self, world: World) -> None:
        own = StripeCustomer.create(USER, "jane@example.com").stripe_id
        world.deliver_and_apply()
        stripe_id = named(world, "u-1")
        (finding,) = findings_of(by_metadata=True)
        assert (finding.stripe_id, finding.reason) == (stripe_id, "this user has another customer")
        assert StripeCustomer.require(USER).stripe_id == own

    def test_customer_whose_metadata_was_changed_since_its_page(self, world: World) -> None:
        stripe_id = named(world, "u-1")
        run_id = StripeAccount.start(by_metadata=True).run_id
        work = StripeAccount.work(run_id)
        next(work)
        world.request("POST", f"/v1/customers/{stripe_id}", {"metadata": {KEY: "u-2"}})
        world.deliver_and_apply()
        list(work)
        assert StripeCustomer.get(USER) is None
        assert StripeCustomer.require(OTHER).stripe_id == stripe_id  # by its event

    def test_customer_of_an_invalid_user_id(self, world: World) -> None:
        stripe_id = named(world, "u\x07")
        (finding,) = findings_of(by_metadata=True)
        assert finding.reason == "its metadata names no user who may have it"
        assert record_of(stripe_id).user_id is None

    def test_customer_of_another_deployment(self, world: World) -> None:
        stripe_id = make(world, metadata={KEY: "u-1", "stripe_integrations_token": "other:1:abc"})
        world.time += 3600
        assert findings_of(by_metadata=True) == []
        assert StripeCustomer.get(USER) is None
        assert stripe_id

    def test_customers_whose_candidates_may_have_expired(self, world: World) -> None:
        """Of a user's two candidates, only one may be left."""
        stripe_id = named(world, "u-1")
        run_id = StripeAccount.start(by_metadata=True).run_id
        work = StripeAccount.work(run_id)
        next(work)
        work.close()
        StripeAccount.stop(run_id)
        world.time += 29.5 * 86_400
        StripeAccount.resume(run_id)
        findings = [f for step in StripeAccount.work(run_id) for f in step.page.findings]
        assert [(f.stripe_id, f.reason) for f in findings] == [
            (stripe_id, "the run started more than 29 days ago")
        ]
        assert record_of(stripe_id).user_id is None

    def test_none_where_an_event_of_one_has_assigned_it(self, world: World) -> None:
        adopted, other = named(world, "u-1"), named(world, "u-1")
        run_id = StripeAccount.start(by_metadata=True).run_id
        work = StripeAccount.work(run_id)
        next(work)
        world.request("POST", f"/v1/customers/{adopted}", {"name": "Jane"})
        world.deliver_and_apply()
        world.context.deadline = math.inf
        assert [f.stripe_id for step in work for f in step.page.findings] == [other]
        assert record_of(adopted).user_id == "u-1"

    def test_customer_whose_record_cannot_be_read(self, world: World) -> None:
        stripe_id = named(world, "u-1")
        backfill()
        set_schema_version(world, stripe_id, 99)
        world.time += 3600
        other = named(world, "u-2")
        findings = findings_of(by_metadata=True)
        assert [(f.stripe_id, f.result) for f in findings] == [(stripe_id, "unreadable")] * 2
        assert record_of(other).user_id == "u-2"

    def test_customer_that_names_half_of_a_surrogate_pair(self, world: World) -> None:
        stripe_id = named(world, "u-1")
        backfill()
        world.stripe.account.customers[stripe_id]["metadata"] = {KEY: "\ud800"}
        world.time += 3600
        assert {f.stripe_id for f in findings_of(by_metadata=True)} == {stripe_id}

    def test_customer_that_was_erased(self, world: World) -> None:
        """Before its page is read, or between its page and its assignment."""
        first = named(world, "u-1")
        backfill()
        StripeCustomer.erase_stripe_customer(first)
        world.time += 3600
        second = named(world, "u-2")
        run_id = StripeAccount.start(by_metadata=True).run_id
        work = StripeAccount.work(run_id)
        next(work)
        StripeCustomer.erase_stripe_customer(second)
        findings = [f for step in work for f in step.page.findings]
        assert findings == []
        assert StripeAccount.progress(run_id).results == {"erased": 2, "stored": 1}
        assert StripeCustomer.get(USER) is StripeCustomer.get(OTHER) is None


class TestCandidates:
    def test_contain_no_id_of_a_user(self, world: World) -> None:
        named(world, "marked-user")
        run_id = StripeAccount.start(by_metadata=True).run_id
        next(StripeAccount.work(run_id))
        (candidate,) = world.items(record_type="Candidate")
        assert "marked" not in str(candidate)
        assert candidate["expires_at"] > world.time


@pytest.mark.parametrize(
    "settings",
    [{"adopt_from": None}, {"existing_customers": ExistingCustomers.IGNORE}],
)
def test_needs_its_settings(world: World, settings: dict[str, Any]) -> None:
    world.configure(**settings)
    with pytest.raises(InvalidFieldError):
        StripeAccount.start(by_metadata=True)
    assert world.items(record_type="Run") == []


def test_is_only_for_a_backfill() -> None:
    with pytest.raises(InvalidFieldError):
        StripeAccount.start(by_metadata=True, kind=RunKind.VERIFY)
