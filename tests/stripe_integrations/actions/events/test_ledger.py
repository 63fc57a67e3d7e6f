"""The ledger of events: attempts are counted before they are made, and events end for a reason."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.context import use
from stripe_integrations.errors import (
    DatabaseRefusedError,
    MessageNotSentError,
    SideEffectFailedError,
    StripeRefusedError,
    UnprocessableEventError,
)
from stripe_integrations.models import Customer, Event, EventState
from stripe_integrations.models.event import MAX_ATTEMPTS
from tests.stripe_changes import rename
from tests.stripe_integrations.actions.events import custom_handlers
from tests.world import USER, World, exhaust, stored_event, stripe_event

DAY = 86400


@pytest.fixture
def stripe_id(world: World, customer: Customer) -> str:
    """An ambiguous event, received."""
    return rename(world, customer)


def kill(world: World, stripe_id: str) -> None:
    """Let the process die while it applies an event."""
    world.stripe.faults.kill_client_after(1, match="GET /v1/customers/*")
    with use(world.new_context()), pytest.raises(ClientKilledError):
        StripeEvent.apply(stripe_id)


def refuse_write(world: World, stripe_id: str) -> None:
    """Apply an event while the database refuses the transaction for good."""
    refusal = world.failing_database("ValidationException", operation="TransactWriteItems")
    with refusal, pytest.raises(DatabaseRefusedError):
        StripeEvent.apply(stripe_id)


def state(stripe_id: str) -> tuple[str, int]:
    event = stored_event(stripe_id)
    return event.state, event.attempts


class TestClaim:
    def test_counts_attempt_before_it_is_made(self, world: World, stripe_id: str) -> None:
        counted: list[int] = []
        world.during_sleep = lambda: counted.append(stored_event(stripe_id).attempts)
        StripeEvent.apply(stripe_id)
        assert counted[0] == 1
        assert state(stripe_id) == ("applied", 1)

    def test_skips_event_claimed_by_another_worker(self, world: World, stripe_id: str) -> None:
        kill(world, stripe_id)
        with world.counting() as counts:
            StripeEvent.apply(stripe_id)
            world.time += 120
            StripeEvent.apply(stripe_id)
        assert counts.operations == ["UpdateItem", "UpdateItem"]
        assert state(stripe_id) == ("pending", 1)

        world.time += 11
        StripeEvent.apply(stripe_id)
        assert state(stripe_id) == ("applied", 2)

    def test_concurrent_workers_apply_event_once(self, world: World, stripe_id: str) -> None:
        def apply_concurrently() -> None:
            world.during_sleep = lambda: None
            with use(world.new_context()):
                StripeEvent.apply(stripe_id)

        world.during_sleep = apply_concurrently
        StripeEvent.apply(stripe_id)
        assert state(stripe_id) == ("applied", 1)

    def test_overtaken_worker_does_not_change_event(self, world: World, stripe_id: str) -> None:
        def overtake() -> None:
            world.during_sleep = lambda: None
            world.time += 200
            with use(world.new_context()):
                StripeEvent.apply(stripe_id)
                StripeCustomer.soft_delete(StripeCustomer.require(USER))

        world.during_sleep = overtake
        with use(world.new_context()):
            StripeEvent.apply(stripe_id)
        assert state(stripe_id) == ("applied", 2)
        assert stored_event(stripe_id).reason is None

    def test_ended_event_does_not_change(self, world: World, stripe_id: str) -> None:
        with use(world.new_context()):
            slow = Event.claim(stripe_id)
            assert slow
            world.time += 200
            StripeEvent.apply(stripe_id)
        ended = world.items(record_type="Event")
        world.time += 100

        slow.finish(EventState.IGNORED, "too late")
        slow.schedule_retry(ValueError())
        slow.continue_waiting()
        slow.fail("too late")

        assert world.items(record_type="Event") == ended


def store_as_waiting(payload: dict[str, Any]) -> str:
    """Store an event whose customer was not visible yet."""
    event = Event.received(payload, valid=True)
    event.wait()
    return event.store().stripe_id


class TestDeadProcess:
    def test_event_of_dead_process_is_retried_by_schedule(
        self, world: World, stripe_id: str
    ) -> None:
        kill(world, stripe_id)
        assert state(stripe_id) == ("pending", 1)
        assert stored_event(stripe_id).claimed_at is not None

        world.time += 200
        assert world.reconcile()["attempted"] == 1

        assert state(stripe_id) == ("applied", 2)
        assert stored_event(stripe_id).claimed_at is None
        assert StripeCustomer.require(USER).name == "Newest"

    def test_event_of_dead_process_is_retried_alone_after_the_others(
        self, world: World, customer: Customer
    ) -> None:
        stripe_id = "evt_killer"
        always_ambiguous = {"id": stripe_id, "api_version": "2025-02-24.acacia"}
        rename(world, customer)
        StripeEvent.receive({**world.payload(), **always_ambiguous})
        kill(world, stripe_id)
        others = [rename(world, customer, f"Name {number}") for number in range(3)]
        world.time += 200
        fetched: list[set[tuple[str, int]]] = []

        def die_at_the_second_fetch() -> None:
            if world.stripe.requests[-1].path == f"/v1/customers/{customer.stripe_id}":
                fetched.append({state(other) for other in others})
                if len(fetched) == 2:
                    world.during_sleep = lambda: None
                    raise ClientKilledError

        world.during_sleep = die_at_the_second_fetch
        with pytest.raises(ClientKilledError):
            world.reconcile()

        assert fetched == [{("pending", 1)}, {("applied", 1)}]
        assert state(stripe_id) == ("pending", 2)

    def test_waiting_event_of_dead_process_is_retried_alone_after_the_others(
        self, world: World, customer: Customer
    ) -> None:
        rename(world, customer)
        killer = {**world.payload(), "id": "evt_killer", "api_version": "2025-02-24.acacia"}
        assert Event.claim(store_as_waiting(killer))
        others = []
        for number in range(3):
            world.time += 10
            world.rename(customer.stripe_id, f"Name {number}")
            others.append(store_as_waiting(world.payload()))
        world.time += 200

        def die_when_the_others_are_finished() -> None:
            if all(stored_event(other).processed for other in others):
                world.during_sleep = lambda: None
                raise ClientKilledError

        world.during_sleep = die_when_the_others_are_finished
        with pytest.raises(ClientKilledError):
            world.reconcile()

        assert state("evt_killer") == ("pending", 2)
        assert all(stored_event(other).attempts == 1 for other in others)

    def test_event_that_always_kills_is_dead_lettered(self, world: World, stripe_id: str) -> None:
        for _ in range(MAX_ATTEMPTS):
            kill(world, stripe_id)
            world.time += 200
        assert state(stripe_id) == ("pending", MAX_ATTEMPTS)
        world.stripe.faults.kill_client_after(None, match="GET /v1/customers/*")

        world.reconcile()

        event = stored_event(stripe_id)
        assert event.state == "failed"
        assert event.reason == "too many attempts, last error: interrupted"
        (message,) = world.dead_letters
        assert (message["event_id"], message["type"]) == (stripe_id, "customer.updated")
        assert message["customer_id"] == event.customer_id


class TestDeadLetter:
    def test_failing_event_is_dead_lettered_within_three_days(
        self, world: World, stripe_id: str
    ) -> None:
        began = world.time
        world.stripe.faults.fail_next(None, status=503)
        attempts = 0
        while stored_event(stripe_id).state == "pending":
            attempts += 1
            world.reconcile()
            world.time = max(world.time, stored_event(stripe_id).next_attempt or 0)
        assert attempts in (MAX_ATTEMPTS + 1, MAX_ATTEMPTS + 2)
        assert 1 * DAY < world.time - began < 3 * DAY
        event = stored_event(stripe_id)
        assert event.state == "failed"
        assert "StripeUnavailableError" in str(event.reason)
        assert [message["event_id"] for message in world.dead_letters] == [stripe_id]

    def test_is_sent_before_event_is_marked(self, world: World, stripe_id: str) -> None:
        states: list[tuple[str, int]] = []
        world.context.send_dead_letter = lambda _: states.append(state(stripe_id))
        exhaust(stripe_id)
        StripeEvent.apply(stripe_id)
        assert states == [("pending", MAX_ATTEMPTS + 1)]
        assert stored_event(stripe_id).state == "failed"

    def test_dead_letter_is_retried_when_queue_refuses_it(
        self, world: World, stripe_id: str
    ) -> None:
        take = world.context.send_dead_letter

        def refuse(_: Mapping[str, Any]) -> None:
            raise MessageNotSentError("sqs: it is full")

        world.context.send_dead_letter = refuse
        exhaust(stripe_id)
        StripeEvent.apply(stripe_id)

        event = stored_event(stripe_id)
        assert (event.state, event.last_error) == ("pending", "MessageNotSentError")
        world.context.send_dead_letter = take
        world.time = event.next_attempt or 0
        world.reconcile()
        assert stored_event(stripe_id).state == "failed"
        assert len(world.dead_letters) == 1

    def test_exhausted_event_does_not_fail_the_others(
        self, world: World, customer: Customer, stripe_id: str
    ) -> None:
        other = rename(world, customer, "Newer")
        exhaust(stripe_id)
        world.time += 200
        world.reconcile()
        assert (state(stripe_id)[0], state(other)[0]) == ("failed", "applied")
        assert StripeCustomer.require(USER).name == "Newer"

    def test_refused_write_is_dead_lettered_at_once(self, world: World, customer: Customer) -> None:
        world.time += 10
        stripe_id = rename(world, customer)
        refuse_write(world, stripe_id)
        assert state(stripe_id) == ("failed", 1)
        assert stored_event(stripe_id).reason == "DatabaseRefusedError"
        assert world.dead_letters == [
            {
                "event_id": stripe_id,
                "type": "customer.updated",
                "customer_id": customer.stripe_id,
                "attempts": 1,
                "reason": "DatabaseRefusedError",
            }
        ]

    def test_unprocessable_event_is_dead_lettered_at_once(
        self, world: World, stripe_id: str
    ) -> None:
        world.configure(event_handlers={"customer.updated": custom_handlers.NOTE})
        custom_handlers.raising.append(UnprocessableEventError())
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(stripe_id)
        assert state(stripe_id) == ("failed", 1)
        assert stored_event(stripe_id).reason == "UnprocessableEventError"
        assert [message["event_id"] for message in world.dead_letters] == [stripe_id]
        assert StripeCustomer.require(USER).name == "Newest"

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("no plan has this price",), "no plan has this price"),
            (("no plan has", "price_1"), "no plan has price_1"),
            (("no plan:", {"email": "jane@example.com"}), "no plan:"),
            (("half of a pair: \ud83d",), "half of a pair: ?"),
            (("x" * 5000,), "x" * 1000),
        ],
    )
    def test_text_of_unprocessable_event_is_its_reason(
        self,
        world: World,
        log: io.StringIO,
        stripe_id: str,
        arguments: tuple[object, ...],
        text: str,
    ) -> None:
        world.configure(event_handlers={"customer.updated": custom_handlers.NOTE})
        error = UnprocessableEventError(*arguments)
        error.__cause__ = ValueError("jane@example.com")
        custom_handlers.raising.append(error)
        assert world.stream_events(stripe_id) == {"batchItemFailures": []}

        reason = f"UnprocessableEventError: {text}"
        assert stored_event(stripe_id).reason == reason
        assert [message["reason"] for message in world.dead_letters] == [reason]
        (line,) = (line for line in log.getvalue().splitlines() if "event failed" in line)
        assert json.loads(line)["event_reason"] == reason
        assert "jane" not in log.getvalue()


class TestStoredEvent:
    def test_expires_when_applied_or_ignored_only(
        self, world: World, customer: Customer, stripe_id: str
    ) -> None:
        StripeEvent.apply(stripe_id)
        world.time += 100
        older = {**world.payload(), "id": "evt_older", "created": int(world.time) - 200}
        StripeEvent.receive(older)
        StripeEvent.apply("evt_older")
        refuse_write(world, rename(world, customer, "Of no use"))
        rename(world, customer, "Not yet")
        StripeEvent.receive(stripe_event())

        events = world.items(record_type="Event")

        assert {event["state"]: event.get("expires_at") for event in events} == {
            "applied": world.time - 100 + 90 * DAY,
            "ignored": world.time + 90 * DAY,
            "failed": None,
            "pending": None,
            "waiting": None,
        }

    def test_is_queued_until_it_ends(self, world: World, stripe_id: str) -> None:
        (item,) = world.items(record_type="Event")
        assert item["queue"] in set("01234567")
        assert item["next_attempt"] > world.time
        StripeEvent.apply(stripe_id)
        (item,) = world.items(record_type="Event")
        assert {"queue", "next_attempt", "claimed_at"} & item.keys() == set()

    def test_has_no_values_in_its_errors(
        self, world: World, customer: Customer, log: io.StringIO
    ) -> None:
        world.configure(event_handlers={"customer.updated": custom_handlers.NOTE})
        custom_handlers.raising.append(ValueError("jane@example.com is odd"))
        odd = rename(world, customer, "Jane Roe")
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(odd)
        assert stored_event(odd).last_error == "ValueError"
        refused = rename(world, customer, "Jane Poe")
        world.stripe.faults.fail_next(None, status=400, message="jane@example.com is refused")
        with pytest.raises(StripeRefusedError, match="Stripe did not"):
            StripeEvent.apply(refused)
        world.stripe.faults.clear()
        exhaust(odd)
        exhaust(refused)
        world.time += DAY
        world.reconcile()

        assert len(world.dead_letters) == 2
        text = str(world.dead_letters) + log.getvalue()
        for item in world.items(record_type="Event"):
            text += str([item.get("last_error"), item.get("reason")])
        assert "ValueError" in text
        for value in ("jane", "Jane", "Roe", "Poe"):
            assert value not in text
