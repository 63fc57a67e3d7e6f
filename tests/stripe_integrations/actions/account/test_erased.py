"""A run that meets customers that were erased: nothing of them is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stripe_integrations.actions import StripeAccount, StripeCustomer
from stripe_integrations.actions.account.page import Finding, Result
from stripe_integrations.models import CustomerClaim, Owner, Pointer
from tests.stripe_integrations.actions.account.helpers import (
    backfill,
    calls,
    findings_of,
    lose_events,
)
from tests.world import EMAIL, USER, World

pytestmark = pytest.mark.usefixtures("stores_unassigned")


def assert_is_tombstone_alone(world: World, stripe_id: str) -> None:
    pointer = Pointer.read(stripe_id)
    assert pointer
    assert pointer.is_erased
    found = [item["record_type"] for item in world.items() if stripe_id in item["sk"]]
    assert found == []


def before_page_is_written(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
    """Let something happen after a run has read the pointers of its first page."""
    read_all = Pointer.read_all

    def read(ids: Any) -> dict[str, Pointer]:
        found = read_all(ids)
        monkeypatch.setattr(Pointer, "read_all", read_all)
        happens()
        return found

    monkeypatch.setattr(Pointer, "read_all", read)


class TestBackfill:
    def test_stores_nothing_of_erased_customer(self, world: World, existing: str) -> None:
        StripeCustomer.erase_stripe_customer(existing)
        before = len(calls(world))
        assert backfill() == {"erased": 2}
        assert len(calls(world)) - before == 2  # a page of each list
        assert_is_tombstone_alone(world, existing)

    def test_stores_nothing_of_unassigned_customer_that_was_erased(
        self, world: World, existing: str
    ) -> None:
        backfill()
        StripeCustomer.erase_stripe_customer(existing)
        world.time += 3600
        assert backfill() == {"erased": 2}
        assert_is_tombstone_alone(world, existing)

    @pytest.mark.parametrize("has_pointer", [False, True])
    def test_decides_page_again_after_erasure_in_between(
        self,
        world: World,
        existing: str,
        monkeypatch: pytest.MonkeyPatch,
        *,
        has_pointer: bool,
    ) -> None:
        if has_pointer:  # a backup that was made during a write may have it alone
            Pointer.to(Owner(None, existing)).save()

        def erase() -> None:
            StripeCustomer.erase_stripe_customer(existing)

        before_page_is_written(monkeypatch, erase)
        assert backfill() == {"erased": 2}
        assert_is_tombstone_alone(world, existing)

    def test_updates_nothing_of_customer_that_is_erased_meanwhile(
        self, world: World, existing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backfill([("u-1", existing)])
        world.time += 3600
        world.rename(existing, "Janet")
        lose_events(world)
        world.time += 3600
        before_page_is_written(monkeypatch, lambda: StripeCustomer.erase(USER))
        assert backfill() == {"erased": 2}
        assert_is_tombstone_alone(world, existing)


class TestMapping:
    def test_row_of_erased_customer_is_a_conflict(self, world: World, existing: str) -> None:
        StripeCustomer.erase_stripe_customer(existing)
        found = findings_of([("u-1", existing)])
        assert found == [Finding(existing, Result.CONFLICT, "the customer was erased")]
        assert CustomerClaim.read("u-1") is None
        assert_is_tombstone_alone(world, existing)

    def test_user_is_erased_before_the_record_is_stored(self, world: World, existing: str) -> None:
        progress = next(iter(StripeAccount.backfill([("u-1", existing)])))
        assert StripeCustomer.erase(USER).customer_ids == [existing]
        rows = [("u-1", existing)]
        assert backfill(rows, run_id=progress.run_id)["erased"] == 2
        assert CustomerClaim.read("u-1") is None
        assert_is_tombstone_alone(world, existing)
        assert StripeCustomer.create(USER, EMAIL).is_new

    def test_undoing_leaves_tombstone(self, world: World, existing: str) -> None:
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id
        StripeCustomer.erase(USER)
        world.time += 3600
        assert dict(list(StripeAccount.undo(run_id))[-1].results) == {"unchanged": 1}
        assert_is_tombstone_alone(world, existing)
