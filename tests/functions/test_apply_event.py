"""The stream: events are applied by customer, and only records that left no trace are reported."""

from __future__ import annotations

import io
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from stripe_integrations import limits
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.models import Customer, Event
from tests.stripe_changes import rename, rename_often
from tests.stripe_integrations.actions.events import custom_handlers
from tests.world import EMAIL, USER, World, stored_event, stripe_event
from tools.template import of_type

FETCH_CALLS = 3
OTHER = User("u-2")


def done(*failed: int) -> dict[str, Any]:
    """The response that reports records, by their number in the batch, as failed."""
    return {"batchItemFailures": [{"itemIdentifier": str(number)} for number in failed]}


def states(*stripe_ids: str) -> set[str]:
    return {stored_event(stripe_id).state for stripe_id in stripe_ids}


def fetch_of(customer: Customer) -> str:
    return f"GET /v1/customers/{customer.stripe_id}"


@pytest.fixture
def other(world: World) -> Customer:
    """The customer of another user."""
    return StripeCustomer.create(OTHER, EMAIL)


class TestBatch:
    def test_several_events_of_one_customer_cost_one_fetch(
        self, world: World, customer: Customer
    ) -> None:
        renamed = [rename(world, customer, f"Name {number}") for number in range(5)]
        with world.counting() as counts:
            assert world.stream_events(*renamed) == done()
        assert counts.stripe == FETCH_CALLS
        assert counts.operations.count("TransactWriteItems") == 1
        assert states(*renamed) == {"applied"}
        assert StripeCustomer.require(USER).name == "Name 4"

    def test_several_newer_events_of_one_customer_cost_one_write(
        self, world: World, customer: Customer
    ) -> None:
        renamed = rename_often(world, customer, 5)
        with world.counting() as counts:
            assert world.stream_events(*reversed(renamed)) == done()
        assert counts.stripe == 0
        operations = [operation for operation in counts.operations if operation != "Scan"]
        assert operations == ["BatchGetItem", "Query", "TransactWriteItems"]
        assert states(*renamed) == {"applied"}
        assert StripeCustomer.require(USER).name == "Name 4"

    def test_more_events_than_a_transaction_takes_are_applied(
        self, world: World, customer: Customer
    ) -> None:
        renamed = rename_often(world, customer, 45)
        world.random.shuffle(renamed)
        assert world.stream_events(*renamed) == done()
        assert states(*renamed) <= {"applied", "ignored"}
        assert StripeCustomer.require(USER).name == "Name 44"

    def test_failing_customer_does_not_delay_another(
        self, world: World, customer: Customer, other: Customer
    ) -> None:
        failing, applied = rename(world, customer), rename(world, other)
        world.stripe.faults.fail_next(None, status=503, match=fetch_of(customer))
        assert world.stream_events(failing, applied) == done()
        assert (states(failing), states(applied)) == ({"pending"}, {"applied"})
        assert StripeCustomer.require(OTHER).name == "Newest"

    def test_event_without_customer_does_not_delay_another(
        self, world: World, customer: Customer
    ) -> None:
        detached = {"object": {"id": "pm_1", "object": "payment_method", "type": "card"}}
        StripeEvent.receive(stripe_event("payment_method.detached", data=detached))
        renamed = rename(world, customer)
        assert world.stream_events("evt_1", renamed) == done()
        assert (states("evt_1"), states(renamed)) == ({"waiting"}, {"applied"})

    def test_repeated_record_changes_nothing(self, world: World, customer: Customer) -> None:
        stripe_id = rename(world, customer)
        assert world.stream_events(stripe_id, stripe_id) == done()
        before = world.items()
        assert world.stream_events(stripe_id) == done()
        assert world.items() == before

    @pytest.mark.parametrize(
        "record",
        [
            None,
            {},
            {"dynamodb": {}},
            {"dynamodb": {"Keys": {"pk": {"S": "EVENT#evt_1"}, "sk": {"N": "1"}}}},
            {"dynamodb": {"Keys": {"pk": {"S": 7}, "sk": {"S": "EVENT"}}, "SequenceNumber": "1"}},
            {"dynamodb": {"Keys": {"pk": {"S": "EVENT#evt_\ud800"}, "sk": {"S": "EVENT"}}}},
            *(
                {"dynamodb": {"Keys": {"pk": {"S": "USER#u-1"}, "sk": {"S": sort_key}}}}
                for sort_key in ("", "CUSTOMER#", "CLAIM")
            ),
        ],
    )
    def test_unreadable_record_is_logged_and_skipped(
        self, world: World, customer: Customer, log: io.StringIO, record: Any
    ) -> None:
        stripe_id = rename(world, customer)
        keys = {"pk": {"S": f"EVENT#{stripe_id}"}, "sk": {"S": "EVENT"}}
        readable = {"dynamodb": {"Keys": keys, "SequenceNumber": "2"}}
        assert world.apply_events({"Records": [record, readable]}) == done()
        assert states(stripe_id) == {"applied"}
        assert "unreadable record" in log.getvalue()

    @pytest.mark.parametrize("event", [{}, {"Records": None}, {"Records": "x"}, None])
    def test_invocation_without_records_does_nothing(self, world: World, event: Any) -> None:
        assert world.apply_events(event) == done()


