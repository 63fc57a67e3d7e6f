"""A backfill and a verification of a large Stripe account, in virtual time.

``python -m simulation.large_account --customers 100000`` fills an account, lets the workers of a
backfill walk it, kills all of them at random times, and says how much of each budget they used, how
many calls they needed beyond those that paging alone needs, how much memory a worker held, and what
is stored at the end. With ``--changed 0.01`` a verification walks it afterwards, while one customer
in a hundred is changed, created or deleted on Stripe, and the events of that are delivered and
applied.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from random import Random
from statistics import median
from typing import Any

from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.filling import fill
from local.stripe_double.rate_limits import ENDPOINT_RATE, LIVE_RATE
from simulation.aws import SimulatedDatabase
from simulation.chance import chance
from simulation.database import Database, Response, written_units
from simulation.database.transport import responding
from simulation.deliveries import SECRET, URL, Deliveries
from simulation.deployment import TABLE_NAME, mapping_rules, table_definition
from simulation.faults import FaultProfile, Faults
from simulation.mapping import StreamMapping
from simulation.processes import Fleet, Outcome, sleep
from simulation.retained import retained_bytes
from simulation.runtime import client
from simulation.schedule import START, Schedule
from simulation.stripe_side import API_KEY, SimulatedStripe, StripeConnection
from simulation.timer import EVERY_SECONDS, Timer
from simulation.worker import WALK
from stripe_integrations.actions import StripeAccount
from stripe_integrations.actions.account.rate_limiter import Limits
from stripe_integrations.adapters.stripe_gateway import READ_SECONDS
from stripe_integrations.config import Settings, UnassignedCustomers
from stripe_integrations.context import Context, use
from stripe_integrations.models.event import Event
from stripe_integrations.models.run import PaymentMethodPolicy, RunKind
from stripe_integrations.models.sweep_cursor import SweepCursor

_PAGE = 100
_LISTS = ("/v1/customers", "/v1/subscriptions")
_RESTART_SECONDS = 5.0
_MINUTE = 60.0
_MEASURING_SECONDS = 10.0
_FIRST_KILL_SECONDS = 20.0
_CUSTOMER_UNITS = 4.0
"""What a transaction of a customer and its pointer takes at least."""
_CLOCK_SKEW_SECONDS = 0.1
"""The clocks of Lambda functions differ by much less."""
_CHANGING_SECONDS = 30.0
"""How long the account changes beside the time that the pages of a verification need."""


@dataclass
class Verification:
    """What a verification found while the account was changed.

    Parameters
    ----------
    changes : int
        How many customers were changed, created or deleted on Stripe meanwhile.
    events : dict
        Their events, by the state in which they ended.
    seconds : float
        Virtual time from its start to its end.
    calls : int
        Accepted calls of the verification, and of what applied the events meanwhile.
    differences : dict
        How many it found, by kind: none, if the product is right.
    results : dict
        Objects by what became of them.
    """

    changes: int
    events: dict[str, int]
    seconds: float
    calls: int
    differences: dict[str, int]
    results: dict[str, int]


@dataclass
class Result:
    """What a run needed, and what it has stored.

    Parameters
    ----------
    customers, subscriptions : int
        In the account.
    stored : dict
        Items of the table by type.
    results : dict
        Objects by what became of them.
    seconds : float
        Virtual time from the first page to the last.
    calls : dict
        Accepted calls to Stripe by endpoint.
    refused : int
        Calls that Stripe's rate limits refused.
    paging_calls : int
        Calls that the pages of both lists alone need.
    list_calls_ratio : float
        Calls for pages of both lists, refused ones included, as a multiple of these.
    write_units : float
        Of the table, as DynamoDB counts them; its indexes have their own.
    used : dict
        The share of each budget that was used.
    by_minute : list of float
        The share of a budget that was used in each minute: of the one that was used most.
    sustained : float
        The median of `by_minute`.
    kills : int
        How often all workers were killed.
    worker_kilobytes : int
        The most memory that a worker held at a time.
    megabytes : int
        The peak memory of the process, with the account and the table in it.
    verification : Verification or None
        What a verification found afterwards; None without one.
    """

    customers: int
    subscriptions: int
    stored: dict[str, int] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    paging_calls: int = 0
    list_calls_ratio: float = 0.0
    write_units: float = 0.0
    used: dict[str, float] = field(default_factory=dict)
    by_minute: list[float] = field(default_factory=list)
    sustained: float = 0.0
    kills: int = 0
    worker_kilobytes: int = 0
    megabytes: int = 0
    verification: Verification | None = None


class LargeAccount:
    """A filled account, an empty table, and the workers of a run.

    Parameters
    ----------
    customers, workers, kills : int
        How many there are.
    limits : Limits
        The budgets of the run.
    policy : PaymentMethodPolicy
        Whose payment methods are listed.
    changed : float
        Which part of the customers changes during the verification; 0 without one.
    seed : int
        Decides everything.
    """

    def __init__(
        self,
        customers: int,
        *,
        workers: int,
        kills: int,
        limits: Limits,
        policy: PaymentMethodPolicy,
        changed: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._workers, self._kills, self.seed, self.changed = workers, kills, seed, changed
        self.limits, self._policy = limits, policy
        self.schedule = Schedule()
        self.stripe = SimulatedStripe(seed, self.schedule, 0.0)
        fill(self.stripe.double, customers, seed=seed)
        # The garbage collector would look through the account again and again.
        gc.freeze()
        self.stripe.double.rate_limits.enforce(account=LIVE_RATE, endpoint=ENDPOINT_RATE)
        self._settings = Settings(
            table_name=TABLE_NAME,
            api_key=API_KEY,
            webhook_secret=SECRET,
            deployment_name="stripe-customers",
            unassigned_customers=UnassignedCustomers.STORE,
        )
        self.faults = Faults(seed, FaultProfile())
        self.fleet = Fleet(
            seed=seed,
            schedule=self.schedule,
            settings=self._settings,
            faults=self.faults,
            make_http_client=self._make_http_client,
            clock_skew=_CLOCK_SKEW_SECONDS,
        )
        database = Database(clock=lambda: self.schedule.now)
        definition = dict(table_definition())
        del definition["StreamSpecification"]
        database.request("CreateTable", definition)
        self.stream: StreamMapping | None = None
        self._database = SimulatedDatabase(database, self.fleet, self._read_stream, lambda *_: None)
        self.engine = database
        self._ended: set[str] = set()
        self._is_complete = False
        self._units = 0.0
        account = self.stripe.double.account
        self.result = Result(len(account.customers), len(account.subscriptions))
        pages = (self.result.customers, self.result.subscriptions)
        self.result.paging_calls = sum(math.ceil(number / _PAGE) for number in pages)

    def run(self) -> Result:
        """Run it to the end."""
        with responding(client(), self.engine.request), use(self.operator()):
            SweepCursor.read().start(["customer.created"])
            run_id = StripeAccount.start(self._policy).run_id
        self._plan_kills()
        self._count_minute(Counter(), 0.0)
        self._measure_workers(count())
        self.walk(run_id)
        self._is_complete = True
        self._complete(run_id)
        print(json.dumps(asdict(self.result)), file=sys.stderr, flush=True)
        if self.changed:
            self.result.verification = _Verifying(self).run()
        return self.result

    def _read_stream(self) -> None:
        if self.stream:
            self.stream.poll()

    def operator(self) -> Context:
        """The context of the process that starts the runs."""
        return Context(self._settings, clock=lambda: self.schedule.now)

    def walk(self, run_id: str) -> None:
        """Let the workers walk the run to its end."""
        self._ended.clear()
        with responding(client(), self._respond):
            for number in range(self._workers):
                self._work(run_id, str(number))
            self.schedule.run(lambda: len(self._ended) < self._workers)

    def _work(self, run_id: str, worker: str) -> None:
        event = {"run_id": run_id, "worker": worker, "limits": asdict(self.limits)}

        def then(outcome: Outcome) -> None:
            if outcome.error:
                raise outcome.error
            if outcome.response and outcome.response["is_done"]:
                self._ended.add(worker)
                return
            again = _RESTART_SECONDS if outcome.died else 0.0
            if outcome.response and outcome.response["next_check_at"]:
                again = max(outcome.response["next_check_at"] - self.schedule.now, 0.0)
            self.schedule.after(again, lambda: self._work(run_id, worker))

        self.fleet.invoke(WALK, event, f"worker {worker}", then)

    def _respond(self, operation: str, body: Any) -> Response:
        """Respond to a request, and count its write units: the writes of a run ask for them."""
        response = self._database.respond(operation, body)
        self._units += written_units(response.body)
        return response

    def _count_minute(self, before: Counter[str], units_before: float) -> None:
        """Note what was used of the budgets since the minute before, and in the next."""
        made, units = Counter(self.stripe.double.rate_limits.made), self._units
        if self.schedule.now > START and not self._is_complete:
            calls = made - before
            shares = self._shares_of(calls, units - units_before, _MINUTE)
            self.result.by_minute.append(round(max(shares.values()), 2))
            print(f"minute {len(self.result.by_minute)}: {shares}", file=sys.stderr)
        if not self._is_complete:
            self.schedule.after(_MINUTE, lambda: self._count_minute(made, units))

    def _shares_of(self, calls: Counter[str], units: float, seconds: float) -> dict[str, float]:
        """The share of each budget that calls and units are of, in some seconds."""
        limits = self.limits
        return {
            "endpoint": max(calls.values(), default=0) / (limits.endpoint_calls * seconds),
            "account": calls.total() / (limits.account_calls * seconds),
            "writes": units / (limits.write_units * seconds),
        }

    def _measure_workers(self, numbers: Iterator[int]) -> None:
        """Note how much memory a worker holds, of one after the other."""
        tasks = self.fleet.tasks()
        if tasks and not self._is_complete:
            held = retained_bytes(tasks[next(numbers) % len(tasks)]) // 1024
            self.result.worker_kilobytes = max(self.result.worker_kilobytes, held)
        if not self._is_complete:
            self.schedule.after(_MEASURING_SECONDS, lambda: self._measure_workers(numbers))

    def _plan_kills(self) -> None:
        """Kill all workers at random times of those in which they certainly work."""
        random = chance(self.seed, "kills")
        for _ in range(self._kills):
            moment = _FIRST_KILL_SECONDS + random.random() * self._shortest_seconds()
            self.schedule.at(START + moment, self._kill)

    def _shortest_seconds(self) -> float:
        """The time that the budgets leave a backfill at least."""
        account = self.stripe.double.account
        calls = self.result.paging_calls
        if self._policy is not PaymentMethodPolicy.NONE:
            calls = max(calls, len(account.payment_methods_of))
        units = _CUSTOMER_UNITS * self.result.customers
        return max(calls / self.limits.endpoint_calls, units / self.limits.write_units)

    def _kill(self) -> None:
        if self.fleet.is_busy():
            self.result.kills += 1
            self.fleet.end()

    def _make_http_client(self) -> StripeDoubleClient:
        connection = StripeConnection(self.stripe, lambda: self.fleet)
        return StripeDoubleClient(connection, sleep, READ_SECONDS)

    def _complete(self, run_id: str) -> None:
        result = self.result
        with responding(client(), self.engine.request), use(Context(self._settings)):
            progress = StripeAccount.progress(run_id)
        made = self.stripe.double.rate_limits.made
        refused = self.stripe.double.rate_limits.refused
        result.results = dict(progress.results)
        result.seconds = self.schedule.now - START
        result.calls = {name: made[name] - refused[name] for name in made}
        result.refused = sum(refused.values())
        # A call for the subscriptions of one customer does not read a page of the list.
        list_calls = sum(map(self.stripe.calls.count, (f"{path} " for path in _LISTS)))
        result.list_calls_ratio = round(list_calls / result.paging_calls, 3)
        result.write_units = self._units
        result.used = self._shares_of(Counter(result.calls), self._units, result.seconds)
        result.sustained = median(result.by_minute or [max(result.used.values())])
        result.stored = dict(self._count())
        result.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    def _count(self) -> Counter[str]:
        return Counter(item["record_type"]["S"] for item in self.engine.items(TABLE_NAME))


class _Verifying:
    """A verification of the account, beside changes whose events are delivered and applied."""

    def __init__(self, account: LargeAccount) -> None:
        self._account = account
        self._schedule, self._fleet = account.schedule, account.fleet
        self._stripe, self._seed = account.stripe, account.seed
        self._changes = 0
        self._accepted: set[str] = set()
        stream = account.engine.start_stream(
            TABLE_NAME, table_definition()["StreamSpecification"]["StreamViewType"]
        )
        self._mapping = StreamMapping(
            schedule=self._schedule,
            shards=stream.shards,
            rules=mapping_rules(),
            invoke=self._apply,
            on_failure=_fail,
        )
        account.stream = self._mapping
        self._stripe.double.webhooks.add_endpoint(URL, SECRET)
        self._deliveries = Deliveries(
            self._schedule, self._stripe, self._fleet, account.faults, self._check_delivery
        )
        self._stripe.changed = lambda _: self._schedule.after(0, self._deliveries.send_due)
        self._timer = Timer(self._schedule, self._seed, self._fleet, lambda: EVERY_SECONDS, _check)

    def run(self) -> Verification:
        """Run it to the end."""
        account, began = self._account, self._schedule.now
        made = Counter(self._stripe.double.rate_limits.made)
        refused = Counter(self._stripe.double.rate_limits.refused)
        self._timer.run()
        with responding(client(), account.engine.request), use(account.operator()):
            run_id = StripeAccount.start(kind=RunKind.VERIFY).run_id
        pages = account.result.paging_calls / account.limits.endpoint_calls
        self._plan_changes(pages + _CHANGING_SECONDS)
        account.walk(run_id)
        calls = Counter(self._stripe.double.rate_limits.made) - made
        calls -= Counter(self._stripe.double.rate_limits.refused) - refused
        with responding(client(), account.engine.request), use(account.operator()):
            progress = StripeAccount.progress(run_id)
            found = Event.find_all(self._accepted).values()
            events = Counter(str(event.state) for event in found)
        return Verification(
            changes=self._changes,
            events=dict(events),
            seconds=self._schedule.now - began,
            calls=calls.total(),
            differences={str(kind): count for kind, count in progress.differences.items()},
            results=dict(progress.results),
        )

    def _plan_changes(self, seconds: float) -> None:
        """Spread the changes over some seconds."""
        random = chance(self._seed, "changes")
        customers = list(self._stripe.double.account.customers)
        chosen = random.sample(customers, int(len(customers) * self._account.changed))
        for number, stripe_id in enumerate(chosen):
            change = partial(self._change, f"change {number}", stripe_id, random)
            self._schedule.after(random.random() * seconds, change)

    def _change(self, name: str, stripe_id: str, random: Random) -> None:
        """Change, delete or create a customer, or its subscription or payment methods."""
        self._changes += 1
        path, drawn = f"/v1/customers/{stripe_id}", random.random()
        subscriptions = self._stripe.double.account.subscriptions_of.get(stripe_id, ())
        if drawn < 0.1:
            self._stripe.act(name, "DELETE", path)
        elif drawn < 0.2:
            self._stripe.act(name, "POST", "/v1/customers", {"email": f"{name}@example.com"})
        elif drawn < 0.3:
            method = {"type": "card", "card": {"token": "tok_visa"}}
            made = self._stripe.act(name, "POST", "/v1/payment_methods", method).body["id"]
            attach = f"/v1/payment_methods/{made}/attach"
            self._stripe.act(f"{name} attach", "POST", attach, {"customer": stripe_id})
        elif drawn < 0.5 and subscriptions:
            changed = f"/v1/subscriptions/{subscriptions[0]}"
            self._stripe.act(name, "POST", changed, {"metadata": {"changed": name}})
        else:
            self._stripe.act(name, "POST", path, {"name": name, "phone": "+32 2 555 01 02"})

    def _apply(self, records: list[Any], then: Callable[[Outcome], None]) -> None:
        def finished(outcome: Outcome) -> None:
            _check(outcome)
            then(outcome)
            self._mapping.poll()

        number = records[0]["dynamodb"]["SequenceNumber"]
        self._fleet.invoke("apply_event", {"Records": records}, f"stream {number}", finished)

    def _check_delivery(self, event_id: str, outcome: Outcome) -> None:
        _check(outcome)
        if outcome.status == 200:
            self._accepted.add(event_id)


def _check(outcome: Outcome) -> None:
    if outcome.error:
        raise outcome.error


def _fail(message: Any) -> None:
    raise AssertionError(f"the stream has discarded records: {message}")


def main(arguments: list[str] | None = None) -> int:
    """Run one account, print the result as JSON, and return 1 if it is wrong.

    It is if a customer is missing, or if a verification finds a difference.
    """
    parser = argparse.ArgumentParser(prog="python -m simulation.large_account", description=__doc__)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=5, help="how often all workers are killed")
    parser.add_argument("--endpoint-calls", type=float, default=12.5)
    parser.add_argument("--account-calls", type=float, default=50.0)
    parser.add_argument("--write-units", type=float, default=1000.0)
    parser.add_argument(
        "--payment-methods",
        type=PaymentMethodPolicy,
        default=PaymentMethodPolicy.WITH_DEFAULT_OR_SUBSCRIPTION,
    )
    parser.add_argument(
        "--changed",
        type=float,
        default=0.0,
        help="which part of the customers changes during a verification; 0 for no verification",
    )
    options = parser.parse_args(arguments)
    account = LargeAccount(
        options.customers,
        workers=options.workers,
        kills=options.kills,
        limits=Limits(options.endpoint_calls, options.account_calls, options.write_units),
        policy=options.payment_methods,
        changed=options.changed,
    )
    result = account.run()
    print(json.dumps(asdict(result), indent=2))
    is_whole = result.stored.get("Customer") == result.customers
    differs = result.verification is not None and bool(result.verification.differences)
    return 0 if is_whole and not differs else 1


if __name__ == "__main__":
    sys.exit(main())
