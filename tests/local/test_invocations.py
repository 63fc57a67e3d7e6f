"""What the live log of `make serve` makes of the logs of functions."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from local.invocations import Invocation, described, http_status, place_of
from stripe_integrations import observability
from stripe_integrations.models import Customer
from tests.local.live_cloud import HANDLERS, LiveCloud, custom_handlers
from tests.world import World, exhaust, stored_event

Shown = tuple[str, str, str, str]


@pytest.fixture
def live(world: World, log: io.StringIO, tmp_path: Path) -> LiveCloud:
    return LiveCloud(world, log, tmp_path)


@pytest.fixture
def handlers(world: World, tmp_path: Path) -> Iterator[None]:
    with custom_handlers(world, tmp_path):
        yield


def seen(live: LiveCloud) -> Invocation:
    return described(live.last_log, "stream", live.stored)


def events(invocation: Invocation) -> set[Shown]:
    """Type, user, state and reason of its events."""
    return {(e.stored.kind, e.stored.owner, e.state, e.reason) for e in invocation.events}


def line_of(code: str) -> int:
    """The number of a line of the custom handlers."""
    return next(n for n, line in enumerate(HANDLERS.splitlines(), 1) if code in line)


@pytest.mark.usefixtures("handlers")
class TestApplyEvent:
    def invoke(self, live: LiveCloud, customer: Customer, *kinds: str) -> Invocation:
        """Let the stream report events of these types."""
        live.world.deliver_and_apply()
        live.emit(*kinds, customer=customer.stripe_id)
        live.world.deliver()
        with live.invoking("apply_event"):
            live.world.stream()
        return seen(live)

    def test_applied_event_has_type_and_user(self, live: LiveCloud, customer: Customer) -> None:
        shown = self.invoke(live, customer, "invoice.paid")
        assert (shown.function, shown.status, shown.outcome) == ("apply_event", "ok", "")
        assert (shown.milliseconds, shown.cause) == (12.3, "stream")
        assert events(shown) == {("invoice.paid", "u-1", "applied", "")}

    def test_ignored_event_has_reason(
        self, world: World, live: LiveCloud, customer: Customer
    ) -> None:
        world.time += 100
        world.rename(customer.stripe_id, "Jane")
        world.time += 100
        world.sync()
        world.deliver()
        with live.invoking("apply_event"):
            world.stream()
        shown = seen(live)
        assert shown.status == "ok"
        reason = "older than the stored state"
        states = {(kind, state): why for kind, _, state, why in events(shown)}
        assert reason in states["customer.updated", "ignored"]

    def test_failed_handler_is_not_ok(self, live: LiveCloud, customer: Customer) -> None:
        shown = self.invoke(live, customer, "invoice.voided", "invoice.paid")
        total = line_of('invoice["amount_paid"]')
        assert shown.status == "retry"
        assert events(shown) == {
            ("invoice.voided", "u-1", "retry", f"KeyError at billing.py:{total} total"),
            ("invoice.paid", "u-1", "applied", ""),
        }

    def test_retry_has_its_time(self, world: World, live: LiveCloud, customer: Customer) -> None:
        (event,) = self.invoke(live, customer, "invoice.voided").events
        due = stored_event(event.stripe_id).next_attempt
        assert due
        assert event.stored.retry_seconds == due - world.time
        world.time = due - 7
        (event,) = seen(live).events
        assert event.stored.retry_seconds == 7

    def test_error_in_library_has_place_in_handler(
        self, live: LiveCloud, customer: Customer
    ) -> None:
        shown = self.invoke(live, customer, "invoice.updated")
        called = line_of('json.loads("{")')
        (event,) = shown.events
        assert event.reason == f"JSONDecodeError at billing.py:{called} updated"

    def test_dead_lettered_event_has_reason(self, live: LiveCloud, customer: Customer) -> None:
        shown = self.invoke(live, customer, "invoice.finalized", "invoice.voided")
        assert shown.status == "failed"
        reasons = {state: why for _, _, state, why in events(shown)}
        assert reasons["failed"] == "UnprocessableEventError: no plan has this price"

    def test_error_of_stripe_has_status_and_request(
        self, world: World, live: LiveCloud, customer: Customer
    ) -> None:
        world.deliver_and_apply()
        world.rename(customer.stripe_id, "Jane")
        world.deliver()
        world.stripe.faults.fail_next(None, status=403)
        with live.invoking("apply_event"):
            world.stream()
        (event,) = seen(live).events
        assert event.reason.startswith("StripeAccessError (Stripe: 403 req_")

    def test_output_of_handler_is_shown(self, live: LiveCloud, customer: Customer) -> None:
        shown = self.invoke(live, customer, "invoice.paid", "invoice.updated")
        assert {*shown.notes} == {"invoice of u-1", '{"level": "INFO", "mine": 1}'}
        assert len(shown.log) == 4  # and the retry, and the outcome

    def test_nothing_to_apply_is_completed(self, live: LiveCloud, customer: Customer) -> None:
        shown = self.invoke(live, customer)
        assert (shown.status, shown.outcome, shown.events) == ("ok", "completed", ())


class TestOtherFunctions:
    def test_record_that_the_stream_retries_is_a_warning(
        self, world: World, live: LiveCloud, customer: Customer
    ) -> None:
        world.deliver()
        keys = {name: {"S": customer.attribute_values[name]} for name in ("pk", "sk")}
        image = {"customer_id": {"S": customer.stripe_id}}
        record = {"dynamodb": {"Keys": keys, "NewImage": image, "SequenceNumber": "1"}}
        with world.failing_database("ThrottlingException"), live.invoking("apply_event"):
            world.apply_events({"Records": [record]})
        shown = seen(live)
        assert shown.status == "warn"
        assert shown.notes[0].startswith("WARNING failed DatabaseUnavailableError")
        assert f"item=CUSTOMER#{customer.stripe_id}" in shown.notes[0]

    def test_webhook_has_its_event(self, world: World, live: LiveCloud, customer: Customer) -> None:
        with live.invoking("link_customer"):
            world.deliver()
        shown = seen(live)
        assert (shown.status, shown.outcome, shown.notes) == ("200", "", ())
        assert events(shown) == {("customer.created", customer.user_id, "pending", "")}
        assert http_status(live.last_log) == "200"

    def test_event_of_unknown_customer_names_it(self, world: World, live: LiveCloud) -> None:
        live.emit("customer.updated", customer="cus_unknown")
        with live.invoking("link_customer"):
            world.deliver()
        assert events(seen(live)) == {("customer.updated", "cus_unknown", "waiting", "")}

    def test_refused_request_has_error(self, world: World, live: LiveCloud) -> None:
        with live.invoking("get_customer"):
            world.get()
        shown = seen(live)
        assert shown.status == "404"
        assert shown.outcome == "CustomerNotFoundError: this user has no customer"

    def test_bug_has_its_place(
        self, world: World, live: LiveCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> NoReturn:
            raise KeyError("jane@example.com")

        monkeypatch.setattr("stripe_integrations.actions.StripeCustomer.get", fail)
        with live.invoking("get_customer"):
            world.get()
        shown = seen(live)
        assert shown.status == "500"
        assert shown.outcome.startswith("KeyError at app.py:")

    def test_schedule_has_its_numbers(self, world: World, live: LiveCloud) -> None:
        with live.invoking("reconcile_events"):
            world.reconcile()
        shown = seen(live)
        assert (shown.status, shown.notes) == ("ok", ())
        assert shown.outcome == "swept=0 recovered=0 attempted=0"

    def test_exhausted_event_is_shown_as_failed(
        self, world: World, live: LiveCloud, customer: Customer
    ) -> None:
        world.deliver()
        (event,) = world.items(record_type="Event")
        exhaust(event["stripe_id"])
        with live.invoking("reconcile_events"):
            world.reconcile()
        shown = seen(live)
        assert (shown.status, customer.user_id) == ("failed", "u-1")
        reason = "too many attempts, last error: interrupted"
        assert events(shown) == {("customer.created", "u-1", "failed", reason)}

    def test_raised_error_has_place_and_message(self, world: World, live: LiveCloud) -> None:
        with live.invoking("replay_events"):
            world.replay({})
        shown = seen(live)
        assert shown.status == "error"
        assert shown.outcome.startswith("InvalidFieldError at app.py:")
        assert shown.outcome.endswith(
            " handler: event: must have event_id, failed: true, or created_from before created_to"
        )
        assert shown.notes == ()
        assert shown.log[1] == "Traceback (most recent call last):"

    def test_unexpected_error_has_the_place_of_its_cause(
        self, world: World, live: LiveCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> NoReturn:
            raise ZeroDivisionError

        monkeypatch.setattr("stripe_integrations.actions.StripeEvent.replay", fail)
        with live.invoking("replay_events"):
            world.replay({"event_id": "evt_1"})
        assert seen(live).outcome.startswith("ZeroDivisionError at app.py:")

    def test_lines_of_a_handlers_own_logger_are_shown(self, live: LiveCloud) -> None:
        own = '{"level":"INFO","function_request_id":"r","message":'
        odd = f'{own}{{"a":1}}}}'
        lines = (odd, f'{own}"sent","to":[1,2],"where":7,"events":8}}', f"{own[:20]}")
        live.add("apply_event", *lines)
        assert seen(live).notes == (odd, "INFO sent to=1,2", lines[2])

    @pytest.mark.parametrize("died", ["Worker process died", "Task timed out after 60.00 seconds"])
    def test_process_that_died_is_an_error(self, live: LiveCloud, died: str) -> None:
        live.add("apply_event", "about to die", died)
        shown = seen(live)
        assert (shown.status, shown.outcome) == ("error", died)
        assert shown.notes == ("about to die",)

    def test_process_that_did_not_start_is_an_error(self, live: LiveCloud) -> None:
        live.add("apply_event", "Traceback (most recent call last):", "ImportError: no module")
        shown = seen(live)
        assert (shown.status, shown.outcome) == ("error", "ImportError: no module")

    def test_interrupted_process_is_an_error(
        self, world: World, live: LiveCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def leave(*_: object) -> NoReturn:
            raise SystemExit

        monkeypatch.setattr("stripe_integrations.actions.StripeEvent.replay", leave)
        with live.invoking("replay_events"), pytest.raises(SystemExit):
            world.replay({"event_id": "evt_1"})
        shown = seen(live)
        assert (shown.status, shown.outcome) == ("error", "interrupted")

    def test_log_level_may_suppress_the_outcome(
        self, world: World, live: LiveCloud, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.ERROR, logger=observability.logger.name)
        world.context.measure = observability.measure
        with live.invoking("reconcile_events"):
            world.reconcile()
        shown = seen(live)
        assert (shown.status, shown.outcome, shown.notes) == ("ok", "", ())
        assert shown.log

    def test_erasure_has_its_customers(
        self, world: World, live: LiveCloud, customer: Customer
    ) -> None:
        with live.invoking("erase_customer"):
            world.erase({"user_id": "u-1"})
        assert seen(live).outcome == f"erased={customer.stripe_id}"

    def test_page_of_a_walk_is_shown(self, world: World, live: LiveCloud) -> None:
        world.reconcile()
        world.time += 100
        world.walk({"action": "start", "run_id": "r"})
        with live.invoking("walk_account"):
            world.walk({"action": "work", "run_id": "r", "worker": "1"})
        shown = seen(live)
        assert shown.status == "ok"
        assert all(note.startswith("INFO walked a page run_id=r window=") for note in shown.notes)
        assert shown.notes


class TestPlace:
    def test_is_before_a_library(self) -> None:
        frames = ["side_effects.py:1 run", "client.py:6 _api_call", "context.py:123 wrapper"]
        assert place_of(frames) == "side_effects.py:1 run"

    def test_is_after_the_runtime(self) -> None:
        assert place_of(["bootstrap.py:1 main", "app.py:24 handler"]) == "app.py:24 handler"

    def test_is_in_library_if_there_is_nothing_else(self) -> None:
        assert place_of(["parser.py:1 parse", "lexer.py:2 lex"]) == "lexer.py:2 lex"
