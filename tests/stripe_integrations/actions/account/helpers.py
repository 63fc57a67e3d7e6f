"""What the tests of runs share: customers on Stripe whose events got lost, and what is stored."""

from __future__ import annotations

import math
from typing import Any

from stripe_integrations.actions import StripeAccount
from stripe_integrations.actions.account.page import Finding
from stripe_integrations.context import current
from stripe_integrations.models import Customer, Pointer, read_customer
from stripe_integrations.models.run import RunState
from tests.world import EMAIL, World, database_client


def make(world: World, **fields: Any) -> str:
    """Create a customer on Stripe; its events get lost."""
    stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL, **fields})["id"])
    lose_events(world)
    return stripe_id


def lose_events(world: World) -> None:
    """Let no due event arrive."""
    for delivery in world.stripe.webhooks.due():
        world.stripe.webhooks.mark(delivery, 200)


def backfill(*args: Any, **options: Any) -> dict[str, int]:
    """Run a backfill to its end, and return how many objects had each outcome."""
    current().deadline = math.inf
    progress = list(StripeAccount.backfill(*args, **options))[-1]
    assert progress.state is RunState.FINISHED
    return dict(progress.results)


def findings_of(*args: Any, **options: Any) -> list[Finding]:
    """Run a backfill to its end, and return its report."""
    current().deadline = math.inf
    return [f for progress in StripeAccount.backfill(*args, **options) for f in progress.findings]


def record_of(stripe_id: str) -> Customer:
    """Read the record of a customer, whoever has it."""
    owner = Pointer.find(stripe_id)
    assert owner
    record = read_customer(owner)
    assert record
    return record


def set_schema_version(world: World, stripe_id: str, version: int) -> None:
    """Let the record of a customer be of another release: a newer one can't be read."""
    (record,) = world.items(record_type="Customer", stripe_id=stripe_id)
    database_client().update_item(
        TableName=world.settings.table_name,
        Key={"pk": {"S": record["pk"]}, "sk": {"S": record["sk"]}},
        UpdateExpression="SET schema_version = :version",
        ExpressionAttributeValues={":version": {"N": str(version)}},
    )


def calls(world: World) -> list[str]:
    """The requests to Stripe so far."""
    return [f"{request.method} {request.path}" for request in world.stripe.requests]
