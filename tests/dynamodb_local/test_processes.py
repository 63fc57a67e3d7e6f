"""Races, crashes and disorder on DynamoDB Local: real processes, killed for real.

Each process imports the product anew and invokes its functions as AWS does; they share a table and
a Stripe behind HTTP. Time is moved by their clocks, nobody waits for it.

    make test-dynamodb-local SEEDS=20    # chance decides anew, twenty times; twice by default
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

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


def assert_each_has_ended_once(deployment: Deployment, *, but: str = "-") -> None:
    """Every event has ended, once, and what has ended stays as it is; `but` a kind of event."""
    expected = {e["id"] for e in deployment.events() if not e["type"].startswith(but)}
    changes = [c for c in deployment.changes() if c[1].get("record_type") == "Event"]
    ends = Counter(new["stripe_id"] for _, new in changes if new["state"] not in UNFINISHED)
    assert ends == dict.fromkeys(expected, 1)
    assert set(deployment.states().values()) <= {"applied", "ignored"}


def assert_shows_what_stripe_has(
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


def test_eight_processes_that_create_one_user_at_once_make_one_customer(
    deployment: Deployment, random: Random
) -> None:
    commands = [deployment.creating("u-1", ahead=random.uniform(-2, 2)) for _ in range(8)]

    responses = deployment.at_once(commands)

    statuses = Counter(response["statusCode"] for response in responses)
    assert statuses == {201: 1, 200: 7}
    (made,) = deployment.on_stripe("u-1")
    assert {json.loads(response["body"])["stripe_id"] for response in responses} == {made}
    assert deployment.active("u-1") == [made]


@pytest.mark.parametrize("death", ["asking", "before writing", "after writing"])
def test_a_create_that_is_killed_is_taken_up_by_others(
    deployment: Deployment, random: Random, death: str
) -> None:
    deployment.invoke(deployment.creating("u-0"))  # the table has the deployment's name now
    if death == "asking":
        deployment.stripe.double.faults.kill_client_after(1, match=CREATE, responds=False)
    # The first request to DynamoDB reads it, the second is the claim, the third makes the record.
    die = {"before writing": ["before", 3], "after writing": ["after", 3]}.get(death)
    assert deployment.invoke(deployment.creating("u-1", die=die)) is None
    (made,) = deployment.on_stripe("u-1")

    deployment.ahead += 10  # the claim is not young any more: nobody waits for its owner
    responses = deployment.at_once([deployment.creating("u-1") for _ in range(6)], random)

    assert {response["statusCode"] for response in responses} <= {200, 201}
    assert {json.loads(response["body"])["stripe_id"] for response in responses} == {made}
    assert deployment.on_stripe("u-1") == [made]
    assert deployment.active("u-1") == [made]


def test_events_that_six_processes_apply_at_once_in_any_order_end_once_and_show_what_stripe_has(
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
    deployment.settle()

    assert_each_has_ended_once(deployment)
    assert_shows_what_stripe_has(deployment, history, customers)


@pytest.mark.parametrize("has_bus", [False, True])
def test_a_process_that_is_killed_anywhere_on_the_way_leaves_events_that_come_home(
    deployment: Deployment, random: Random, tmp_path: Path, has_bus: bool
) -> None:
    bus = tmp_path / "bus"
    if has_bus:  # the mark comes after the effect then, and not with it
        deployment.settings = {"event_bus_name": str(bus)}
    customer = deployment.create("u-1")
    history = deployment.history(random)

    for n in range(1, MOST_DEATHS):
        events = more_events(deployment, history, customer)
        deployment.receive(events)
        response = deployment.invoke(deployment.waking(events, die=[random.choice(TIMES), n]))
        deployment.settle()
        assert_shows_what_stripe_has(deployment, history, [customer])
        if response is not None:
            break

    assert response == {"batchItemFailures": []}
    assert n > len(events) + 2, "claims, a read and a write at the least"
    finish_creation_event(deployment)
    assert_each_has_ended_once(deployment)
    if has_bus:
        announced = {json.loads(line)["event_id"] for line in bus.read_text().splitlines()}
        assert announced >= applied(deployment)


def test_a_process_that_is_killed_while_it_asks_stripe_leaves_events_that_come_home(
    deployment: Deployment, random: Random
) -> None:
    customer = deployment.create("u-1")
    history = deployment.history(random)
    asked = [
        f"GET /v1/customers/{customer}",
        f"GET /v1/customers/{customer}/payment_methods",
        "GET /v1/subscriptions",
    ]

    for question in asked:
        events = more_events(deployment, history, customer)
        # In an older version of Stripe's API: Stripe has to be asked.
        deployment.receive({**event, "api_version": OLDER_VERSION} for event in events)
        deployment.stripe.double.faults.kill_client_after(1, match=question, responds=False)
        assert deployment.invoke(deployment.waking(events)) is None
        assert deployment.unfinished()
        deployment.settle()
        assert_shows_what_stripe_has(deployment, history, [customer])

    finish_creation_event(deployment)
    assert_each_has_ended_once(deployment)


def test_a_reconciliation_that_is_killed_anywhere_is_gone_on_with(
    deployment: Deployment, random: Random
) -> None:
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
    deployment.settle()
    assert_each_has_ended_once(deployment, but="invoice.")  # Stripe isn't asked for what is no news
    assert_shows_what_stripe_has(deployment, history, customers)


@pytest.mark.parametrize("round_", range(3))
def test_a_record_that_is_soft_deleted_beside_applies_stays_as_it_was(
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
        [deployment.soft_deleting("u-1"), *map(deployment.waking, parts)], random
    )
    assert deleted["statusCode"] == 204, deleted
    deployment.settle()
    (purged,) = [item for item in deployment.items() if item["sk"] == f"CUSTOMER#{customer}"]
    for _ in range(5):
        history.change(customer)
    deployment.receive(deployment.events())
    deployment.settle()

    assert deployment.active("u-1") == []
    assert_untouched_since_its_soft_delete(deployment, customer, purged)
    assert_each_has_ended_once(deployment)
    assert deployment.create("u-1") != customer
    assert_untouched_since_its_soft_delete(deployment, customer, purged)


def make_stripe_slow(deployment: Deployment, random: Random) -> None:
    """Let some of its responses come late: what they show may be the past by then."""
    for _ in range(40):
        seconds = random.choice((0.0, 0.0, 0.05, 0.15))
        deployment.stripe.double.faults.delay(seconds, match="GET *")


@contextmanager
def change_meanwhile(
    deployment: Deployment, history: StripeHistory, customers: list[str], random: Random
) -> Iterator[None]:
    """Let more happen on Stripe during the block."""
    ended = threading.Event()
    own = Random(random.random())

    def change() -> None:
        for _ in range(8):
            if ended.wait(own.uniform(0, 0.2)):
                return
            with deployment.stripe.use():
                history.change(own.choice(customers))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def deliver_to_six(deployment: Deployment, random: Random) -> None:
    """Let each of six processes receive and apply all events there are, in an order of its own."""
    known = deployment.states()
    new = [event for event in deployment.events() if event["id"] not in known]

    def deliver(process: Process, disorder: Random) -> None:
        mine = [*new, *disorder.choices(deployment.events(), k=len(new) // 4)]
        disorder.shuffle(mine)
        for first in range(0, len(mine), 10):
            batch = mine[first : first + 10]
            for event in batch:
                process.tell(deployment.receiving(event))
                assert process.hear()["statusCode"] == 200
            process.tell(deployment.waking(batch))
            assert process.hear() == {"batchItemFailures": []}

    with ThreadPoolExecutor(6) as threads:
        orders = [Random(random.random()) for _ in range(6)]
        list(threads.map(deliver, deployment.living(6), orders))


def more_events(deployment: Deployment, history: StripeHistory, customer: str) -> list[Json]:
    """Several things happen at once to a customer: events that Stripe has to be asked about."""
    before = deployment.event_ids()
    while len(deployment.event_ids() - before) < 3:
        with deployment.stripe.use():
            history.change(customer)
    return [event for event in deployment.events() if event["id"] not in before]


def finish_creation_event(deployment: Deployment) -> None:
    """Let the events arrive that have not yet."""
    missing = deployment.event_ids() - deployment.states().keys()
    deployment.receive(event for event in deployment.events() if event["id"] in missing)
    deployment.settle()


def applied(deployment: Deployment) -> set[str]:
    """The events that were applied."""
    return {event for event, state in deployment.states().items() if state == "applied"}


def assert_untouched_since_its_soft_delete(
    deployment: Deployment, customer: str, purged: Json
) -> None:
    keys = [
        new["is_active"] if new["sk"] == f"CUSTOMER#{customer}" else new["sk"]
        for _, new in deployment.changes()
        if new.get("sk", "").startswith(f"CUSTOMER#{customer}")
    ]
    assert keys.count(False) == 1
    assert keys[-1] is False, "something under it was written after the soft delete"
    assert [i for i in deployment.items() if i["sk"] == f"CUSTOMER#{customer}"] == [purged]