def test_batch_of_slow_handlers_is_applied_within_the_retries_of_the_stream(
    world: World,
) -> None:
    """A batch that has no time left is retried from the first event that it did not attempt."""
    (function,) = (
        f["Properties"]
        for f in of_type("AWS::Serverless::Function").values()
        if f["Properties"]["CodeUri"] == "functions/apply_event"
    )
    stream = function["Events"]["StoredEvents"]["Properties"]
    world.configure(event_handlers={"price.created": custom_handlers.NOTE})
    data = {"object": {"id": "price_1", "object": "price"}}
    waiting = [f"evt_{number}" for number in range(stream["BatchSize"])]
    for stripe_id in waiting:
        StripeEvent.receive(stripe_event("price.created", id=stripe_id, data=data))

    def be_slow() -> None:
        world.time += 5

    custom_handlers.meanwhile[:] = [be_slow] * len(waiting)
    for _ in range(1 + stream["MaximumRetryAttempts"]):
        keys = [(Event.key(stripe_id), Event.SORT_KEY) for stripe_id in waiting]
        failed = world.stream(*keys)["batchItemFailures"]
        if not failed:
            break
        waiting = waiting[int(failed[0]["itemIdentifier"]) :]
    assert not failed
    assert not custom_handlers.meanwhile
    assert set(world.event_states().values()) == {"applied"}


