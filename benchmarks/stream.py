"""How fast the stream applies a burst of events, by batch size and ParallelizationFactor.

The functions run in virtual time, with the simulation's model of the event source mapping, its
in-process database and the Stripe double, which enforces Stripe's rate limits. All random numbers
are drawn from a seed and nothing is timed, so two runs of one commit have equal results. The
program prints them as JSON::

    python -m benchmarks.stream --bursts "few customers" --mappings 50/1 50/2
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from random import Random
from typing import Any

from benchmarks.stage import Stage
from local.stripe_double import RateLimits
from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.double import Response
from local.stripe_double.rate_limits import ENDPOINT_RATE, LIVE_RATE
from simulation.aws import SimulatedDatabase
from simulation.database import Database
from simulation.database.transport import responding
from simulation.deployment import TABLE_NAME, MappingRules, mapping_rules, table_definition
from simulation.faults import FaultProfile, Faults
from simulation.mapping import StreamMapping
from simulation.processes import Fleet, Outcome, sleep
from simulation.runtime import client
from simulation.schedule import Schedule
from simulation.timer import EVERY_SECONDS, Timer
from stripe_integrations.actions.events.side_effects import OLDER
from stripe_integrations.adapters.stripe_gateway import READ_SECONDS
from stripe_integrations.models import Event

Json = dict[str, Any]

MAPPINGS = (
    *("1/1", "10/1", "25/1", "50/1", "100/1"),
    *("10/2", "10/5", "10/10", "50/2", "50/5", "50/10"),
    *("50/1/1", "50/2/1"),
)
"""Batch size/ParallelizationFactor, or these/seconds of a batch window."""

SHARDS = 4
"""A new on-demand table takes 4,000 write units a second, and each of its partitions 1,000."""
DATABASE_SECONDS = (0.003, 0.012)
"""A request or a response; with the processor time of the function, 13 ms a call on average."""
STRIPE_SECONDS = (0.06, 0.25)
"""A request or a response: 266 ms a call on average."""
STAYS_WARM = 0.98

_SEED = 1
_MINUTE = 60.0
_SECONDS_APART = 20.0
_LONGEST_SECONDS = 3600.0
_SWEEP = "/v1/events"
_FETCHED = "/v1/customers/"


@dataclass(frozen=True)
class Burst:
    """Changes of customers whose events arrive within two seconds.

    Parameters
    ----------
    customers, events_per_customer : int
        How many there are.
    ambiguous : float
        The share of the customers whose events are created in one second, so that they are fetched.
        The events of the others are created 20 seconds apart.
    seconds_between : float
        The time from the events of one customer to those of the next.
    is_sign_up : bool
        Whether the changes are those of a `_SignUp`, and not names.
    """

    customers: int
    events_per_customer: int
    ambiguous: float
    seconds_between: float = 0.0
    is_sign_up: bool = False

    def created(self, drawn: float) -> list[float]:
        """When the events of a customer were created, in seconds since its first could arrive."""
        numbers = range(self.events_per_customer)
        if drawn < self.ambiguous:
            return [number / self.events_per_customer for number in numbers]
        return [-_SECONDS_APART * number for number in numbers]


BURSTS = {
    "many customers": Burst(customers=200, events_per_customer=2, ambiguous=0.2),
    "few customers": Burst(customers=40, events_per_customer=10, ambiguous=1),
    "one customer at a time": Burst(5, events_per_customer=10, ambiguous=1, seconds_between=30),
    "sign-ups": Burst(40, events_per_customer=5, ambiguous=1, is_sign_up=True),
}


def main() -> None:
    """Apply each burst with each mapping, and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--bursts", nargs="*", choices=BURSTS, default=list(BURSTS))
    parser.add_argument("--customers", type=int, help="of each burst, in place of the usual number")
    parser.add_argument("--mappings", nargs="*", default=MAPPINGS, help="see MAPPINGS")
    options = parser.parse_args()
    bursts = {name: BURSTS[name] for name in options.bursts}
    if options.customers:
        bursts = {name: replace(b, customers=options.customers) for name, b in bursts.items()}
    print(json.dumps({name: measure(burst, options.mappings) for name, burst in bursts.items()}))


def measure(burst: Burst, mappings: Sequence[str]) -> list[Json]:
    """Apply a burst with each mapping, and return the results."""
    with Stage().running() as stage:
        stored = _Stored(stage, burst)
        return [_Run(stored, _rules(mapping)).run() for mapping in mappings]


def _rules(mapping: str) -> MappingRules:
    """The mapping of the template with other numbers."""
    batch_size, factor, *window = map(int, mapping.split("/"))
    return replace(
        mapping_rules(),
        batch_size=batch_size,
        parallelization_factor=factor,
        batch_window=sum(window),
    )


