"""Metrics of what happened, and log lines that have the ids to find each other by."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from itertools import chain
from typing import Any, NoReturn

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics

import functions.create_customer.app as create_customer
import functions.replay_events.app as replay_events
from local.stripe_double.webhooks import sign
from stripe_integrations import observability
from stripe_integrations.actions import StripeEvent
from stripe_integrations.entrypoints import invocation
from stripe_integrations.errors import ConfigurationError, InvocationFailedError
from stripe_integrations.models import Customer, Event, Owner, Pointer, event_queue
from stripe_integrations.observability import Metric
from tests.world import EMAIL, WEBHOOK_SECRET, Json, World, stripe_event
from tools.lambda_events import api_event


def measured(world: World) -> dict[Metric, float]:
    """The sums of the metrics since the last call, without latencies."""
    sums: Counter[Metric] = Counter()
    for metric, value in world.measured:
        sums[metric] += value  # type: ignore[assignment]
    world.measured.clear()
    del sums[Metric.STRIPE_LATENCY]
    return dict(sums)


def lines(log: io.StringIO) -> list[Json]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def clear(log: io.StringIO) -> None:
    log.truncate(log.seek(0))


def use_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect metrics as those of the stack `stack`."""
    metrics = EphemeralMetrics(namespace=observability.NAMESPACE, service="stack")
    monkeypatch.setattr(observability, "_metrics", metrics)


@pytest.fixture
def stripe_id(world: World) -> str:
    """A customer, all of whose events are applied and all of whose metrics are forgotten."""
    stripe_id = str(world.create()["json"]["stripe_id"])
    world.deliver_and_apply()
    world.measured.clear()
    return stripe_id


