"""Processes outside of Lambda's functions, which call the Python API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.account.rate_limiter import Limits
from stripe_integrations.context import current
from stripe_integrations.entrypoints.http import problem
from stripe_integrations.errors import StripeIntegrationsError
from stripe_integrations.models.run import RunKind, RunState

Json = dict[str, Any]

RELEASE = "release_customer"
WALK = "walk_at_limits"
UNDO = "undo_run"
REBUILD = "rebuild_customers"
VERIFY = "verify_account"


def release_customer(event: Json, _: object) -> Json:
    """Release the customer of the user that the event names; returns a status as HTTP has it."""
    try:
        StripeCustomer.release(User(event["user_id"]))
    except StripeIntegrationsError as error:
        refusal = problem(error)
        return {"statusCode": refusal.status, "body": json.dumps(refusal.body)}
    return {"statusCode": 204}


def walk_at_limits(event: Json, context: Any) -> Json:
    """Walk pages of a run while there is time.

    Returns its calls, its units, whether the run is done, and when a verification goes on.
    """
    current().begin_invocation(context.get_remaining_time_in_millis())
    limits = Limits(**event["limits"]) if "limits" in event else None
    calls, units = 0, 0.0
    for step in StripeAccount.work(event["run_id"], event["worker"], limits):
        calls, units = step.rate_limiter.calls, step.rate_limiter.units
    progress = StripeAccount.progress(event["run_id"])
    return {
        "statusCode": 200,
        "is_done": progress.state is not RunState.RUNNING,
        "next_check_at": progress.next_check_at and progress.next_check_at.timestamp(),
        "calls": calls,
        "units": units,
    }


def undo_run(event: Json, _: object) -> Json:
    """Undo a run, with its mapping."""
    for _progress in StripeAccount.undo(event["run_id"], event["mapping"]):
        pass
    return {"statusCode": 200}


def rebuild_customers(event: Json, _: object) -> Json:
    """Start a rebuild, and walk all of it; repeated, it continues the run with this id."""
    run_id = StripeAccount.start(run_id=event["run_id"], kind=RunKind.REBUILD).run_id
    for _step in StripeAccount.work(run_id):
        pass
    return {"statusCode": 200}


def verify_account(_: Json, __: object) -> Json:
    """Verify the account, and repair it; returns the kind and reason of each difference, by id."""
    (*_steps, progress) = StripeAccount.verify()
    found = StripeAccount.differences(progress.run_id)
    differences = {each.stripe_id: f"{each.result} {each.reason}".strip() for each in found}
    for _progress in StripeAccount.repair(progress.run_id):
        pass
    return {"statusCode": 200, "differences": differences}


WORKERS: dict[str, tuple[Callable[[Json, Any], Json], float]] = {
    RELEASE: (release_customer, 60.0),
    WALK: (walk_at_limits, 900.0),
    UNDO: (undo_run, 900.0),
    REBUILD: (rebuild_customers, 900.0),
    VERIFY: (verify_account, 6 * 3600.0),
}
"""Each with the seconds after which it is killed."""