class _Stored:
    """The items of customers, and the events of a burst with the times of their arrival."""

    def __init__(self, stage: Stage, burst: Burst) -> None:
        self.stage, random = stage, Random(_SEED)
        self.customers = [stage.create(f"user-{n}")["stripe_id"] for n in range(burst.customers)]
        stage.time = self.began = stage.time + 10 * _MINUTE
        arrivals = [
            (first + max(created, 0.0) + random.random(), payload)
            for first, created, payload in self._change(burst, random)
        ]
        arrivals.sort(key=itemgetter(0))
        for arrival, payload in arrivals:
            stage.time = self.began + arrival
            stage.receive(payload)
        items = list(stage.database.items(TABLE_NAME))
        pending = {_key(item): item for item in items if _state(item) == "pending"}
        self.items = [item for item in items if _state(item) != "pending"]
        self.arrivals = [
            (arrival, pending[Event.key(payload["id"])]) for arrival, payload in arrivals
        ]

    def _change(self, burst: Burst, random: Random) -> list[tuple[float, float, Json]]:
        """Change the customers on Stripe.

        Returns
        -------
        list of tuple
            When the first event of the customer could arrive, since the burst began; when this one
            was created, since then; and the event.
        """
        moments = [
            (number * burst.seconds_between, created, customer, step)
            for number, customer in enumerate(self.customers)
            for step, created in enumerate(burst.created(random.random()))
        ]
        sign_up = _SignUp(self.stage) if burst.is_sign_up else None
        payloads: list[tuple[float, float, Json]] = []
        for first, created, customer, step in sorted(moments, key=lambda each: each[0] + each[1]):
            self.stage.new_events()
            self.stage.time = self.began + first + created
            kind = "customer.updated"
            if sign_up:
                kind = sign_up.change(customer, step)
            else:
                self.stage.change(f"/v1/customers/{customer}", name=f"Name {len(payloads)}")
            (payload,) = self.stage.new_events(kind)
            payloads.append((first, created, payload))
        return payloads


