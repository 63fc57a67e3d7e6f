"""What the tests of verifications share: a schedule that runs, and differences to be found."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.stripe_account import Progress
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import current, use
from stripe_integrations.models.difference import DifferenceKind
from stripe_integrations.models.run import RunState
from stripe_integrations.models.table import Record
from tests.world import EMAIL, World


def run_schedule(world: World) -> None:
    """Let the schedule run every five minutes, whatever sleeps."""
    world.configure(unassigned_customers=UnassignedCustomers.STORE)
    world.reconcile()
    world.context.deadline = math.inf
    ran_at = [world.time]
    is_running = [False]

    def run() -> None:
        if world.time - ran_at[0] >= 300 and not is_running[0]:
            is_running[0], ran_at[0] = True, world.time
            try:
                with use(world.context):  # it has no part in the run's budgets
                    world.reconcile()
            finally:
                world.context.deadline = math.inf
                is_running[0] = False

    world.during_sleep = run


def verify(**options: Any) -> Progress:
    """Verify to the end."""
    current().deadline = math.inf
    progress = list(StripeAccount.verify(**options))[-1]
    assert progress.state is RunState.FINISHED
    return progress


def report(progress: Progress) -> dict[str, tuple[DifferenceKind, str]]:
    """The report of a run, by Stripe id."""
    found = list(StripeAccount.differences(progress.run_id))
    assert Counter(finding.result for finding in found) == progress.differences
    return {
        finding.stripe_id: (DifferenceKind(finding.result), finding.reason) for finding in found
    }


def on_stripe(world: World, **fields: Any) -> str:
    return str(world.request("POST", "/v1/customers", {"email": EMAIL, **fields})["id"])


def lose_events(world: World) -> None:
    """Let no event of the past arrive, and none be swept."""
    for delivery in world.stripe.webhooks.due():
        world.stripe.webhooks.mark(delivery, 200)
    world.stripe.account.events.clear()


def create(world: World, user_id: str = "u-1", **fields: Any) -> str:
    stripe_id = StripeCustomer.create(User(user_id), EMAIL, **fields).stripe_id
    world.time += 1
    return stripe_id


def settle(world: World) -> None:
    """Let all events arrive and be applied, and an hour pass."""
    world.deliver_and_apply()
    world.time += 3600
    world.reconcile()
    current().deadline = math.inf


def remove(*keys: tuple[str, str]) -> None:
    for pk, sk in keys:
        Record(pk, sk).delete(add_version_condition=False)
