"""What operations cost with more customers, or with more events of one customer; and a burst.

Calls and units are counted, and the processor time is the product's alone, without the database.
The burst runs in virtual time, with the simulation's event source mapping and its latencies. The
program prints one result as JSON::

    python -m benchmarks.growth --customers 10000
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.cost import add_customer, next_event
from benchmarks.stage import USER, Stage
from local.stripe_double.client import StripeDoubleClient
from simulation.aws import SimulatedDatabase
from simulation.database import Database
from simulation.database.transport import responding
from simulation.deployment import TABLE_NAME, mapping_rules, table_definition
from simulation.faults import FaultProfile, Faults
from simulation.mapping import StreamMapping
from simulation.processes import Fleet, Outcome, sleep
from simulation.runtime import client
from simulation.schedule import Schedule
from stripe_integrations.adapters.stripe_gateway import READ_SECONDS

Json = dict[str, Any]

_REPETITIONS = 15
_EVENTS_PER_CUSTOMER = 10
_OPERATIONS = ("get", "receive", "apply")


def main() -> None:
    """Print the result of one measurement."""
    parser = argparse.ArgumentParser()
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--customers", type=int, help="of the table")
    which.add_argument("--events", type=int, help="of one customer")
    which.add_argument("--burst", type=int, help="events that are stored at one moment")
    options = parser.parse_args()
    if options.burst:
        result = burst(options.burst)
    elif options.events:
        result = with_events(options.events)
    else:
        result = with_customers(options.customers)
    print(json.dumps(result))


def with_customers(number: int) -> Json:
    """Return what the operations use in a table with so many further customers."""
    with Stage().running() as stage:
        ids = add_customer(stage, USER)
        _load(stage, _copies(stage, USER, _is_of_user, number))
        return _use(stage, *ids)


def with_events(number: int) -> Json:
    """Return what the operations use for a customer that has so many further events."""
    with Stage().running() as stage:
        ids = add_customer(stage, USER)
        payload = next_event(stage, "customer.updated", *ids)
        stage.receive(payload)
        stage.stream()
        _load(stage, _copies(stage, payload["id"], _is_event, number))
        return _use(stage, *ids)


def _load(stage: Stage, items: Iterator[Json]) -> None:
    """Store items, and let Python's garbage collector leave them out."""
    stage.database.load(TABLE_NAME, items)
    gc.collect()
    gc.freeze()


def _is_event(item: Json) -> bool:
    return bool(item["sk"]["S"] == "EVENT")


def _is_of_user(item: Json) -> bool:
    return not _is_event(item)


def _copies(
    stage: Stage, name: str, is_copied: Callable[[Json], bool], number: int
) -> Iterator[Json]:
    """Yield copies of the items that name a user or an event, each with another name.

    Values that don't have the name are shared: a million customers take a few gigabytes.
    """
    stored = stage.database.items(TABLE_NAME)
    items = [item for item in stored if name in json.dumps(item) and is_copied(item)]
    for copy in range(number):
        for item in items:
            yield {
                key: json.loads(json.dumps(value).replace(name, f"{name}-{copy}"))
                if name in json.dumps(value)
                else value
                for key, value in item.items()
            }


def _use(stage: Stage, customer: str, subscription: str) -> Json:
    """What `get`, the webhook and `apply` use; the processor time is the median of a few calls."""
    stage.new_records()
    used: dict[str, list[Json]] = {operation: [] for operation in _OPERATIONS}
    for _ in range(_REPETITIONS):
        payload = next_event(stage, "customer.updated", customer, subscription)
        for operation, run in (
            ("get", stage.get),
            ("receive", lambda: stage.receive(payload)),  # noqa: B023 - is called at once
            ("apply", stage.stream),
        ):
            used[operation].append(_measured(stage, run))
    return {
        operation: {
            **{name: each[-1][name] for name in ("database_calls", "write_units", "read_units")},
            "cpu_ms": round(median(one["cpu_ms"] for one in each), 3),
        }
        for operation, each in used.items()
    }


def _measured(stage: Stage, run: Callable[[], None]) -> Json:
    before, began, engine = stage.used.copy(), time.process_time(), stage.engine_seconds
    run()
    seconds = time.process_time() - began - (stage.engine_seconds - engine)
    return {**stage.used.since(before).as_json(), "cpu_ms": seconds * 1000}