class TestMetrics:
    def test_titles_are_distinct(self) -> None:
        assert len({metric.title for metric in Metric}) == len(Metric)

    def test_nothing_is_measured_outside_of_invocation(
        self, world: World, log: io.StringIO, customer: Customer
    ) -> None:
        assert customer.is_new
        assert (world.measured, log.getvalue()) == ([], "")

    def test_create_and_repeat_differ(self, world: World) -> None:
        world.create()
        assert measured(world) == {Metric.CUSTOMERS_CREATED: 1}
        world.create()
        assert measured(world) == {Metric.CUSTOMERS_RETURNED: 1}

    def test_adoption_counts_once_though_stripe_fails_after_it(self, world: World) -> None:
        made = world.request("POST", "/v1/customers", {"email": EMAIL})
        world.stripe.faults.fail_next(None, match="POST /v1/customers/*", status=503)
        for _ in range(2):
            world.adopt(made["id"])
            world.stripe.faults.clear()
        counted = measured(world)
        assert counted[Metric.CUSTOMERS_ADOPTED] == 1

    def test_event_counts_when_received_and_when_finished(
        self, world: World, stripe_id: str
    ) -> None:
        world.time += 100
        world.rename(stripe_id, "Jane")
        world.deliver()
        assert measured(world) == {Metric.EVENTS_RECEIVED: 1}
        world.time += 7
        world.stream()
        assert measured(world) == {Metric.EVENTS_APPLIED: 1, Metric.EVENT_DELAY: 7}

    def test_delay_of_a_replayed_event_is_not_measured(self, world: World, stripe_id: str) -> None:
        world.rename(stripe_id, "Jane")
        world.deliver_and_apply()
        world.time += 3600
        world.measured.clear()
        world.replay({"event_id": world.payload()["id"]})
        found = measured(world)
        assert Metric.EVENTS_APPLIED in found
        assert Metric.EVENT_DELAY not in found

    def test_repeated_event_counts_as_received_only(self, world: World) -> None:
        world.context.begin_invocation(60_000)
        StripeEvent.receive(stripe_event(livemode=True))
        assert measured(world) == {Metric.EVENTS_RECEIVED: 1, Metric.EVENTS_IGNORED: 1}
        StripeEvent.receive(stripe_event(livemode=True))
        assert measured(world) == {Metric.EVENTS_RECEIVED: 1}

    def test_older_event_counts_as_stale(self, world: World, stripe_id: str) -> None:
        world.time += 100
        world.rename(stripe_id, "Jane")
        world.time += 100
        world.sync()
        world.measured.clear()
        world.deliver_and_apply()
        assert measured(world) == {
            Metric.EVENTS_RECEIVED: 1,
            Metric.EVENTS_IGNORED: 1,
            Metric.STALE_EVENTS_DROPPED: 1,
        }

    def test_ambiguous_event_counts_as_refetched(self, world: World, stripe_id: str) -> None:
        world.rename(stripe_id, "Jane")
        world.deliver_and_apply()
        assert measured(world)[Metric.AMBIGUOUS_EVENTS_REFETCHED] == 1

    def test_other_api_version_is_counted(self, world: World) -> None:
        world.context.begin_invocation(60_000)
        StripeEvent.receive(stripe_event(api_version="2020-01-01"))
        assert measured(world) == {Metric.EVENTS_RECEIVED: 1, Metric.API_VERSION_MISMATCHES: 1}

    def test_refused_signature_is_counted(self, world: World) -> None:
        body = json.dumps(stripe_event("price.created")).encode()
        for header in ("", "t=1,v1=00", sign(body, "whsec_forged", world.time)):
            assert world.webhook(body, {"stripe-signature": header})["statusCode"] == 400
        assert measured(world) == {Metric.SIGNATURES_REFUSED: 3}
        world.webhook(b"{}", {"stripe-signature": sign(b"{}", WEBHOOK_SECRET, world.time)})
        assert measured(world) == {}

    def test_retries_and_dead_letters_are_counted(self, world: World, stripe_id: str) -> None:
        world.rename(stripe_id, "Jane")
        world.stripe.faults.fail_next(None, status=500)
        world.deliver_and_apply()
        assert measured(world)[Metric.EVENT_RETRIES_SCHEDULED] == 1
        attempts = 0
        while not world.dead_letters:
            attempts += 1
            assert attempts < 100
            world.time += 8000
            world.reconcile()
        assert measured(world)[Metric.EVENTS_DEAD_LETTERED] == 1

    def test_stripe_is_timed_and_its_429s_are_counted(self, world: World, stripe_id: str) -> None:
        world.stripe.faults.fail_next(1, status=429)
        world.sync()
        latencies = [value for metric, value in world.measured if metric is Metric.STRIPE_LATENCY]
        assert len(latencies) == 4
        assert measured(world)[Metric.STRIPE_RATE_LIMITED] == 1

    def test_are_in_the_line_of_the_invocation(
        self, world: World, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_metrics(monkeypatch)
        world.context.measure = observability.measure
        world.create()
        world.get()
        world.stripe.faults.fail_next(None, status=500)
        world.create("u-2")
        first, read, second = lines(log)
        (directive,) = first["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "StripeIntegrations"
        assert directive["Dimensions"] == [["service"]]
        assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == {
            "CustomersCreated": "Count",
            "StripeLatency": "Milliseconds",
        }
        assert (first["CustomersCreated"], first["service"]) == ([1], "stack")
        assert "_aws" not in read
        assert len(second["StripeLatency"]) >= 1

    def test_are_printed_alone_where_the_log_level_suppresses_the_line(
        self,
        world: World,
        log: io.StringIO,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        caplog.set_level(logging.ERROR, logger=observability.logger.name)
        world.context.measure = observability.measure
        world.create()
        world.get()
        (created,) = capsys.readouterr().out.splitlines()
        assert json.loads(created)["CustomersCreated"] == [1]
        assert lines(log) == []

    def test_more_values_than_a_line_may_have_are_in_several(
        self, log: io.StringIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        observability.begin_line()
        for milliseconds in range(250):
            observability.measure(Metric.EVENTS_APPLIED, 1)
            observability.measure(Metric.STRIPE_LATENCY, milliseconds)
        observability.end_line()
        printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()] + lines(log)
        values = [line["StripeLatency"] for line in printed]
        assert list(chain(*values)) == [*range(250)]
        assert max(map(len, values)) == 100
        assert sum(len(line["EventsApplied"]) for line in printed) == 250


class TestInternalErrors:
    @pytest.fixture
    def version(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """The version of the function that runs."""
        use_metrics(monkeypatch)
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "sync-customer")
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "7")
        return "7"

    def printed(self, log: io.StringIO, capsys: pytest.CaptureFixture[str]) -> tuple[Json, Json]:
        """The line of the version's metric, and the invocation's line."""
        (of_version,) = capsys.readouterr().out.splitlines()
        printed = json.loads(of_version), lines(log)[-1]
        for line, names in zip(
            printed, (["service", "function_name", "function_version"], ["service"]), strict=True
        ):
            (directive,) = line["_aws"]["CloudWatchMetrics"]
            assert directive["Dimensions"] == [names]
            assert "InternalErrors" in [metric["Name"] for metric in directive["Metrics"]]
            assert (line["service"], line["InternalErrors"]) == ("stack", [1])
        return printed

    def test_have_version_as_dimension_too(
        self,
        world: World,
        stripe_id: str,
        version: str,
        log: io.StringIO,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        world.context.measure = observability.measure
        world.configure(deployment_name="another")
        assert world.sync()["statusCode"] == 500
        of_version, line = self.printed(log, capsys)
        assert of_version["function_name"] == "sync-customer"
        assert of_version["function_version"] == version
        assert (line["message"], line["status"]) == ("refused", 500)

    @pytest.mark.usefixtures("version")
    def test_are_counted_where_the_settings_are_invalid(
        self,
        world: World,
        log: io.StringIO,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def current() -> NoReturn:
            raise ConfigurationError("TABLE_NAME is not set")

        monkeypatch.setattr(invocation, "current", current)
        assert world.get()["statusCode"] == 500
        self.printed(log, capsys)

    def test_do_not_include_failures_of_stripe(self, world: World, stripe_id: str) -> None:
        world.stripe.faults.fail_next(None, status=500)
        assert world.sync()["statusCode"] == 503
        assert measured(world) == {}


class TestSweepMetrics:
    def test_recovered_events_and_age_of_sweep(self, world: World, stripe_id: str) -> None:
        world.reconcile()
        world.stripe.webhooks.drop_next(1)
        world.rename(stripe_id, "Jane")
        world.time += 300
        world.measured.clear()
        world.reconcile()
        sums = measured(world)
        assert (sums[Metric.EVENTS_RECOVERED], sums[Metric.SWEEP_AGE]) == (1, 300)

        world.stripe.faults.fail_next(None, status=500)
        world.time += 1800
        world.reconcile()
        assert measured(world)[Metric.SWEEP_AGE] >= 1800


class TestBacklogMetrics:
    def age(self, world: World) -> float:
        world.measured.clear()
        world.reconcile()
        return measured(world)[Metric.OLDEST_UNFINISHED_EVENT_AGE]

    def test_age_is_of_oldest_unfinished_event(self, world: World, stripe_id: str) -> None:
        assert self.age(world) == 0
        world.rename(stripe_id, "Jane")
        world.deliver()
        world.time += 7000
        world.stripe.faults.fail_next(None, status=500)
        assert self.age(world) >= 7000

    def test_waiting_event_counts_once_its_customer_is_known(self, world: World) -> None:
        StripeEvent.receive(stripe_event())
        assert world.event_states() == {"customer.updated": "waiting"}
        world.time += 7000
        assert self.age(world) == 0
        Pointer.to(Owner("u-1", "cus_unknown")).save()
        for _ in range(30):
            world.time += 7300
            world.reconcile()
        assert world.event_states() == {"customer.updated": "pending"}
        assert self.age(world) > 30 * 7000

    def test_one_page_of_each_queue_is_read(self, world: World) -> None:
        with world.counting() as counts:
            event_queue.oldest_pending_seconds()
        assert counts.operations == ["Query"] * 4
        assert {body["Limit"] for body in counts.bodies} == {1000}

    def test_replayed_event_is_as_old_as_its_replay(self, world: World, stripe_id: str) -> None:
        world.time += 5 * 86_400
        (stored,) = world.items(record_type="Event")
        Event.requeue(stored["stripe_id"])
        assert event_queue.oldest_pending_seconds() == 0
        world.time += 60
        assert event_queue.oldest_pending_seconds() == 60


class TestLog:
    def test_line_has_ids_of_request_and_of_stripes(self, world: World, log: io.StringIO) -> None:
        body = json.dumps({"user_id": "u-1", "billing_email": "jane@example.com"})
        event = api_event("POST", "/customers", body=body)
        event["requestContext"]["requestId"] = "api-1"
        world.call(create_customer, event)
        (responded,) = lines(log)
        assert responded["correlation_id"] == "api-1"
        assert responded["function_request_id"]
        assert responded["stripe"]["calls"] == 1
        (request_id,) = responded["stripe_request_ids"]
        assert request_id.startswith("req_")
        assert responded["status"] == 201

    def test_debug_has_a_line_for_each_call_to_stripe(
        self, world: World, log: io.StringIO, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger=observability.logger.name)
        world.create()
        called, responded = lines(log)
        assert (called["message"], called["stripe_status"]) == ("called Stripe", 200)
        assert responded["stripe_request_ids"] == [called["stripe_request_id"]]

    def test_refused_call_has_stripes_id(
        self, world: World, log: io.StringIO, stripe_id: str
    ) -> None:
        clear(log)
        world.stripe.faults.fail_next(1, status=403)
        world.sync()
        (refused,) = lines(log)
        assert (refused["level"], refused["stripe_status"]) == ("WARNING", 403)
        assert refused["stripe_request_ids"] == [refused["stripe_request_id"]]

    def test_event_has_its_id_from_webhook_to_end(
        self, world: World, log: io.StringIO, stripe_id: str
    ) -> None:
        world.rename(stripe_id, "Jane")
        clear(log)
        world.deliver_and_apply()
        (event,) = world.items(record_type="Event", kind="customer.updated")
        received, applied = (line for line in lines(log) if event["stripe_id"] in json.dumps(line))
        assert (received["message"], received["stripe_event_id"]) == (
            "responded",
            event["stripe_id"],
        )
        assert (applied["message"], applied["stripe"]["calls"]) == ("completed", 3)
        assert {
            "stripe_event_id": event["stripe_id"],
            "stripe_customer_id": stripe_id,
            "state": "applied",
        } in applied["events"]

    def test_invocation_prints_further_lines_of_a_long_list(self, log: io.StringIO) -> None:
        observability.begin_line()
        for number in range(201):
            observability.add_item("events", {"stripe_event_id": f"evt_{number}"})
        observability.set_outcome(logging.INFO, "completed")
        observability.end_line()
        printed = lines(log)
        assert [line["message"] for line in printed] == ["continues", "continues", "completed"]
        assert [len(line["events"]) for line in printed] == [100, 100, 1]

    def test_fields_end_with_the_invocation(
        self, world: World, log: io.StringIO, stripe_id: str
    ) -> None:
        observability.add_fields(customer_email="jane@example.com")
        clear(log)
        world.get()
        (responded,) = lines(log)
        assert not {"stripe_event_id", "customer_email"} & responded.keys()

    def test_killed_process_has_no_outcome(
        self, world: World, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def leave(*_: Any) -> None:
            raise SystemExit

        monkeypatch.setattr("stripe_integrations.actions.StripeEvent.replay", leave)
        with pytest.raises(SystemExit):
            world.invoke(replay_events, {"event_id": "evt_1"})
        (interrupted,) = lines(log)
        assert (interrupted["level"], interrupted["message"]) == ("ERROR", "interrupted")

    def test_unexpected_error_is_raised_by_type_only(
        self, world: World, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise KeyError("jane@example.com")

        monkeypatch.setattr("stripe_integrations.actions.StripeEvent.replay", fail)
        with pytest.raises(InvocationFailedError, match=r"^KeyError$") as raised:
            world.invoke(replay_events, {"event_id": "evt_1"})
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
        (failed,) = lines(log)
        assert (failed["error"], "jane" in log.getvalue()) == ("KeyError", False)
