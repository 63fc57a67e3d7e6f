"""`StripeAccount.repair`: what a verification has found is put right, and the next one is clean."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.account.page import Finding, Result
from stripe_integrations.actions.account.rebuild import NO_USER
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.errors import RunNotFinishedError, RunNotFoundError
from stripe_integrations.models import (
    Customer,
    CustomerClaim,
    Owner,
    Pointer,
    UserRecords,
    read_customer,
)
from stripe_integrations.models.claim import new_token
from stripe_integrations.models.difference import DifferenceKind
from stripe_integrations.models.run import RunKind, RunState
from stripe_integrations.models.window import Window
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
from tests.world import USER, World


@pytest.fixture(autouse=True)
def _schedule(world: World) -> None:
    run_schedule(world)


def lose(world: World) -> None:
    """Let the events of what was planted get lost, and an hour pass."""
    lose_events(world)
    world.time += 3600


def repair(run_id: str) -> dict[str, Finding]:
    """Repair to the end, and return what remains."""
    progress = list(StripeAccount.repair(run_id))
    assert progress[-1].state is RunState.FINISHED
    return {finding.stripe_id: finding for each in progress for finding in each.findings}


def record_of(stripe_id: str) -> Customer:
    owner = Pointer.find(stripe_id)
    assert owner
    record = read_customer(owner)
    assert record
    return record


class TestRepair:
    def test_stores_what_is_missing_with_its_children(self, world: World) -> None:
        unassigned = on_stripe(world)
        world.attach_card(unassigned)
        world.subscribe(unassigned)
        assigned = on_stripe(world, metadata={USER_KEY: "u-1", TOKEN_KEY: new_token()})
        world.subscribe(assigned)
        lose(world)
        assert repair(verify().run_id) == {}
        record = record_of(unassigned)
        assert (len(record.cards), len(record.subscriptions)) == (1, 1)
        assert len(StripeCustomer.require(USER).subscriptions) == 1
        assert verify().differences == {}

    def test_updates_what_is_stale(self, world: World) -> None:
        stripe_id = create(world, name="Jane")
        subscription = world.subscribe(stripe_id)
        settle(world)
        world.rename(stripe_id, "Janet")
        world.request("POST", f"/v1/subscriptions/{subscription}", {"metadata": {"a": "b"}})
        added = world.subscribe(stripe_id)
        lose(world)
        found = verify()
        assert set(report(found)) == {stripe_id, subscription, added}
        assert repair(found.run_id) == {}
        record = StripeCustomer.require(USER)
        assert record.name == "Janet"
        assert [each.metadata for each in record.subscriptions] in (
            [{"a": "b"}, {}],
            [{}, {"a": "b"}],
        )
        assert verify().differences == {}

    def test_soft_deletes_what_stripe_has_deleted(self, world: World) -> None:
        stripe_id = create(world)
        world.subscribe(stripe_id)
        settle(world)
        world.request("DELETE", f"/v1/customers/{stripe_id}")
        lose(world)
        assert repair(verify().run_id) == {}
        assert StripeCustomer.get(USER) is None
        record = UserRecords.read("u-1").customer(stripe_id)
        assert record
        assert record.deleted
        assert [each.status for each in record.subscriptions] == ["canceled"]
        assert verify().differences == {}

    def test_removes_nothing_that_stripe_does_not_know(self, world: World) -> None:
        stripe_id, _ = create(world), create(world, "u-2")
        settle(world)
        del world.stripe.account.customers[stripe_id]
        lose(world)
        found = verify()
        unknown = Finding(stripe_id, DifferenceKind.EXTRA, "unknown to Stripe")
        assert repair(found.run_id) == {stripe_id: unknown}
        assert StripeCustomer.require(USER).stripe_id == stripe_id

    def test_reports_customer_whose_user_was_removed_from_its_metadata(self, world: World) -> None:
        stripe_id = on_stripe(world, metadata={TOKEN_KEY: new_token()})
        lose(world)
        found = verify()
        left = Finding(stripe_id, DifferenceKind.MISSING, NO_USER)
        assert report(found) == {stripe_id: (left.result, left.reason)}
        assert repair(found.run_id) == {stripe_id: left}
        assert Pointer.find(stripe_id) is None

    def test_reports_duplicates(self, world: World) -> None:
        stripe_id = create(world)
        copy = on_stripe(world, metadata={USER_KEY: "u-1", TOKEN_KEY: new_token()})
        lose(world)
        found = verify()
        assert repair(found.run_id) == {copy: Finding(copy, DifferenceKind.DUPLICATE, "")}
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        assert Pointer.find(copy) is None

    @pytest.mark.parametrize(
        "keys",
        [
            ["record"],
            ["pointer"],
            ["claim"],
            ["record", "pointer"],
            ["record", "claim"],
            ["pointer", "claim"],
        ],
    )
    def test_completes_orphans(self, world: World, keys: list[str]) -> None:
        stripe_id = create(world, name="Jane")
        settle(world)
        every = {
            "record": ("USER#u-1", f"CUSTOMER#{stripe_id}"),
            "pointer": Pointer.key_of(stripe_id),
            "claim": CustomerClaim.key_in("USER#u-1"),
        }
        remove(*(every[key] for key in keys))
        found = verify()
        assert found.differences == {DifferenceKind.ORPHAN: 1}
        assert repair(found.run_id) == {}
        assert StripeCustomer.require(USER).name == "Jane"
        assert Pointer.find(stripe_id) == Owner("u-1", stripe_id)
        assert verify().differences == {}

    @pytest.mark.parametrize("key", ["record", "pointer"])
    def test_completes_orphans_without_user(self, world: World, key: str) -> None:
        stripe_id = on_stripe(world)
        settle(world)
        record = (f"UNASSIGNED#{stripe_id}", f"CUSTOMER#{stripe_id}")
        remove({"record": record, "pointer": Pointer.key_of(stripe_id)}[key])
        found = verify()
        assert found.differences == {DifferenceKind.ORPHAN: 1}
        assert repair(found.run_id) == {}
        assert record_of(stripe_id).is_active
        assert verify().differences == {}

    def test_reports_orphans_that_a_rebuild_cannot_complete(self, world: World) -> None:
        stripe_id = create(world)
        settle(world)
        Pointer.to(Owner("u-2", stripe_id)).save()
        found = verify()
        left = Finding(stripe_id, DifferenceKind.ORPHAN, "record and pointer of different owners")
        assert repair(found.run_id) == {stripe_id: left}
        assert StripeCustomer.require(USER).stripe_id == stripe_id

    def test_leaves_what_was_put_right_in_the_meantime(self, world: World) -> None:
        stripe_id = create(world, name="Jane")
        settle(world)
        world.rename(stripe_id, "Janet")
        lose(world)
        found = verify()
        version = StripeCustomer.sync(StripeCustomer.require(USER)).version
        progress = list(StripeAccount.repair(found.run_id))[-1]
        assert progress.results == {Result.UNCHANGED: 1}
        assert StripeCustomer.require(USER).version == version

    def test_does_not_change_what_was_soft_deleted_in_the_meantime(self, world: World) -> None:
        stripe_id = create(world, name="Jane")
        settle(world)
        world.rename(stripe_id, "Janet")
        lose(world)
        found = verify()
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        progress = list(StripeAccount.repair(found.run_id))[-1]
        assert progress.results == {Result.FROZEN: 1}

    def test_stores_nothing_of_what_was_erased_in_the_meantime(self, world: World) -> None:
        stripe_id = create(world, name="Jane")
        settle(world)
        remove(("USER#u-1", f"CUSTOMER#{stripe_id}"))
        found = verify()
        StripeCustomer.erase(USER)
        progress = list(StripeAccount.repair(found.run_id))[-1]
        assert progress.results == {Result.ERASED: 1}
        assert StripeCustomer.get(USER) is None

    def test_of_another_kind_of_run_is_refused(self, world: World) -> None:
        backfill = list(StripeAccount.backfill())[-1].run_id
        with pytest.raises(RunNotFinishedError):
            StripeAccount.repair(backfill)

    def test_of_unfinished_verification_is_refused(self, world: World) -> None:
        run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        with pytest.raises(RunNotFinishedError):
            StripeAccount.repair(run_id)

    def test_of_unknown_run_is_refused(self, world: World) -> None:
        with pytest.raises(RunNotFoundError):
            StripeAccount.repair("1-a")
        with pytest.raises(RunNotFoundError):
            list(StripeAccount.differences("1-a"))


class TestManyDifferences:
    """Differences of all kinds at once, more than a batch has."""

    def plant(self, world: World) -> None:
        for number in range(12):
            for kind in ("good", "deleted", "stale", "pointer", "record", "claim", "subscribed"):
                create(world, f"{kind}-{number}", currency="usd")
            on_stripe(world)
            on_stripe(world, metadata={USER_KEY: f"missing-{number}", TOKEN_KEY: new_token()})
        world.time += 3600
        for number in range(12):
            deleted = StripeCustomer.require(User(f"deleted-{number}")).stripe_id
            world.request("DELETE", f"/v1/customers/{deleted}")
            world.rename(StripeCustomer.require(User(f"stale-{number}")).stripe_id, "Jane")
            world.subscribe(StripeCustomer.require(User(f"subscribed-{number}")).stripe_id)
            for kind in ("pointer", "record", "claim"):
                user_id = f"{kind}-{number}"
                stripe_id = StripeCustomer.require(User(user_id)).stripe_id
                remove(
                    {
                        "pointer": Pointer.key_of(stripe_id),
                        "record": (f"USER#{user_id}", f"CUSTOMER#{stripe_id}"),
                        "claim": CustomerClaim.key_in(f"USER#{user_id}"),
                    }[kind]
                )
        lose(world)

    def check(self, world: World) -> None:
        progress = verify()
        assert progress.differences == {}
        assert progress.results == {"unchanged": 108}

    def test_leave_a_clean_table(self, world: World) -> None:
        self.plant(world)
        found = verify()
        assert found.differences == {
            DifferenceKind.MISSING: 36,
            DifferenceKind.EXTRA: 12,
            DifferenceKind.STALE: 12,
            DifferenceKind.ORPHAN: 36,
        }
        assert repair(found.run_id) == {}
        self.check(world)

    def test_repaired_by_workers_that_are_killed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.plant(world)
        run_id = verify().run_id
        repairing = next(iter(StripeAccount.repair(run_id))).run_id
        advance = Window.advance
        is_dead = [False]

        def die_every_other_time(window: Window, *args: Any, **given: Any) -> None:
            is_dead[0] = not is_dead[0]
            if is_dead[0]:
                raise KeyboardInterrupt
            advance(window, *args, **given)

        with monkeypatch.context() as patch:
            patch.setattr(Window, "advance", die_every_other_time)
            while StripeAccount.progress(repairing).state is RunState.RUNNING:
                with suppress(KeyboardInterrupt):
                    list(StripeAccount.work(repairing))
        self.check(world)