class _SignUp:
    """What Stripe reports within a second of a sign-up: five events of three objects."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._methods: dict[str, str] = {}
        self._subscriptions: dict[str, str] = {}

    def change(self, customer: str, step: int) -> str:
        """Make one of the changes of a customer; returns the type of its event."""
        path = f"/v1/customers/{customer}"
        match step:
            case 0:
                self._methods[customer] = self._stage.attach_card(customer)
                return "payment_method.attached"
            case 1:
                default = {"default_payment_method": self._methods[customer]}
                self._stage.change(path, invoice_settings=default)
                return "customer.updated"
            case 2:
                self._subscriptions[customer] = self._stage.subscribe(customer)
                return "customer.subscription.created"
            case 3:
                subscription = f"/v1/subscriptions/{self._subscriptions[customer]}"
                self._stage.change(subscription, metadata={"order": "1"})
                return "customer.subscription.updated"
        self._stage.change(path, name=f"Name of {customer}")
        return "customer.updated"


class _Run:
    """A burst in virtual time, with a mapping, and a table and processes of its own."""

    def __init__(self, stored: _Stored, rules: MappingRules) -> None:
        self._stored, self._stage, self._rules = stored, stored.stage, rules
        self._schedule = Schedule(stored.began)
        self._stage.stripe.rate_limits = self._limits = RateLimits()
        self._limits.enforce(account=LIVE_RATE, endpoint=ENDPOINT_RATE)
        self._fleet = Fleet(
            seed=_SEED,
            schedule=self._schedule,
            settings=self._stage.context.settings,
            faults=Faults(_SEED, FaultProfile()),
            make_http_client=lambda: StripeDoubleClient(self, sleep, READ_SECONDS),
        )
        self._fleet.stays_warm = STAYS_WARM
        self._database = Database(clock=lambda: self._schedule.now)
        definition = dict(table_definition())
        view = definition.pop("StreamSpecification")["StreamViewType"]
        self._database.request("CreateTable", definition)
        self._database.load(TABLE_NAME, stored.items)
        self._stream = self._database.start_stream(TABLE_NAME, view, SHARDS)
        self._mapping = StreamMapping(
            schedule=self._schedule,
            shards=self._stream.shards,
            rules=rules,
            invoke=self._invoke,
            on_failure=_fail,
        )
        self._timer = Timer(self._schedule, _SEED, self._fleet, lambda: EVERY_SECONDS, _check)
        self._seen = 0
        self._ended: dict[str, float] = {}
        self._calls = 0
        self._fetches: Counter[str] = Counter()

    def run(self) -> Json:
        """Let the events arrive, and return what happened until the last is applied."""
        stored, schedule = self._stored, self._schedule
        for arrival, item in stored.arrivals:
            schedule.after(arrival, partial(self._store, item))
        # Earlier, the sweep would list events that have yet to arrive: the double has all of them.
        schedule.after(stored.arrivals[-1][0] + EVERY_SECONDS / 2, self._timer.run)
        database = SimulatedDatabase(
            self._database, self._fleet, self._read_stream, lambda *_: None, DATABASE_SECONDS
        )
        with responding(client(), database.respond):
            schedule.run(self._should_continue)
        self._check_customers()
        delays = sorted(
            self._ended[_key(item)] - stored.began - arrival for arrival, item in stored.arrivals
        )
        seconds = max(self._ended.values()) - stored.began
        return {
            "batch_size": self._rules.batch_size,
            "parallelization_factor": self._rules.parallelization_factor,
            "batch_window": self._rules.batch_window,
            "events": len(delays),
            "customers": len(stored.customers),
            "seconds": round(seconds, 1),
            "events_per_second": round(len(delays) / seconds, 1),
            "invocations": self._fleet.counts["invocations of apply_event"],
            "stripe_calls": self._calls,
            "refused": sum(self._limits.refused.values()),
            "fetches_per_customer": round(self._fetches.total() / len(stored.customers), 2),
            "most_fetches": max(self._fetches.values(), default=0),
            "delay_p50": round(_percentile(delays, 0.50), 2),
            "delay_p99": round(_percentile(delays, 0.99), 2),
        }

    def _should_continue(self) -> bool:
        if self._schedule.now > self._stored.began + _LONGEST_SECONDS:
            raise RuntimeError(f"only {len(self._ended)} events were applied")
        return len(self._ended) < len(self._stored.arrivals)

    def request(
        self, method: str, path: str, given: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Response:
        """Send a function's request to the Stripe double, and return the response, both delayed."""
        invocation = self._fleet.invocation()
        call = invocation.begin("stripe", f"{method} {path}", STRIPE_SECONDS)
        self._stage.time = self._schedule.now
        if path != _SWEEP:
            self._calls += 1
        if path.startswith(_FETCHED) and path.count("/") == _FETCHED.count("/"):
            self._fetches[path] += 1
        response = self._stage.request(method, path, given, headers)
        invocation.end(call)
        return response

    def _store(self, item: Json) -> None:
        self._database.load(TABLE_NAME, [item])
        self._read_stream()

    def _read_stream(self) -> None:
        records = self._stream.records
        for record in records[self._seen :]:
            item = record["dynamodb"].get("NewImage")
            if item and _state(item) not in ("pending", None):
                self._finish(item)
        self._seen = len(records)
        self._mapping.poll()

    def _finish(self, item: Json) -> None:
        if _state(item) != "applied" and item["reason"]["S"] != OLDER:
            raise RuntimeError(f"an event is {_state(item)}: {item['reason']}")
        self._ended.setdefault(_key(item), self._schedule.now)

    def _invoke(self, records: list[Json], then: Callable[[Outcome], None]) -> None:
        def finished(outcome: Outcome) -> None:
            _check(outcome)
            then(outcome)
            self._mapping.poll()

        self._fleet.invoke("apply_event", {"Records": records}, "stream", finished)

    def _check_customers(self) -> None:
        """Compare the stored customers with Stripe's.

        Raises
        ------
        RuntimeError
            One differs.
        """
        names = {
            item["stripe_id"]["S"]: item["name"]["S"]
            for item in self._database.items(TABLE_NAME)
            if item["record_type"]["S"] == "Customer"
        }
        on_stripe = self._stage.stripe.account.customers
        if names != {customer: on_stripe[customer]["name"] for customer in self._stored.customers}:
            raise RuntimeError("the stored customers differ from Stripe's")


def _percentile(values: Sequence[float], part: float) -> float:
    """The value that this part of sorted values does not exceed."""
    return values[math.ceil(len(values) * part) - 1]


def _key(item: Json) -> str:
    key: str = item["pk"]["S"]
    return key


def _state(item: Json) -> str | None:
    state: str | None = item.get("state", {}).get("S")
    return state if item["sk"]["S"] == "EVENT" else None


def _check(outcome: Outcome) -> None:
    if outcome.error or outcome.died:
        raise RuntimeError(f"an invocation failed: {outcome}")


def _fail(message: Json) -> None:
    raise RuntimeError(f"the stream has discarded records: {message}")


if __name__ == "__main__":
    main()