class TestRetry:
    """A failure is noted in the event, which is retried later: its record is not reported."""

    def test_failed_group_is_retried_when_due(self, world: World, customer: Customer) -> None:
        renamed = [rename(world, customer, f"Name {number}") for number in range(3)]
        world.stripe.faults.fail_next(None, status=503)
        assert world.stream_events(*renamed) == done()
        for stripe_id in renamed:
            event = stored_event(stripe_id)
            assert (event.state, event.attempts) == ("pending", 1)
            assert event.last_error == "StripeUnavailableError"
            assert event.claimed_at is None
            assert world.time < (event.next_attempt or 0) <= world.time + 60
        assert world.dead_letters == []

        world.stripe.faults.clear()
        world.stream_events(*renamed)
        assert {stored_event(stripe_id).attempts for stripe_id in renamed} == {1}
        world.time += 60
        world.stream_events(*renamed)
        assert states(*renamed) == {"applied"}
        assert {stored_event(stripe_id).attempts for stripe_id in renamed} == {2}

    def test_backoff_grows_to_two_and_a_half_hours(self, world: World, customer: Customer) -> None:
        stripe_id = rename(world, customer)
        world.stripe.faults.fail_next(None, status=503)
        backoffs = []
        for number in range(12):
            world.stream_events(stripe_id)
            event = stored_event(stripe_id)
            assert event.attempts == number + 1
            assert event.next_attempt
            backoffs.append(event.next_attempt - world.time)
            world.time = event.next_attempt
        assert backoffs[0] <= 60
        assert 480 <= backoffs[4] <= 960
        assert min(backoffs[9:]) >= 4499
        assert max(backoffs) <= 9000

    @pytest.mark.parametrize(
        ("code", "reasons", "error"),
        [
            ("TransactionCanceledException", ["ConditionalCheckFailed"], "ConflictError"),
            ("ThrottlingException", [], "DatabaseUnavailableError"),
        ],
    )
    def test_persistent_conflict_or_throttling_is_retried(
        self, world: World, customer: Customer, code: str, reasons: list[str], error: str
    ) -> None:
        world.time += 10
        stripe_id = rename(world, customer)
        with world.failing_database(code, operation="TransactWriteItems", reasons=reasons):
            assert world.stream_events(stripe_id) == done()
        event = stored_event(stripe_id)
        assert (event.state, event.last_error) == ("pending", error)
        world.time += 60
        world.stream_events(stripe_id)
        assert StripeCustomer.require(USER).name == "Newest"

    def test_claim_lasts_as_long_as_the_invocation(self, world: World, customer: Customer) -> None:
        stripe_id = rename(world, customer)
        world.time += 60
        began = world.time
        claimed_until: list[int | None] = []
        world.during_sleep = lambda: claimed_until.append(stored_event(stripe_id).next_attempt)
        world.stream_events(stripe_id)
        assert began + 60 <= (claimed_until[0] or 0) <= began + 80


class TestReportedFailures:
    """A record whose failure could not be noted is reported, and comes again."""

    def test_records_left_when_time_runs_out_are_reported(
        self,
        world: World,
        customer: Customer,
        other: Customer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        renamed = [rename(world, customer, "First"), rename(world, other, "Second")]
        with_little_time = partial(world.apply_events, remaining_seconds=limits.APPLY_SECONDS - 1)
        monkeypatch.setattr(world, "apply_events", with_little_time)
        assert world.stream_events(*renamed) == done(0, 1)
        assert {stored_event(stripe_id).attempts for stripe_id in renamed} == {0}

    def test_only_events_that_could_not_be_read_are_reported(
        self, world: World, customer: Customer, other: Customer
    ) -> None:
        first = rename(world, customer, "First")
        applied, last = rename(world, other), rename(world, customer)
        code = "ProvisionedThroughputExceededException"
        with world.failing_database(code, times=1, operation="BatchGetItem"):
            assert world.stream_events(first, applied, last) == done(0, 2)
        assert (states(applied), states(first, last)) == ({"applied"}, {"pending"})
        assert world.stream_events(first, last) == done()
        assert StripeCustomer.require(USER).name == "Newest"

    def test_event_whose_retry_could_not_be_scheduled_is_reported(
        self, world: World, customer: Customer, other: Customer
    ) -> None:
        applied, stripe_id = rename(world, other), rename(world, customer)
        world.stripe.faults.fail_next(None, status=503, match=fetch_of(customer))
        with ExitStack() as stack:

            def fail_from_now_on() -> None:
                if world.stripe.requests[-1].status == 503:
                    world.during_sleep = lambda: None
                    stack.enter_context(
                        world.failing_database("InternalServerError", operation="UpdateItem")
                    )

            world.during_sleep = fail_from_now_on
            assert world.stream_events(applied, stripe_id) == done(1)
        assert (states(applied), states(stripe_id)) == ({"applied"}, {"pending"})

    def test_new_customer_whose_events_cannot_be_read_is_reported(
        self, world: World, customer: Customer, log: io.StringIO
    ) -> None:
        """The log names the customer, but not its user."""
        with world.failing_database("InternalServerError", operation="Query"):
            assert world.stream(("USER#u-1", f"CUSTOMER#{customer.stripe_id}")) == done(0)
        assert f"CUSTOMER#{customer.stripe_id}" in log.getvalue()
        assert "u-1" not in log.getvalue()
