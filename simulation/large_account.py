"""A backfill of a large Stripe account, in virtual time: the rates of its workers, and their kills.

``python -m simulation.large_account --customers 100000`` fills an account, lets the workers of a
run walk it, kills all of them now and then, and says how much of each budget they used, how many
calls they needed beyond those that paging alone needs, and what is stored at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.filling import fill
from local.stripe_double.rate_limits import ENDPOINT_RATE, LIVE_RATE
from simulation.aws import SimulatedDatabase
from simulation.chance import chance
from simulation.database import Database
from simulation.database.transport import responding
from simulation.deployment import TABLE_NAME, table_definition
from simulation.faults import FaultProfile, Faults
from simulation.processes import Fleet, Outcome, sleep
from simulation.runtime import client
from simulation.schedule import START, Schedule
from simulation.stripe_side import API_KEY, SimulatedStripe, StripeConnection
from simulation.worker import WALK
from stripe_integrations.actions import StripeAccount
from stripe_integrations.actions.account.rate_limiter import Limits
from stripe_integrations.adapters.stripe_gateway import READ_SECONDS
from stripe_integrations.config import Settings, UnassignedCustomers
from stripe_integrations.context import Context, use
from stripe_integrations.models.run import PaymentMethodPolicy
from stripe_integrations.models.sweep_cursor import SweepCursor

_PAGE = 100
_RESTART_SECONDS = 5.0
_MINUTE = 60.0


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
    write_units : float
        As DynamoDB counts them, without those of killed workers.
    used : dict
        The share of each budget that was used.
    by_minute : list of float
        The share of the budget of the busiest endpoint that was used in each minute.
    kills : int
        How often all workers were killed.
    megabytes : int
        The peak memory of the process, with the account and the table in it.
    """

    customers: int
    subscriptions: int
    stored: dict[str, int] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    paging_calls: int = 0
    write_units: float = 0.0
    used: dict[str, float] = field(default_factory=dict)
    by_minute: list[float] = field(default_factory=list)
    kills: int = 0
    megabytes: int = 0


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
        seed: int = 1,
    ) -> None:
        self._workers, self._kills, self._seed = workers, kills, seed
        self._limits, self._policy = limits, policy
        self._schedule = Schedule()
        self._stripe = SimulatedStripe(seed, self._schedule, 0.0)
        fill(self._stripe.double, customers, seed=seed)
        self._stripe.double.rate_limits.enforce(account=LIVE_RATE, endpoint=ENDPOINT_RATE)
        self._settings = Settings(
            table_name=TABLE_NAME,
            api_key=API_KEY,
            deployment_name="stripe-customers",
            unassigned_customers=UnassignedCustomers.STORE,
        )
        self._fleet = Fleet(
            seed=seed,
            schedule=self._schedule,
            settings=self._settings,
            faults=Faults(seed, FaultProfile()),
            make_http_client=self._make_http_client,
        )
        database = Database(clock=lambda: self._schedule.now)
        definition = table_definition()
        del definition["StreamSpecification"]
        database.request("CreateTable", definition)
        self._database = SimulatedDatabase(database, self._fleet, lambda: None, lambda *_: None)
        self._engine = database
        self._ended: set[str] = set()
        self._units = 0.0
        account = self._stripe.double.account
        self._result = Result(len(account.customers), len(account.subscriptions))

    def run(self) -> Result:
        """Run it to the end."""
        with responding(client(), self._engine.request):
            context = Context(self._settings, clock=lambda: self._schedule.now)
            with use(context):
                SweepCursor.read().start(["customer.created"])
                run_id = StripeAccount.start(self._policy).run_id
        with responding(client(), self._database.respond):
            for number in range(self._workers):
                self._work(run_id, str(number))
            self._plan_kills()
            self._count_minute(Counter())
            self._schedule.run(lambda: len(self._ended) < self._workers)
        self._complete(run_id)
        return self._result

    def _work(self, run_id: str, worker: str) -> None:
        event = {"run_id": run_id, "worker": worker, "limits": asdict(self._limits)}

        def then(outcome: Outcome) -> None:
            if outcome.error:
                raise outcome.error
            if outcome.response:
                self._units += outcome.response["units"]
            if outcome.response and outcome.response["is_done"]:
                self._ended.add(worker)
            else:
                again = _RESTART_SECONDS if outcome.died else 0.0
                self._schedule.after(again, lambda: self._work(run_id, worker))

        self._fleet.invoke(WALK, event, f"worker {worker}", then)

    def _count_minute(self, before: Counter[str]) -> None:
        """Note what was used of an endpoint's budget since the minute before, and in the next."""
        made = Counter(self._stripe.double.rate_limits.made)
        if self._schedule.now > START:
            calls = max((made - before).values(), default=0)
            self._result.by_minute.append(round(calls / self._limits.endpoint_calls / _MINUTE, 2))
        if len(self._ended) < self._workers:
            self._schedule.after(_MINUTE, lambda: self._count_minute(made))

    def _plan_kills(self) -> None:
        """Kill all workers at times that lie more and more apart."""
        random, moment = chance(self._seed, "kills"), 20.0
        for _ in range(self._kills):
            moment *= 1 + random.random()
            self._schedule.at(START + moment, self._kill)

    def _kill(self) -> None:
        if self._fleet.is_busy():
            self._result.kills += 1
            self._fleet.end()

    def _make_http_client(self) -> StripeDoubleClient:
        connection = StripeConnection(self._stripe, lambda: self._fleet)
        return StripeDoubleClient(connection, sleep, READ_SECONDS)

    def _complete(self, run_id: str) -> None:
        result, limits = self._result, self._limits
        with responding(client(), self._engine.request), use(Context(self._settings)):
            progress = StripeAccount.progress(run_id)
        made = self._stripe.double.rate_limits.made
        refused = self._stripe.double.rate_limits.refused
        result.results = dict(progress.results)
        result.seconds = self._schedule.now - START
        result.calls = {name: made[name] - refused[name] for name in made}
        result.refused = sum(refused.values())
        pages = (result.customers, result.subscriptions)
        result.paging_calls = sum(math.ceil(number / _PAGE) for number in pages)
        result.write_units = self._units
        busiest = max(result.calls.values())
        result.used = {
            "endpoint": busiest / (limits.endpoint_calls * result.seconds),
            "account": sum(result.calls.values()) / (limits.account_calls * result.seconds),
            "writes": self._units / (limits.write_units * result.seconds),
        }
        result.stored = dict(self._count())
        result.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    def _count(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        start: Any = {}
        while start is not None:
            body = {"TableName": TABLE_NAME, "ProjectionExpression": "record_type", **start}
            answer = self._engine.request("Scan", body).body
            counts.update(item["record_type"]["S"] for item in answer["Items"])
            last = answer.get("LastEvaluatedKey")
            start = {"ExclusiveStartKey": last} if last else None
        return counts


def main(arguments: list[str] | None = None) -> int:
    """Run one account, print the result as JSON, and return 1 if a customer is missing."""
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
    options = parser.parse_args(arguments)
    account = LargeAccount(
        options.customers,
        workers=options.workers,
        kills=options.kills,
        limits=Limits(options.endpoint_calls, options.account_calls, options.write_units),
        policy=options.payment_methods,
    )
    result = account.run()
    print(json.dumps(asdict(result), indent=2))
    return 0 if result.stored.get("Customer") == result.customers else 1


if __name__ == "__main__":
    sys.exit(main())
