"""When the alarms of template.yaml go into ALARM and back to OK, as CloudWatch evaluates them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from stripe_integrations.actions import StripeEvent
from stripe_integrations.actions.events import apply
from stripe_integrations.config import WebhookIngress
from stripe_integrations.models import EventState
from stripe_integrations.observability import NAMESPACE, Metric
from tests.cloudwatch import (
    EXTRA_PERIODS,
    MINUTE,
    AlarmState,
    Measurement,
    Transition,
    chosen,
    evaluate,
    metrics_of,
    result,
    route_of,
    transitions,
)
from tests.roles import Deployment
from tests.world import World, stripe_event
from tools.template import of_type, template

ALARMS: Mapping[str, Any] = {
    name: resource["Properties"] for name, resource in of_type("AWS::CloudWatch::Alarm").items()
}
OK, ALARM, INSUFFICIENT_DATA = AlarmState
SHORTEST, *_, LONGEST = template()["Parameters"]["ReconcileEveryMinutes"]["AllowedValues"]
RETRIEVE = "GET /v1/customers/*"
INTERVALS = (SHORTEST, 5, LONGEST)
COUNTED = {"5xx": "Count", "Url5xxCount": "UrlRequestCount", "Errors": "Invocations"}
RATES = {
    f"{function}Errors": ALARMS[f"{function}Errors"]
    for function in (
        "CreateCustomer",
        "GetCustomer",
        "SyncCustomer",
        "SoftDeleteCustomer",
        "ApplyEvent",
    )
} | {
    f"LinkCustomerErrors, {ingress}": chosen(
        ALARMS["LinkCustomerErrors"], Deployment(WebhookIngress=ingress).holds
    )
    for ingress in WebhookIngress
}


@pytest.fixture(params=EXTRA_PERIODS)
def extra_periods(request: pytest.FixtureRequest) -> int:
    """By how many periods CloudWatch's evaluation range is longer than the alarm's own periods."""
    return int(request.param)


class Monitor:
    """The alarms on the metrics that a world emits.

    Parameters
    ----------
    world : World
        The product, whose clock `wait` advances.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.began = world.time
        self.measurements: list[Measurement] = []

    @property
    def minute(self) -> int:
        """The minutes since the monitor began."""
        return int((self.world.time - self.began) // MINUTE)

    def wait(self, minutes: float) -> None:
        """Collect what was measured, and let time pass."""
        now = self.world.time - self.began
        for metric, value in self.world.measured:
            self.measurements.append(Measurement(now, metric.title, value))
        self.world.measured.clear()
        self.world.time = self.began + now + minutes * MINUTE

    def states(self, alarm: str) -> list[AlarmState]:
        """The states that an alarm has had; they are the same for every evaluation range."""
        self.wait(0)
        ingress = self.world.settings.webhook_ingress
        watched = chosen(ALARMS[alarm], Deployment(WebhookIngress=ingress).holds)
        changes = [
            [c.state for c in transitions(watched, self.measurements, self.minute, extra)]
            for extra in EXTRA_PERIODS
        ]
        assert changes == changes[:1] * len(changes)
        return changes[0]


@pytest.fixture
def monitor(world: World) -> Monitor:
    """The alarms of a world with one customer, all of whose events are applied."""
    world.create()
    world.deliver_and_apply()
    world.measured.clear()
    return Monitor(world)


def rename(world: World) -> None:
    (customer,) = world.stripe_customers()
    world.rename(customer["id"], f"Jane {world.time}")


def stream(world: World) -> None:
    """Let the stream report the pending events, and no more: this is called often."""
    pending = world.items(record_type="Event", state=EventState.PENDING)
    if pending:
        world.stream(*((event["pk"], event["sk"]) for event in pending))


class TestEvaluation:
    """The examples of AWS's documentation: an evaluation range of five periods, oldest first."""

    @pytest.mark.parametrize(
        ("to_alarm", "points", "breaching", "not_breaching", "ignore"),
        [
            (3, "0-X-X", OK, OK, OK),
            (3, "0----", OK, OK, OK),
            (3, "-----", ALARM, OK, INSUFFICIENT_DATA),
            (3, "0XX-X", ALARM, ALARM, ALARM),
            (3, "----X", ALARM, OK, INSUFFICIENT_DATA),
            (3, "X----", ALARM, OK, INSUFFICIENT_DATA),
            (2, "0-X-X", ALARM, ALARM, ALARM),
            (2, "00X0X", ALARM, ALARM, ALARM),
            (2, "0-X--", ALARM, OK, OK),
            (2, "----0", ALARM, OK, OK),
            (2, "----X", ALARM, OK, INSUFFICIENT_DATA),
        ],
    )
    def test_follows_documented_examples(
        self,
        to_alarm: int,
        points: str,
        breaching: AlarmState,
        not_breaching: AlarmState,
        ignore: AlarmState,
    ) -> None:
        values = {"0": 0.0, "X": 1.0, "-": None}
        newest_first = [values[point] for point in reversed(points)]
        for treatment, expected in (
            ("breaching", breaching),
            ("notBreaching", not_breaching),
            ("ignore", ignore),
        ):
            alarm = {
                "EvaluationPeriods": 3,
                "DatapointsToAlarm": to_alarm,
                "TreatMissingData": treatment,
                "ComparisonOperator": "GreaterThanThreshold",
                "Threshold": 0,
            }
            assert evaluate(alarm, newest_first, INSUFFICIENT_DATA) is expected, treatment

    def test_one_long_period_detects_missing_data_late(self) -> None:
        """Why no alarm treats missing data in one long period as breaching."""
        alarm = {**ALARMS["ReconcileEventsStopped"], "Period": 3900, "EvaluationPeriods": 1}
        last = [Measurement(60, "OldestUnfinishedEventAge", 0)]
        (_, raised) = transitions(alarm, last, 600)
        assert raised == Transition(1 + 3 * 65, ALARM)

    @pytest.mark.parametrize("name", ALARMS)
    def test_missing_data_breaches_in_short_periods_only(self, name: str) -> None:
        alarm = ALARMS[name]
        (period,) = {metric["Period"] for metric in metrics_of(alarm)}
        if alarm["TreatMissingData"] == "breaching":
            assert period <= 300
            assert alarm["EvaluationPeriods"] == alarm.get(
                "DatapointsToAlarm", alarm["EvaluationPeriods"]
            )
        # A quota: a longer evaluation is refused.
        assert period * alarm["EvaluationPeriods"] <= 86_400


class TestMetricMath:
    """The rules and the examples of AWS's documentation."""

    @pytest.mark.parametrize(
        ("expression", "first", "second", "expected"),
        [
            ("m1 + m2", 20, 2, 22),
            ("m1 + m2", 20, None, 20),
            ("m1 + m2", None, None, None),
            ("100 * m1 / m2", None, 5, 0),
            ("100 * m1 / m2", 5, None, None),
            ("100 * m1 / m2", 0, 0, None),
            ("m1 >= 30", 30, None, 1),
            ("m1 >= 30", None, 30, None),
            ("m1 == m2", 20, 20, 1),
            ("m1 == m2", 20, None, 0),
            ("m1 == m2", 0, None, 1),
            ("m1 == m2", None, None, None),
            ("m1 >= 15 OR m2 >= 15", None, 20, 1),
            ("m1 >= 15 OR m2 >= 15", None, 10, 0),
            ("m1 >= 15 OR m2 >= 15", None, None, None),
            ("IF(m1, m2, 5)", 1, 30, 30),
            ("IF(m1, m2, 5)", 1, None, 0),
            ("IF(m1, m2, 5)", 0, None, 5),
            ("IF(m1, m2, 5)", None, 30, None),
            ("IF(m1, 5, m2)", 0, None, None),
            ("IF(e1 >= 3, e1, 0)", 1, 2, 3),
        ],
    )
    def test_follows_documentation(
        self, expression: str, first: float | None, second: float | None, expected: float | None
    ) -> None:
        queries = {"m1": first, "m2": second, "e1": "m1 + m2"}
        assert result(expression, queries) == expected


@pytest.mark.parametrize("interval", INTERVALS)
class TestSchedule:
    """The alarms on what each run of the schedule emits."""

    def runs(
        self, metric: str, interval: int, first: int, last: int, value: Callable[[int], float]
    ) -> list[Measurement]:
        minutes = range(first, last + 1, interval)
        return [Measurement(minute * MINUTE, metric, value(minute)) for minute in minutes]

    def test_stopped_schedule_raises_alarm(self, interval: int, extra_periods: int) -> None:
        metric = Metric.OLDEST_UNFINISHED_EVENT_AGE.title
        measurements = [
            *self.runs(metric, interval, 1, 301, lambda _: 0),
            *self.runs(metric, interval, 600, 800, lambda _: 0),
        ]
        last = max(m.seconds for m in measurements if m.seconds <= 301 * MINUTE) // MINUTE
        changes = transitions(ALARMS["ReconcileEventsStopped"], measurements, 800, extra_periods)
        started, stopped, resumed = changes
        assert started == Transition(1, OK)
        assert stopped.state is ALARM
        assert 65 <= stopped.minute - last <= 65 + 5 * extra_periods
        assert resumed == Transition(600, OK)

    @pytest.mark.parametrize(
        ("alarm", "metric", "threshold"),
        [
            ("EventsUnfinished", Metric.OLDEST_UNFINISHED_EVENT_AGE, 7200),
            ("SweepOverdue", Metric.SWEEP_AGE, 21_600),
        ],
    )
    def test_age_over_threshold_raises_alarm(
        self, alarm: str, metric: Metric, threshold: int, interval: int, extra_periods: int
    ) -> None:
        ended = 1200

        def age(minute: int) -> float:
            return minute * MINUTE if minute < ended else 0

        measurements = self.runs(metric.title, interval, 1, 1500, age)
        changes = transitions(ALARMS[alarm], measurements, 1700, extra_periods)
        _, raised, cleared = changes
        assert (raised.state, cleared.state) == (ALARM, OK)
        assert 0 <= raised.minute - threshold / MINUTE <= interval
        # Not sooner: until the next run, the alarm keeps its state.
        assert 0 <= cleared.minute - ended <= interval + 5

    def test_two_failed_runs_raise_alarm(self, interval: int, extra_periods: int) -> None:
        alarm = ALARMS["ReconcileEventsErrors"]
        failing = self.runs("Errors", interval, 1, 601, lambda minute: minute < 300)
        _, raised, cleared = transitions(alarm, failing, 800, extra_periods)
        assert (raised.state, cleared.state) == (ALARM, OK)
        assert interval <= raised.minute - 1 <= interval + 5
        assert cleared.minute <= 300 + 130 + 5 * (1 + extra_periods)
        once = self.runs("Errors", interval, 1, 601, lambda minute: minute == 1)
        assert [c.state for c in transitions(alarm, once, 800, extra_periods)] == [OK]


class TestWebhookIsBypassed:
    """Stripe does not deliver events: the schedule finds them in Stripe's list."""

    def minutes(self, monitor: Monitor, interval: int, number: int, *, enabled: bool) -> None:
        for _ in range(number // interval):
            if not enabled:
                monitor.world.stripe.webhooks.drop_next()
            rename(monitor.world)
            monitor.world.deliver()
            stream(monitor.world)
            monitor.wait(interval)
            monitor.world.reconcile()
            stream(monitor.world)

    @pytest.mark.parametrize("interval", [*INTERVALS, 15])
    def test_disabled_endpoint_raises_alarm(self, monitor: Monitor, interval: int) -> None:
        self.minutes(monitor, interval, max(2 * interval, 20), enabled=True)
        assert monitor.states("EventsRecovered") == [OK]
        self.minutes(monitor, interval, max(2 * interval, 20), enabled=False)
        assert monitor.states("EventsRecovered") == [OK, ALARM]
        self.minutes(monitor, interval, 180, enabled=True)
        assert monitor.states("EventsRecovered") == [OK, ALARM, OK]
        assert monitor.states("EventsMissedByStream") == [OK]

    def test_disabled_endpoint_raises_alarm_if_most_events_are_found_at_once(
        self, monitor: Monitor
    ) -> None:
        """The events of the last minute before a run are not counted: they may be in delivery."""
        for _ in range(20 // SHORTEST):
            for seconds in (30, 40, 40):
                monitor.wait(seconds / MINUTE)
                monitor.world.stripe.webhooks.drop_next()
                rename(monitor.world)
            monitor.wait(10 / MINUTE)
            monitor.world.reconcile()
        assert monitor.states("EventsRecovered") == [OK, ALARM]

    def test_finding_all_events_without_an_ingress_raises_no_alarm(self, monitor: Monitor) -> None:
        monitor.world.configure(webhook_ingress=WebhookIngress.NONE)
        self.minutes(monitor, 15, 180, enabled=False)
        assert monitor.states("EventsRecovered") == [OK]

    def test_one_lost_delivery_raises_no_alarm(self, monitor: Monitor) -> None:
        self.minutes(monitor, 5, 5, enabled=False)
        assert monitor.states("EventsRecovered") == [OK]
        self.minutes(monitor, 5, 60, enabled=True)
        assert monitor.states("EventsRecovered") == [OK]

    def test_event_in_delivery_raises_no_alarm(self, monitor: Monitor) -> None:
        """Stripe's list has an event before it is delivered to the webhook."""
        for _ in range(12):
            rename(monitor.world)
            monitor.world.reconcile()
            monitor.world.deliver()
            monitor.world.stream()
            monitor.wait(5)
        assert monitor.states("EventsRecovered") == [OK]


class TestStreamIsBypassed:
    """The stream does not invoke apply_event: the schedule applies the events."""

    @pytest.mark.parametrize("interval", [*INTERVALS, 15])
    def test_disabled_mapping_raises_alarm(self, monitor: Monitor, interval: int) -> None:
        def minutes(number: int, *, enabled: bool) -> None:
            for _ in range(number // interval):
                rename(monitor.world)
                monitor.world.deliver()
                if enabled:
                    stream(monitor.world)
                monitor.wait(interval)
                monitor.world.reconcile()

        minutes(max(2 * interval, 20), enabled=True)
        assert monitor.states("EventsMissedByStream") == [OK]
        minutes(max(2 * interval, 20), enabled=False)
        assert monitor.states("EventsMissedByStream") == [OK, ALARM]
        minutes(180, enabled=True)
        assert monitor.states("EventsMissedByStream") == [OK, ALARM, OK]
        assert monitor.states("EventsRecovered") == [OK]

    def test_retries_raise_no_alarm(self, monitor: Monitor) -> None:
        monitor.world.stripe.faults.fail_next(None, status=500, match=RETRIEVE)
        for _ in range(24):
            rename(monitor.world)
            monitor.world.deliver()
            monitor.world.stream()
            monitor.wait(5)
            monitor.world.reconcile()
        assert monitor.states("EventsMissedByStream") == [OK]


class TestOtherApiVersion:
    def receive(self, monitor: Monitor, hours: int, **fields: Any) -> None:
        for number in range(hours * 12):
            monitor.world.context.begin_invocation(60_000)
            StripeEvent.receive(stripe_event(id=f"evt_{monitor.minute}_{number}", **fields))
            monitor.wait(5)

    def test_other_api_version_raises_alarm(self, monitor: Monitor) -> None:
        self.receive(monitor, 1, api_version="2020-01-01")
        assert monitor.states("ApiVersionMismatches") == [OK, ALARM]
        self.receive(monitor, 2)
        assert monitor.states("ApiVersionMismatches") == [OK, ALARM, OK]


class TestStripeLimitsTheRate:
    def sync(self, monitor: Monitor, times: int) -> None:
        for _ in range(times):
            monitor.world.sync()
            monitor.wait(0.5)

    def test_rate_limiting_raises_alarm(self, monitor: Monitor) -> None:
        monitor.world.stripe.faults.fail_next(None, status=429)
        self.sync(monitor, 40)
        assert monitor.states("StripeRateLimited") == [OK, ALARM]
        monitor.world.stripe.faults.clear()
        self.sync(monitor, 40)
        assert monitor.states("StripeRateLimited") == [OK, ALARM, OK]

    def test_short_burst_raises_no_alarm(self, monitor: Monitor) -> None:
        monitor.world.stripe.faults.fail_next(20, status=429)
        self.sync(monitor, 60)
        assert monitor.states("StripeRateLimited") == [OK]


class TestInternalError:
    def attempt_event(self, monitor: Monitor) -> None:
        """Let an event be attempted within a minute, and the minute end."""
        monitor.wait(1.5)
        rename(monitor.world)
        monitor.world.deliver()
        monitor.world.stream()
        monitor.wait(1)

    def test_of_request_raises_alarm(self, monitor: Monitor) -> None:
        monitor.wait(1.5)
        monitor.world.configure(deployment_name="another")
        assert monitor.world.sync()["statusCode"] == 500
        monitor.world.configure(deployment_name="stripe-customers")
        monitor.wait(1)
        assert monitor.states("InternalErrors") == [OK, ALARM]
        monitor.wait(30)
        assert monitor.states("InternalErrors") == [OK, ALARM, OK]

    def test_of_event_raises_alarm(self, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(apply, "_plan", None)  # a bug: it can't be called
        self.attempt_event(monitor)
        assert monitor.states("InternalErrors") == [OK, ALARM]

    def test_handler_that_cannot_be_imported_raises_alarm(self, monitor: Monitor) -> None:
        reference = "tests.stripe_integrations.actions.events.broken_handlers:on_customer_updated"
        monitor.world.configure(event_handlers={"customer.updated": reference})
        self.attempt_event(monitor)
        assert monitor.states("InternalErrors") == [OK, ALARM]

    def test_outage_raises_no_alarm(self, monitor: Monitor) -> None:
        monitor.world.stripe.faults.fail_next(None, status=500, match=RETRIEVE)
        assert monitor.world.sync()["statusCode"] == 503
        rename(monitor.world)
        monitor.world.deliver()
        monitor.world.stream()
        monitor.wait(1)
        assert monitor.states("InternalErrors") == [OK]


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        (name, metric["MetricName"])
        for name in ALARMS
        if name.endswith("VersionErrors")
        for metric in metrics_of(ALARMS[name])
    ],
)
def test_one_error_of_new_version_raises_alarm(name: str, failure: str, extra_periods: int) -> None:
    changes = transitions(ALARMS[name], [Measurement(150, failure)], 30, extra_periods)
    cleared = Transition(3 + 1 + extra_periods, OK)
    assert changes == [Transition(1, OK), Transition(3, ALARM), cleared]


@pytest.mark.parametrize("name", RATES)
class TestRates:
    """Alarms on a share of 5xx responses or failed invocations."""

    def requests(
        self, name: str, minutes: Iterable[int], errors: int, requests: int = 1, route: int = 0
    ) -> list[Measurement]:
        """Requests to one of the alarm's routes in each of some minutes, and the errors among them.

        A minute without errors has no measurement of them.
        """
        metrics = metrics_of(RATES[name])
        failed, counted = metrics[route], metrics[route + len(metrics) // 2]
        return [
            Measurement(minute * MINUTE - 30, metric["MetricName"], number, route_of(metric))
            for minute in minutes
            for metric, number in ((failed, errors), (counted, requests))
            if number
        ]

    def changes(self, name: str, measurements: list[Measurement], extra: int) -> list[Transition]:
        """The changes of the alarm's state in the first two hours of operation."""
        first, *changes = transitions(RATES[name], measurements, 120, extra)
        assert first == Transition(1, OK)
        return changes

    def test_outage_at_one_request_in_five_minutes_raises_alarm(
        self, name: str, extra_periods: int
    ) -> None:
        measurements = [
            *self.requests(name, range(1, 31, 5), errors=0),
            *self.requests(name, range(31, 61, 5), errors=1),
            *self.requests(name, range(61, 121, 5), errors=0),
        ]
        raised, cleared = self.changes(name, measurements, extra_periods)
        # By the second request that fails, and until the second that succeeds.
        assert raised == Transition(36, ALARM)
        assert cleared == Transition(66, OK)

    def test_outage_without_further_requests_ends(self, name: str, extra_periods: int) -> None:
        measurements = self.requests(name, range(31, 61, 5), errors=1)
        raised, cleared = self.changes(name, measurements, extra_periods)
        assert raised == Transition(36, ALARM)
        assert cleared.state is OK
        assert cleared.minute <= 56 + 5 * (3 + extra_periods)

    def test_one_failed_request_raises_no_alarm(self, name: str, extra_periods: int) -> None:
        alone = self.requests(name, [31], errors=1)
        assert self.changes(name, alone, extra_periods) == []
        among_others = [
            *self.requests(name, range(1, 31, 5), errors=0),
            *alone,
            *self.requests(name, range(36, 120, 5), errors=0),
        ]
        assert self.changes(name, among_others, extra_periods) == []

    def test_failed_request_among_successful_ones_raises_no_alarm(
        self, name: str, extra_periods: int
    ) -> None:
        """Up to two of each period fail, which is more than 5 %."""
        measurements = self.requests(name, range(1, 120, 3), errors=1, requests=2)
        assert self.changes(name, measurements, extra_periods) == []

    def test_five_percent_of_many_requests_raise_alarm(self, name: str, extra_periods: int) -> None:
        measurements = [
            *self.requests(name, range(1, 31), errors=4, requests=100),
            *self.requests(name, range(31, 61), errors=5, requests=100),
            *self.requests(name, range(61, 121), errors=0, requests=100),
        ]
        raised, cleared = self.changes(name, measurements, extra_periods)
        assert raised.state is ALARM
        assert 36 <= raised.minute <= 40
        assert cleared.state is OK
        assert 61 <= cleared.minute <= 70

    def test_few_errors_need_further_ones(self, name: str, extra_periods: int) -> None:
        """In each period at least three requests fail, or all."""
        for errors, requests, is_raised in ((3, 60, True), (2, 3, False), (3, 61, False)):
            measurements = self.requests(name, range(31, 61, 5), errors, requests)
            assert bool(self.changes(name, measurements, extra_periods)) is is_raised

    def test_one_short_burst_raises_no_alarm(self, name: str, extra_periods: int) -> None:
        measurements = self.requests(name, [31], errors=100, requests=100)
        assert self.changes(name, measurements, extra_periods) == []

    def test_routes_are_added_up(self, name: str, extra_periods: int) -> None:
        routes = range(len(metrics_of(RATES[name])) // 2)
        for failing in routes:
            measurements = self.requests(name, range(31, 61, 5), 5, 5, failing)
            assert self.changes(name, measurements, extra_periods)[0].state is ALARM
        others = [
            measurement
            for route in routes[1:]
            for measurement in self.requests(name, range(31, 61, 5), 0, 100, route)
        ]
        measurements = [*others, *self.requests(name, range(31, 61, 5), 4, 4)]
        assert bool(self.changes(name, measurements, extra_periods)) is (not others)

    def test_compare_errors_and_requests_of_the_same_resources(self, name: str) -> None:
        metrics = metrics_of(RATES[name])
        half = len(metrics) // 2
        for errors, requests in zip(metrics[:half], metrics[half:], strict=True):
            assert requests["MetricName"] == COUNTED[errors["MetricName"]]
            for key in ("Namespace", "Dimensions", "Period", "Stat"):
                assert errors[key] == requests[key]


def test_alarms_on_own_metrics_are_of_this_stack() -> None:
    for alarm in ALARMS.values():
        for metric in metrics_of(alarm):
            if metric["Namespace"] == NAMESPACE:
                assert {"Name": "service", "Value": {"Ref": "AWS::StackName"}} in (
                    metric["Dimensions"]
                )
