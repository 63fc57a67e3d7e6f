"""Races, crashes and reordered events on DynamoDB Local, with real processes that are killed.

Each process imports the product and invokes its functions as AWS does; they share a table and a
Stripe double behind HTTP. Their clocks are advanced, so that no test sleeps.

    make test-dynamodb-local SEEDS=20    # with twenty random seeds; two by default
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from local.background import repeated
from local.stripe_double import StripeDouble, StripeDoubleServer
from stripe_integrations.config import API_VERSION
from tests.dynamodb_local.deployment import (
    API_KEY,
    TABLE,
    UNFINISHED,
    Deployment,
    client,
    new_process,
)
from tests.dynamodb_local.processes import Process
from tests.engines import ENDPOINT
from tests.local.stripe_history import StripeHistory, shown
from tools import dynamodb_local, engine
from tools.template import table_properties

Json = dict[str, Any]

SEEDS = range(int(os.environ.get("SEEDS") or 2))
CREATE = "POST /v1/customers"
MOST_DEATHS = 60
OLDER_VERSION = "2025-03-31.basil"
VERSIONS = (API_VERSION, OLDER_VERSION)
TIMES = ("before", "after")


def assert_each_event_ended_once(deployment: Deployment, *, ignored_type: str = "-") -> None:
    """Check that every event has ended exactly once, except those of an `ignored_type`."""
    expected = {e["id"] for e in deployment.events() if not e["type"].startswith(ignored_type)}
    changes = [c for c in deployment.changes() if c[1].get("record_type") == "Event"]
    ends = Counter(new["stripe_id"] for _, new in changes if new["state"] not in UNFINISHED)
    assert ends == dict.fromkeys(expected, 1)
    assert set(deployment.states().values()) <= {"applied", "ignored"}


def assert_matches_stripe(
    deployment: Deployment, history: StripeHistory, customers: Iterable[str]
) -> None:
    items = deployment.items()
    for customer in customers:
        assert shown(items, customer) == history.has(customer)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ExitStack() as stack:
        try:
            yield os.environ.get(ENDPOINT) or stack.enter_context(dynamodb_local.serve())
        except engine.NotRunError as why:
            pytest.skip(f"NOT RUN: {why}")


@pytest.fixture(scope="module")
def processes(endpoint: str) -> Iterator[list[Process]]:
    running = [new_process(endpoint) for _ in range(8)]
    yield running
    for process in running:
        process.end()


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    return chosen


@pytest.fixture
def random(seed: int) -> Random:
    return Random(seed)


@pytest.fixture
def deployment(endpoint: str, processes: list[Process], seed: int) -> Iterator[Deployment]:
    """An empty table and an empty Stripe."""
    dynamodb = client(endpoint, "dynamodb")
    recorded = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    dynamodb.create_table(TableName=TABLE, StreamSpecification=recorded, **table_properties())
    double = StripeDouble(random=Random(seed))
    double.api_keys = {API_KEY}
    try:
        with StripeDoubleServer(double) as server:
            yield Deployment(endpoint, server, processes)
    finally:
        dynamodb.delete_table(TableName=TABLE)
    assert double.bugs == []


def test_eight_concurrent_creates_make_one_customer(deployment: Deployment, random: Random) -> None:
    commands = [deployment.create_command("u-1", ahead=random.uniform(-2, 2)) for _ in range(8)]

    responses = deployment.at_once(commands)

    statuses = Counter(response["statusCode"] for response in responses)
    assert statuses == {201: 1, 200: 7}
    (made,) = deployment.on_stripe("u-1")
    assert {json.loads(response["body"])["stripe_id"] for response in responses} == {made}
    assert deployment.active("u-1") == [made]


@pytest.mark.parametrize("death", ["in call to Stripe", "before writing", "after writing"])
def test_killed_create_is_completed_by_another(
    deployment: Deployment, random: Random, death: str
) -> None:
    deployment.invoke(deployment.create_command("u-0"))  # the table has the deployment's name now
    if death == "in call to Stripe":
        deployment.stripe.double.faults.kill_client_after(1, match=CREATE, responds=False)
    # The first request to DynamoDB reads it, the second is the claim, the third makes the record.
    die = {"before writing": ["before", 3], "after writing": ["after", 3]}.get(death)
    assert deployment.invoke(deployment.create_command("u-1", die=die)) is None
    (made,) = deployment.on_stripe("u-1")

    deployment.ahead += 10  # the claim is too old for others to wait for its owner
    responses = deployment.at_once([deployment.create_command("u-1") for _ in range(6)], random)

    assert {response["statusCode"] for response in responses} <= {200, 201}
    assert {json.loads(response["body"])["stripe_id"] for response in responses} == {made}
    assert deployment.on_stripe("u-1") == [made]
    assert deployment.active("u-1") == [made]


def test_events_applied_by_six_processes_end_once_and_match_stripe(
    deployment: Deployment, random: Random
) -> None:
    deployment.behind = 300
    customers = [deployment.create(f"u-{number}") for number in range(3)]
    history = deployment.history(random)
    deployment.change(history, customers, random, 30)
    make_stripe_slow(deployment, random)

    for _ in range(2):
        with change_meanwhile(deployment, history, customers[:2], random):
            deliver_to_six(deployment, random)
    with deployment.stripe.use():
        history.delete(customers[2])
    deliver_to_six(deployment, random)
    deployment.finish_events()

    assert_each_event_ended_once(deployment)
    assert_matches_stripe(deployment, history, customers)


@pytest.mark.parametrize("has_bus", [False, True])
def test_events_are_recovered_after_process_is_killed_at_any_request(
    deployment: Deployment, random: Random, tmp_path: Path, has_bus: bool
) -> None:
    bus = tmp_path / "bus"
    if has_bus:  # with a bus, the mark is written after the effect
        deployment.settings = {"event_bus_name": str(bus)}
    customer = deployment.create("u-1")
    history = deployment.history(random)

    for n in range(1, MOST_DEATHS):
        events = more_events(deployment, history, customer)
        deployment.receive(events)
        response = deployment.invoke(
            deployment.stream_command(events, die=[random.choice(TIMES), n])
        )
        deployment.finish_events()
        assert_matches_stripe(deployment, history, [customer])
        if response is not None:
            break

    assert response == {"batchItemFailures": []}
    assert n > 3, "at least the reads of the events and of the customer, and a write"
    deliver_missing_events(deployment)
    assert_each_event_ended_once(deployment)
    if has_bus:
        published = {json.loads(line)["event_id"] for line in bus.read_text().splitlines()}
        assert published >= applied(deployment)


def test_events_are_recovered_after_process_is_killed_during_stripe_call(
    deployment: Deployment, random: Random
) -> None:
    customer = deployment.create("u-1")
    history = deployment.history(random)
    calls = [
        f"GET /v1/customers/{customer}",
        f"GET /v1/customers/{customer}/payment_methods",
        "GET /v1/subscriptions",
    ]

    for call in calls:
        events = more_events(deployment, history, customer)
        # In an older version of Stripe's API: the customer has to be fetched.
        deployment.receive({**event, "api_version": OLDER_VERSION} for event in events)
        deployment.stripe.double.faults.kill_client_after(1, match=call, responds=False)
        assert deployment.invoke(deployment.stream_command(events)) is None
        assert deployment.unfinished()
        deployment.finish_events()
        assert_matches_stripe(deployment, history, [customer])

    deliver_missing_events(deployment)
    assert_each_event_ended_once(deployment)


def test_killed_reconciliation_is_resumed(deployment: Deployment, random: Random) -> None:
    customers = [deployment.create(f"u-{number}") for number in range(2)]
    assert deployment.reconcile() is not None  # the sweep begins now
    history = deployment.history(random)
    for _ in range(12):  # none of these is ever delivered
        history.change(random.choice(customers))

    for n in range(1, MOST_DEATHS):
        response = deployment.reconcile(die=[random.choice(TIMES), n])
        if response is not None:
            break

    assert response is not None
    deployment.finish_events()
    # The sweep does not list invoices.
    assert_each_event_ended_once(deployment, ignored_type="invoice.")
    assert_matches_stripe(deployment, history, customers)


@pytest.mark.parametrize("round_", range(3))
def test_record_soft_deleted_during_applies_does_not_change(
    deployment: Deployment, random: Random, round_: int
) -> None:
    deployment.behind = 60
    customer = deployment.create("u-1")
    history = deployment.history(random)
    deployment.change(history, [customer], random, 16)
    events = deployment.events()
    # In an older version of Stripe's API: it has to be fetched, and is slow to respond.
    deployment.receive({**event, "api_version": random.choice(VERSIONS)} for event in events)
    random.shuffle(events)
    parts = [events[first::5] for first in range(5)]
    make_stripe_slow(deployment, random)

    deleted, *_ = deployment.at_once(
        [deployment.soft_delete_command("u-1"), *map(deployment.stream_command, parts)], random
    )
    assert deleted["statusCode"] == 204, deleted
    deployment.finish_events()
    (purged,) = [item for item in deployment.items() if item["sk"] == f"CUSTOMER#{customer}"]
    for _ in range(5):
        history.change(customer)
    deployment.receive(deployment.events())
    deployment.finish_events()

    assert deployment.active("u-1") == []
    assert_unchanged_since_soft_delete(deployment, customer, purged)
    assert_each_event_ended_once(deployment)
    assert deployment.create("u-1") != customer
    assert_unchanged_since_soft_delete(deployment, customer, purged)


def make_stripe_slow(deployment: Deployment, random: Random) -> None:
    """Delay some of its responses, so that they may be outdated when they arrive."""
    for _ in range(40):
        seconds = random.choice((0.0, 0.0, 0.05, 0.15))
        deployment.stripe.double.faults.delay(seconds, match="GET *")


@contextmanager
def change_meanwhile(
    deployment: Deployment, history: StripeHistory, customers: list[str], random: Random
) -> Iterator[None]:
    """Change customers on Stripe during the block."""
    own = Random(random.random())

    def change() -> None:
        with deployment.stripe.use():
            history.change(own.choice(customers))

    with repeated(change, (own.uniform(0, 0.2) for _ in range(8))):
        yield


def deliver_to_six(deployment: Deployment, random: Random) -> None:
    """Let each of six processes receive and apply all new events, each in another order."""
    known = deployment.states()
    new = [event for event in deployment.events() if event["id"] not in known]

    def deliver(process: Process, disorder: Random) -> None:
        mine = [*new, *disorder.choices(deployment.events(), k=len(new) // 4)]
        disorder.shuffle(mine)
        for first in range(0, len(mine), 10):
            batch = mine[first : first + 10]
            for event in batch:
                process.send(deployment.webhook_command(event))
                assert process.receive_response()["statusCode"] == 200
            process.send(deployment.stream_command(batch))
            assert process.receive_response() == {"batchItemFailures": []}

    with ThreadPoolExecutor(6) as threads:
        orders = [Random(random.random()) for _ in range(6)]
        list(threads.map(deliver, deployment.live_processes(6), orders))


def more_events(deployment: Deployment, history: StripeHistory, customer: str) -> list[Json]:
    """Change a customer several times at once: its events are ambiguous and need a fetch."""
    before = deployment.event_ids()
    while len(deployment.event_ids() - before) < 3:
        with deployment.stripe.use():
            history.change(customer)
    return [event for event in deployment.events() if event["id"] not in before]


def deliver_missing_events(deployment: Deployment) -> None:
    """Deliver the events that have not been received yet, and apply all."""
    missing = deployment.event_ids() - deployment.states().keys()
    deployment.receive(event for event in deployment.events() if event["id"] in missing)
    deployment.finish_events()


def applied(deployment: Deployment) -> set[str]:
    """The events that were applied."""
    return {event for event, state in deployment.states().items() if state == "applied"}


def assert_unchanged_since_soft_delete(deployment: Deployment, customer: str, purged: Json) -> None:
    keys = [
        new["is_active"] if new["sk"] == f"CUSTOMER#{customer}" else new["sk"]
        for _, new in deployment.changes()
        if new.get("sk", "").startswith(f"CUSTOMER#{customer}")
    ]
    assert keys.count(False) == 1
    assert keys[-1] is False, "something under it was written after the soft delete"
    assert [i for i in deployment.items() if i["sk"] == f"CUSTOMER#{customer}"] == [purged]
