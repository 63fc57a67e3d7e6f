"""A burst of webhooks at the deployed stack: shuffled, a fifth of them twice, all applied."""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from local.cloud import Cloud
from local.stripe_double import StripeDoubleServer
from tests.local.stripe_history import StripeHistory, shown

SEED = 1
CUSTOMERS = 50
DELETED = 5
EVENTS = 1600
DUPLICATES = 400
MINUTES_OF_HISTORY = 10
PATIENCE = 420.0
"""Seconds that the deliveries, and then the applies, may take; two busy cores need a third."""
LOOK_EVERY = 2.0
RECONCILE_EVERY = 30.0


def test_shuffled_burst_with_duplicates(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert cloud.stripe.double
    burst = Burst(cloud, cloud.stripe.double)
    customers = burst.create_customers()
    history = burst.let_things_happen(customers)
    distinct = burst.duplicate()

    sending = burst.send()
    settling = burst.settle()

    responses = Counter(attempt["status"] for attempt in burst.attempts())
    figures = (
        f"{distinct} events and {DUPLICATES} duplicates of {CUSTOMERS} customers, shuffled: "
        f"returned {dict(responses)} in {sending:.0f} s ({responses.total() / sending:.0f}/s), "
        f"all finished {settling:.0f} s later, {dict(burst.states())}"
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{figures}\n")
    assert distinct >= EVENTS
    assert responses[200] == distinct + DUPLICATES, "each delivery got a 2xx in the end"
    assert burst.states().keys() == {"applied", "ignored"}
    assert burst.received() == burst.emitted()
    items = cloud.items()
    for customer in customers:
        assert shown(items, customer) == history.has(customer)
    assert [history.has(customer) for customer in customers].count(None) == DELETED


class Burst:
    """Many webhooks at once.

    Parameters
    ----------
    cloud : Cloud
        The stack that they come to.
    stripe : StripeDoubleServer
        The double that sends them, and repeats whatever does not get a 2xx.
    """

    def __init__(self, cloud: Cloud, stripe: StripeDoubleServer) -> None:
        self._cloud = cloud
        self._stripe = stripe
        self._random = Random(SEED)
        self._behind = 60.0 * MINUTES_OF_HISTORY
        assert stripe.wait_until_delivered(60), "an earlier test's webhooks are under way still"
        with stripe.use() as double:
            self._before = set(double.account.events)
            self._attempts_before = len(double.webhooks.log)
            double.webhooks.hold()
            # Stripe's clock makes a past of some minutes in a second or two.
            double.account.clock = lambda: time.time() - self._behind

    def create_customers(self) -> list[str]:
        """Create them through the stack."""

        def create(number: int) -> str:
            body = {"user_id": f"u-burst-{number}", "billing_email": f"{number}@example.com"}
            response = self._cloud.request("POST", "/customers", body)
            assert response.status == 201, response
            stripe_id: str = response.body["stripe_id"]
            return stripe_id

        with ThreadPoolExecutor(4) as callers:
            return list(callers.map(create, range(CUSTOMERS)))

    def let_things_happen(self, customers: list[str]) -> StripeHistory:
        """Change them on Stripe, one after the other, until there are events enough."""
        with self._stripe.use() as double:
            history = StripeHistory(double, self._cloud.stripe.api_key, self._random)
            gone = dict.fromkeys(self._random.sample(customers, DELETED), False)
            step = self._behind / EVENTS
            while len(self.emitted()) < EVENTS:
                customer = self._random.choice(customers)
                half_way = self._behind < 30.0 * MINUTES_OF_HISTORY
                if half_way and gone.get(customer) is False:
                    history.delete(customer)
                    gone[customer] = True
                elif not gone.get(customer):
                    history.change(customer)
                self._behind = max(0.0, self._behind - step)
            self._behind = 0.0
        return history

    def duplicate(self) -> int:
        """Have some delivered twice; returns how many events there are."""
        with self._stripe.use() as double:
            emitted = sorted(self.emitted())
            for event in self._random.sample(emitted, DUPLICATES):
                double.webhooks.resend(event)
        return len(emitted)

    def send(self) -> float:
        """Send all of them in any order, until each was taken; returns the seconds."""
        began = time.monotonic()
        with self._stripe.use() as double:
            double.webhooks.release("random")
        assert self._stripe.wait_until_delivered(PATIENCE)
        return time.monotonic() - began

    def settle(self) -> float:
        """Wait until every event has ended; returns the seconds."""
        began = reconciled = time.monotonic()
        while {"pending", "waiting"} & self.states().keys():
            assert time.monotonic() < began + PATIENCE, self.states()
            if time.monotonic() > reconciled + RECONCILE_EVERY:
                self._cloud.invoke(self._cloud.reconcile_events, {})
                reconciled = time.monotonic()
            time.sleep(LOOK_EVERY)
        return time.monotonic() - began

    def attempts(self) -> list[dict[str, object]]:
        """The response to each delivery."""
        with self._stripe.use() as double:
            return double.webhooks.log[self._attempts_before :]

    def emitted(self) -> set[str]:
        """Ids of the events that Stripe has made."""
        with self._stripe.use() as double:
            return set(double.account.events) - self._before

    def received(self) -> set[str]:
        """Ids of those that the table holds."""
        return set(self._states()) - self._before

    def states(self) -> Counter[str]:
        """How many events are in which state."""
        return Counter(
            state for event, state in self._states().items() if event not in self._before
        )

    def _states(self) -> dict[str, str]:
        pages = (
            self._cloud.client("dynamodb")
            .get_paginator("scan")
            .paginate(
                TableName=self._cloud.table_name,
                ConsistentRead=True,
                FilterExpression="sk = :event",
                ProjectionExpression="stripe_id, #state",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={":event": {"S": "EVENT"}},
            )
        )
        items = [item for page in pages for item in page["Items"]]
        return {item["stripe_id"]["S"]: item["state"]["S"] for item in items}
