"""Publishing: events that change records are published, after the effect and before the mark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.errors import (
    DatabaseUnavailableError,
    MessageNotSentError,
    SideEffectFailedError,
)
from stripe_integrations.models import Customer
from tests.stripe_changes import rename_later
from tests.stripe_integrations.actions.events.custom_handlers import NOTE, raising
from tests.world import START, USER, World, stored_event, stripe_event


@pytest.fixture(autouse=True)
def _event_bus(world: World) -> None:
    world.configure(event_bus_name="changes")


@pytest.fixture
def stripe_id(world: World, customer: Customer) -> str:
    return rename_later(world, customer)


def state(stripe_id: str) -> str:
    return stored_event(stripe_id).state


def published(world: World) -> list[str]:
    return [detail["event_id"] for detail in world.published]


def effects(world: World) -> list[tuple[str, str, bool]]:
    """What was published: the event, its effect, and whether the customer was active."""
    return [(d["event_id"], d["effect"], d["customer_is_active"]) for d in world.published]


class TestPublished:
    def test_change_has_ids_only(self, world: World, customer: Customer, stripe_id: str) -> None:
        StripeEvent.apply(stripe_id)
        assert world.published == [
            {
                "event_id": stripe_id,
                "type": "customer.updated",
                "created": int(START) + 10,
                "customer_id": customer.stripe_id,
                "user_id": "u-1",
                "livemode": False,
                "effect": "applied",
                "customer_is_active": True,
            }
        ]

    def test_is_published_after_effect_and_before_mark(self, world: World, stripe_id: str) -> None:
        order: list[tuple[str | None, str]] = []
        world.context.publish = lambda _: order.append(
            (StripeCustomer.require(USER).name, state(stripe_id))
        )
        StripeEvent.apply(stripe_id)
        assert order == [("Newest", "pending")]
        assert state(stripe_id) == "applied"

    def test_every_change_of_a_batch_is_published(self, world: World, customer: Customer) -> None:
        renamed = [rename_later(world, customer, f"Name {number}") for number in range(3)]
        world.stream()
        assert sorted(published(world)) == sorted(renamed)
        assert set(map(state, renamed)) == {"applied"}

    def test_older_event_has_effect_older(self, world: World, customer: Customer) -> None:
        older, newest = rename_later(world, customer, "Older"), rename_later(world, customer)
        for stripe_id in (newest, older):
            StripeEvent.apply(stripe_id)
        assert state(older) == "ignored"
        assert effects(world) == [(newest, "applied", True), (older, "older", True)]

    def test_event_overtaken_before_its_effect_has_effect_older(
        self, world: World, customer: Customer, stripe_id: str
    ) -> None:
        with (
            world.failing_database("ThrottlingException", operation="TransactWriteItems"),
            pytest.raises(DatabaseUnavailableError),
        ):
            StripeEvent.apply(stripe_id)
        second = rename_later(world, customer, "Newer")
        StripeEvent.apply(second)
        world.time = stored_event(stripe_id).next_attempt or 0
        StripeEvent.apply(stripe_id)
        assert state(stripe_id) == "ignored"
        assert effects(world) == [(second, "applied", True), (stripe_id, "older", True)]

    def test_late_event_of_deleted_customer_has_effect_frozen(
        self, world: World, customer: Customer, stripe_id: str
    ) -> None:
        world.time += 10
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        deleted = world.receive("customer.deleted")
        for each in (deleted, stripe_id):
            StripeEvent.apply(each)
        assert (state(deleted), state(stripe_id)) == ("applied", "ignored")
        assert effects(world) == [(deleted, "applied", False), (stripe_id, "frozen", False)]

    def test_is_not_repeated_when_handler_fails(
        self, world: World, customer: Customer, stripe_id: str
    ) -> None:
        world.configure(event_handlers={"customer.updated": NOTE})
        raising.append(KeyError())
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(stripe_id)
        assert (state(stripe_id), published(world)) == ("pending", [stripe_id])
        world.time = stored_event(stripe_id).next_attempt or 0
        world.reconcile()
        assert (state(stripe_id), published(world)) == ("applied", [stripe_id])

    def test_replay_publishes_again(self, world: World, stripe_id: str) -> None:
        StripeEvent.apply(stripe_id)
        world.replay({"event_id": stripe_id})
        assert published(world) == [stripe_id, stripe_id]


class TestNotPublished:
    def test_nothing_is_published_without_event_bus(self, world: World, stripe_id: str) -> None:
        world.configure(event_bus_name=None)
        StripeEvent.apply(stripe_id)
        assert state(stripe_id) == "applied"
        assert world.published == []

    @pytest.mark.parametrize(
        ("handlers", "ended"),
        [({}, "ignored"), ({"customer.updated": NOTE, "invoice.paid": NOTE}, "applied")],
    )
    def test_event_that_changes_nothing_is_not_published(
        self, world: World, customer: Customer, handlers: dict[str, str], ended: str
    ) -> None:
        """A custom handler makes no difference to what is published."""
        world.configure(event_handlers=handlers)
        newest = rename_later(world, customer)
        invoice = {"object": "invoice", "customer": customer.stripe_id}
        StripeEvent.receive(stripe_event("invoice.paid", data={"object": invoice}))
        for stripe_id in (newest, "evt_1"):
            StripeEvent.apply(stripe_id)
        StripeCustomer.soft_delete(customer)  # read before the record's last change
        late = rename_later(world, customer, "Too late")
        StripeEvent.apply(late)

        assert [state(stripe_id) for stripe_id in ("evt_1", late)] == [ended] * 2
        assert published(world) == [newest]

    @pytest.mark.parametrize("changes", [{"livemode": True}, {"account": "acct_1"}])
    def test_event_of_other_mode_or_account_is_not_published(
        self, world: World, stripe_id: str, changes: dict[str, object]
    ) -> None:
        StripeEvent.receive({**world.payload(), "id": "evt_other", **changes})
        StripeEvent.apply("evt_other")
        assert world.published == []


class TestFailure:
    def test_refused_change_is_published_later(self, world: World, stripe_id: str) -> None:
        take = world.context.publish

        def refuse(_: Mapping[str, Any]) -> None:
            raise MessageNotSentError("events: it is full")

        world.context.publish = refuse
        assert world.stream_events(stripe_id) == {"batchItemFailures": []}
        event = stored_event(stripe_id)
        assert (event.state, event.last_error) == ("pending", "MessageNotSentError")
        assert StripeCustomer.require(USER).name == "Newest"

        world.context.publish = take
        world.time = event.next_attempt or 0
        world.reconcile()
        assert published(world) == [stripe_id]
        assert state(stripe_id) == "applied"

    @pytest.mark.parametrize("is_sent", [False, True])
    def test_change_is_published_again_after_process_died(
        self, world: World, customer: Customer, stripe_id: str, is_sent: bool
    ) -> None:
        take = world.context.publish

        def die(detail: Mapping[str, Any]) -> None:
            if is_sent:
                world.publish(detail)
            raise KeyboardInterrupt

        world.context.publish = die
        with pytest.raises(KeyboardInterrupt):
            StripeEvent.apply(stripe_id)
        world.context.publish = take
        # Its own effect has made it older, and something newer has happened since.
        newer = rename_later(world, customer, "Newer")
        StripeEvent.apply(newer)
        world.time += 200
        world.reconcile()
        assert published(world) == [*([stripe_id] if is_sent else []), newer, stripe_id]
        assert StripeCustomer.require(USER).name == "Newer"

    def test_event_without_time_for_side_effects_is_retried(
        self, world: World, stripe_id: str
    ) -> None:
        world.context.begin_invocation(10_000)
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(stripe_id)
        assert StripeCustomer.require(USER).name == "Newest"
        assert (state(stripe_id), published(world)) == ("pending", [])
