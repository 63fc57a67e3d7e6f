"""What the functions say of themselves: metrics of what happened, lines that can be followed."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics

import functions.create_customer.app as create_customer
import functions.replay_events.app as replay_events
from local.stripe_double.webhooks import sign
from stripe_integrations import observability
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.config import API_VERSION
from stripe_integrations.context import use
from stripe_integrations.errors import InvocationFailedError
from stripe_integrations.models import Event, Pointer, event_queue
from stripe_integrations.observability import Metric
from tests.world import WEBHOOK_SECRET, World
from tools.lambda_events import api_event, lambda_context

Json = dict[str, Any]


def measured(world: World) -> dict[Metric, float]:
    """What was counted since the last call."""
    sums: Counter[Metric] = Counter()
    for metric, value in world.measured:
        sums[metric] += value  # type: ignore[assignment]
    world.measured.clear()
    return {metric: value for metric, value in sums.items() if metric is not Metric.STRIPE_LATENCY}


def lines(log: io.StringIO) -> list[Json]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_create_that_made_a_customer_is_told_from_one_that_found_it(world: World) -> None:
    world.create()
    assert measured(world) == {Metric.CUSTOMERS_CREATED: 1}
    world.create()
    assert measured(world) == {Metric.CUSTOMERS_RETURNED: 1}


def test_each_event_is_counted_as_it_comes_and_as_it_ends(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.time += 100
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    measured(world)

    world.deliver()
    assert measured(world) == {Metric.EVENTS_RECEIVED: 2}
    world.stream()
    assert measured(world) == {Metric.EVENTS_APPLIED: 2}


def test_a_repeat_is_received_and_nothing_else(world: World) -> None:
    payload = {**world_event(world, "price.created"), "livemode": True}
    StripeEvent.receive(payload)
    assert measured(world) == {Metric.EVENTS_RECEIVED: 1, Metric.EVENTS_IGNORED: 1}
    StripeEvent.receive(payload)
    assert measured(world) == {Metric.EVENTS_RECEIVED: 1}


def test_an_older_event_is_counted_as_stale(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.settle()
    world.time += 100
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    world.time += 100
    world.sync()
    measured(world)
    world.settle()
    assert measured(world) == {
        Metric.EVENTS_RECEIVED: 1,
        Metric.EVENTS_IGNORED: 1,
        Metric.STALE_EVENTS_DROPPED: 1,
    }


def test_a_tie_is_counted_where_stripe_is_asked(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    world.deliver()
    measured(world)
    world.stream()
    assert measured(world)[Metric.AMBIGUOUS_EVENTS_REFETCHED] == 1


def test_an_event_in_another_api_version_is_counted(world: World) -> None:
    payload = event_of_an_unknown_customer(world)
    StripeEvent.receive({**payload, "api_version": "2020-01-01"})
    assert measured(world) == {Metric.EVENTS_RECEIVED: 1, Metric.API_VERSION_MISMATCHES: 1}


def test_a_refused_signature_is_counted(world: World) -> None:
    body = json.dumps(world_event(world, "price.created")).encode()
    for header in ("", "t=1,v1=00", sign(body, "whsec_forged", world.time)):
        assert world.webhook(body, {"stripe-signature": header})["statusCode"] == 400
    assert measured(world) == {Metric.SIGNATURES_REFUSED: 3}
    assert world.webhook(b"{}", {"stripe-signature": sign(b"{}", WEBHOOK_SECRET, world.time)})
    assert measured(world) == {}


@pytest.mark.many_calls
def test_what_is_put_off_and_what_has_failed_are_counted(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.settle()
    measured(world)
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    world.deliver()
    measured(world)
    world.stripe.faults.fail_next(None, status=500)
    world.stream()
    assert measured(world)[Metric.EVENT_RETRIES_SCHEDULED] == 1
    tries = 0
    while not world.dead_letters:
        tries += 1
        assert tries < 100
        world.time += 8000
        world.reconcile()
    assert measured(world)[Metric.EVENTS_DEAD_LETTERED] == 1


def test_what_never_arrived_and_the_age_of_the_sweep_are_measured(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.reconcile()
    world.settle()
    world.stripe.webhooks.drop_next(1)
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    world.time += 300
    measured(world)
    world.reconcile()
    sums = measured(world)
    assert (sums[Metric.EVENTS_RECOVERED], sums[Metric.SWEEP_AGE]) == (1, 300)

    world.stripe.faults.fail_next(None, status=500)
    world.time += 1800
    world.reconcile()
    assert measured(world)[Metric.SWEEP_AGE] >= 1800


def test_the_age_of_the_oldest_unfinished_event_is_measured(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.settle()
    world.reconcile()
    assert measured(world)[Metric.OLDEST_UNFINISHED_EVENT_AGE] == 0
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    world.deliver()
    world.time += 7000
    world.stripe.faults.fail_next(None, status=500)
    world.reconcile()
    assert measured(world)[Metric.OLDEST_UNFINISHED_EVENT_AGE] >= 7000


def test_an_event_that_waits_for_an_unknown_customer_is_not_unfinished_business(
    world: World,
) -> None:
    payload = event_of_an_unknown_customer(world)
    assert StripeEvent.receive(payload).state == "waiting"
    world.time += 7000
    measured(world)
    world.reconcile()
    assert measured(world)[Metric.OLDEST_UNFINISHED_EVENT_AGE] == 0


def test_an_event_whose_customer_is_known_and_whose_tries_fail_is_unfinished(world: World) -> None:
    payload = event_of_an_unknown_customer(world)
    StripeEvent.receive(payload)
    assert world.event_states() == {"customer.updated": "waiting"}
    Pointer.to("cus_unknown", "u-1").save()
    for _ in range(30):
        world.time += 7300
        world.reconcile()
    measured(world)
    world.reconcile()
    assert world.event_states() == {"customer.updated": "pending"}
    assert measured(world)[Metric.OLDEST_UNFINISHED_EVENT_AGE] > 30 * 7000


def test_taking_stock_costs_one_page_a_queue(world: World) -> None:
    begin(world)
    with world.counting() as counts:
        event_queue.oldest_pending_seconds()
    assert counts.operations == ["Query"] * 8
    assert {body["Limit"] for body in counts.bodies} == {1000}


def test_a_replayed_event_is_as_old_as_its_replay(world: World) -> None:
    world.create()
    world.settle()
    world.time += 5 * 86_400
    (stored,) = world.items(record_type="Event")
    Event.requeue(stored["stripe_id"])
    assert event_queue.oldest_pending_seconds() == 0
    world.time += 60
    assert event_queue.oldest_pending_seconds() == 60


def test_stripe_is_timed_and_its_429s_are_counted(world: World) -> None:
    world.create()
    world.measured.clear()
    world.stripe.faults.fail_next(1, status=429)
    world.sync()
    latencies = [value for metric, value in world.measured if metric is Metric.STRIPE_LATENCY]
    assert len(latencies) == 4
    assert measured(world)[Metric.STRIPE_RATE_LIMITED] == 1


def test_nothing_is_measured_outside_of_an_invocation(world: World, log: io.StringIO) -> None:
    StripeCustomer.create(User("u-1"), "jane@example.com")
    assert world.measured == []
    assert log.getvalue() == ""


def test_metrics_are_printed_once_at_the_end_of_an_invocation(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = EphemeralMetrics(namespace=observability.NAMESPACE, service="stack")
    monkeypatch.setattr(observability, "_metrics", metrics)
    context = world.new_context()
    context.measure = observability.measure
    with use(context):
        world.create()
        world.get()
        world.stripe.faults.fail_next(None, status=500)
        world.create("u-2")
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first, second = (line for line in printed if "_aws" in line)
    (directive,) = first["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "StripeIntegrations"
    assert directive["Dimensions"] == [["service"]]
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == {
        "CustomersCreated": "Count",
        "StripeLatency": "Milliseconds",
    }
    assert (first["CustomersCreated"], first["service"]) == ([1], "stack")
    assert len(second["StripeLatency"]) >= 1


# ---- lines that can be followed


def test_a_request_is_followed_by_its_id_and_stripes(world: World, log: io.StringIO) -> None:
    body = json.dumps({"user_id": "u-1", "billing_email": "jane@example.com"})
    event = api_event("POST", "/customers", body=body)
    event["requestContext"]["requestId"] = "api-1"
    world.call(create_customer, event)
    asked, answered = lines(log)
    assert [line["correlation_id"] for line in (asked, answered)] == ["api-1", "api-1"]
    assert asked["message"] == "called Stripe"
    assert asked["stripe_request_id"].startswith("req_")
    assert asked["stripe_status"] == 200
    assert answered["status"] == 201


def test_a_call_that_stripe_refused_is_told_with_its_id(world: World, log: io.StringIO) -> None:
    world.create()
    log.truncate(log.seek(0))
    world.stripe.faults.fail_next(1, status=403)
    world.sync()
    asked, refused = lines(log)
    assert asked["stripe_status"] == 403
    assert asked["stripe_request_id"] == refused["stripe_request_id"]


def test_an_event_is_followed_by_its_id_from_the_webhook_to_its_end(
    world: World, log: io.StringIO
) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    log.truncate(log.seek(0))
    world.settle()
    (updated,) = world.items(record_type="Event", kind="customer.updated")
    of_it = [line for line in lines(log) if updated["stripe_id"] in line.get("stripe_event_id", "")]
    assert [line["message"] for line in of_it] == [
        "answered",
        "called Stripe",
        "called Stripe",
        "called Stripe",
        "event ended",
    ]
    assert of_it[-1]["state"] == "applied"
    assert of_it[-1]["stripe_customer_id"] == stripe_id


def test_one_invocations_ids_are_not_the_nexts(world: World, log: io.StringIO) -> None:
    world.create()
    world.settle()
    log.truncate(log.seek(0))
    world.get()
    (answered,) = lines(log)
    assert "stripe_event_id" not in answered


def test_what_a_handler_adds_to_the_lines_ends_with_the_invocation(
    world: World, log: io.StringIO
) -> None:
    world.create()
    observability.logger.append_keys(customer_email="jane@example.com")
    log.truncate(log.seek(0))
    world.get()
    assert "jane" not in log.getvalue()


# ---- failures that are nobody's but ours


def test_an_unexpected_failure_leaves_a_function_by_its_kind_alone(
    world: World, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("jane@example.com")

    monkeypatch.setattr("stripe_integrations.actions.StripeEvent.replay", broken)
    with pytest.raises(InvocationFailedError, match=r"^KeyError$") as raised:
        replay_events.handler({"event_id": "evt_1"}, lambda_context())
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    (failed,) = lines(log)
    assert (failed["error"], "jane" in log.getvalue()) == ("KeyError", False)


def begin(world: World) -> None:
    """Let what follows happen in an invocation."""
    world.context.begin_invocation(60_000)


def world_event(world: World, kind: str) -> Json:
    begin(world)
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": API_VERSION,
        "created": int(world.time),
        "data": {"object": {"id": "x_1", "object": "x"}},
        "livemode": False,
        "type": kind,
    }


def event_of_an_unknown_customer(world: World) -> Json:
    unknown = {"object": {"object": "customer", "id": "cus_unknown"}}
    return {**world_event(world, "customer.updated"), "data": unknown}


def test_every_metric_has_a_title_of_its_own() -> None:
    assert len({metric.title for metric in Metric}) == len(Metric)
