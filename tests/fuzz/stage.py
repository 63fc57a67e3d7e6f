"""A world in which invocations are played, and what they lead to there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from simulation.deployment import TABLE_NAME
from stripe_integrations.config import Authorizer, ExistingCustomers, UnassignedCustomers
from stripe_integrations.context import use
from tests.fuzz.invocations import ADMIN_SCOPE, SENDER, USERS, Invocation
from tests.marked import customer_fields
from tests.marked_world import MarkedWorld, Output, inhabited

Key = tuple[str, str]

_REMAINING_MILLISECONDS = {"walk_account": 900_000}
_USUAL_MILLISECONDS = 60_000


@dataclass(frozen=True)
class Outcome:
    """What an invocation led to.

    Parameters
    ----------
    response : object
        What the function returned.
    error : Exception or None
        What it raised instead.
    output : str
        Its logs and metrics, and the messages that it sent.
    changed : dict
        Items of the table that are not what they were: by key, before and after.
    new_on_stripe : int
        How many objects Stripe has beyond those that it had.
    """

    response: Any
    error: BaseException | None
    output: str
    changed: dict[Key, tuple[Any, Any]]
    new_on_stripe: int = 0

    @property
    def status(self) -> int:
        """The HTTP status of the response; 0 where it has none."""
        status = self.response.get("statusCode") if isinstance(self.response, dict) else None
        return status if isinstance(status, int) else 0

    @property
    def summary(self) -> str:
        """The error, the HTTP status, or that there was neither."""
        return type(self.error).__name__ if self.error else str(self.status or "done")


class Stage:
    """A world in which two users have customers, to which it can be brought back.

    Stripe has a customer of neither, with the e-mail of requests.
    """

    def __init__(self, world: MarkedWorld) -> None:
        self.world = world
        self._output = Output()
        with self._output.captured():
            for name in USERS:
                world.furnish(name)
            email = customer_fields(SENDER)["billing_email"]
            world.request("POST", "/v1/customers", {"email": email})
            world.deliver_and_apply()
        self._output.taken()
        self.at_first = world.saved()

    def play(self, invocation: Invocation) -> Outcome:
        """Invoke the function."""
        world = self.world
        world.time += 1 / 3
        changes = world.database.stream(TABLE_NAME).records
        before, on_stripe = len(changes), _size_of_stripe(world)
        world.context.settings = replace(
            world.settings,
            webhook_secret=invocation.webhook_secret,
            existing_customers=invocation.existing_customers,
            api_authorizer=Authorizer.IAM if invocation.token is None else Authorizer.JWT,
        )
        response: Any = None
        error: BaseException | None = None
        with self._output.captured(), use(world.context):
            try:
                module = import_module(f"functions.{invocation.function}.app")
                remaining = _REMAINING_MILLISECONDS.get(invocation.function, _USUAL_MILLISECONDS)
                response = world.invoke(module, invocation.event, remaining)
            except Exception as raised:
                error = raised
                self._output.add_failure(raised)
        for message in (*world.dead_letters, *world.published):
            self._output.add(str({**message, "user_id": None}))
        self._output.add(str(world.reports))
        world.reports.clear()
        world.dead_letters.clear()
        world.published.clear()
        return Outcome(
            response,
            error,
            self._output.taken(),
            _net_changes(changes[before:]),
            _size_of_stripe(world) - on_stripe,
        )


@contextmanager
def staged() -> Iterator[Stage]:
    """A stage, which everything in this process plays on inside the block."""
    # The roles are those of a deployment that checks; an invocation says whether it does.
    world = MarkedWorld(
        jwt_admin_scope=ADMIN_SCOPE,
        existing_customers=ExistingCustomers.CHECK,
        unassigned_customers=UnassignedCustomers.STORE,
    )
    with inhabited(world):
        yield Stage(world)


def _size_of_stripe(world: MarkedWorld) -> int:
    return len(world.stripe.account.customers) + len(world.stripe.account.events)


def _net_changes(changes: Any) -> dict[Key, tuple[Any, Any]]:
    """What is not as it was, of what was written meanwhile."""
    net: dict[Key, tuple[Any, Any]] = {}
    for record in changes:
        change = record["dynamodb"]
        key = change["Keys"]["pk"]["S"], change["Keys"]["sk"]["S"]
        first = net[key][0] if key in net else change.get("OldImage")
        net[key] = first, change.get("NewImage")
    return {key: (old, new) for key, (old, new) in net.items() if old != new}