# ---- a burst


class _Tail(Sequence[Json]):
    """What is appended to a list after this is made."""

    def __init__(self, entries: Sequence[Json]) -> None:
        self._entries, self._start = entries, len(entries)

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def __getitem__(self, index: Any) -> Any:
        return self._entries[self._start + index]


def burst(number: int) -> Json:
    """Store events at one moment; returns how long the stream takes until all are applied.

    They are changes of a tenth as many customers, in their order, without cards or subscriptions.
    """
    with Stage().running() as stage:
        users = [f"user-{n}" for n in range(number // _EVENTS_PER_CUSTOMER)]
        ids = [stage.create(user)["stripe_id"] for user in users]
        stage.deliver()
        stage.time += 60.0
        payloads = [next_event(stage, "customer.updated", each, "") for each in ids]
        stage.time += _EVENTS_PER_CUSTOMER
        for turn in range(_EVENTS_PER_CUSTOMER):
            for payload in payloads:
                stage.receive(_later(payload, turn))
        items = list(stage.database.items(TABLE_NAME))
        return _Burst(stage).run(items)


def _later(payload: Json, turn: int) -> Json:
    """A later event of the same customer."""
    event: Json = json.loads(json.dumps(payload))
    event["id"] += f"x{turn}"
    event["created"] += turn
    event["data"]["object"]["name"] = f"Name {turn}"
    return event


class _Burst:
    """The functions of a stage in virtual time, with another table and its stream."""

    def __init__(self, stage: Stage) -> None:
        self._schedule = Schedule(stage.time)
        self._stage = stage
        self._database = Database(clock=lambda: self._schedule.now)
        self._database.request("CreateTable", table_definition())
        self._fleet = Fleet(
            seed=1,
            schedule=self._schedule,
            settings=stage.context.settings,
            faults=Faults(1, FaultProfile()),
            make_http_client=lambda: StripeDoubleClient(stage, sleep, READ_SECONDS),
        )

    def run(self, items: list[Json]) -> Json:
        """Store the items, the pending events last, and let the stream apply these."""
        pending = [item for item in items if _state(item) == "pending"]
        self._database.load(TABLE_NAME, (item for item in items if _state(item) != "pending"))
        shards = [_Tail(shard) for shard in self._database.stream(TABLE_NAME).shards]
        self._mapping = StreamMapping(
            schedule=self._schedule,
            shards=shards,
            rules=mapping_rules(),
            invoke=self._invoke,
            on_failure=lambda _: None,
        )
        self._database.load(TABLE_NAME, pending)
        side = SimulatedDatabase(self._database, self._fleet, self._mapping.poll, lambda *_: None)
        began, stripe_calls = self._schedule.now, self._stage.used.stripe_calls
        with responding(client(), side.respond):
            self._mapping.poll()
            self._schedule.run(lambda: not self._mapping.is_idle)
        seconds = self._schedule.now - began
        applied = [item for item in self._database.items(TABLE_NAME) if _state(item) == "applied"]
        before = sum(_state(item) == "applied" for item in items)
        if len(applied) - before != len(pending):
            raise RuntimeError(f"{len(applied) - before} of {len(pending)} events were applied")
        return {
            "events": len(pending),
            "seconds": round(seconds, 1),
            "events_per_second": round(len(pending) / seconds, 1),
            "invocations": self._fleet.counts["invocations of apply_event"],
            "calls": self._fleet.counts["calls"],
            "stripe_calls": int(self._stage.used.stripe_calls - stripe_calls),
        }

    def _invoke(self, records: list[Json], then: Callable[[Outcome], None]) -> None:
        def finished(outcome: Outcome) -> None:
            if outcome.error or outcome.died:
                raise RuntimeError(f"apply_event: {outcome}")
            then(outcome)
            self._mapping.poll()

        self._fleet.invoke("apply_event", {"Records": records}, "stream", finished)


def _state(item: Json) -> str | None:
    state: str | None = item.get("state", {}).get("S")
    return state if item["sk"]["S"] == "EVENT" else None


if __name__ == "__main__":
    main()
