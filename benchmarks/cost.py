"""What each operation costs: calls, units of the database, log lines and bytes, stored bytes.

Everything is counted and nothing is timed, so two runs of one commit have equal results. The
program prints them as JSON::

    python -m benchmarks.cost
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from typing import Any

from benchmarks.stage import USER, Stage
from benchmarks.usage import Usage
from stripe_integrations.config import UnassignedCustomers

Json = dict[str, Any]

REAL_BYTES = {"customer.updated": 2_048, "customer.subscription.updated": 8_192}
"""The assumed sizes of a real account's events: its objects have fields that the double lacks."""

FOREIGN_EVENTS = 20
BACKFILLED = 200
_LOOKUPS = (150, 450, 900, 86_400)
"""Seconds between the invocations of the schedule that look up the customer of a foreign event."""


def main() -> None:
    """Print what each operation uses."""
    print(json.dumps({name: measure(name) for name in OPERATIONS}))


def measure(name: str) -> Json:
    """Run an operation on a stage of its own; returns what it has used."""
    with Stage(**_SETTINGS.get(name, {})).running() as stage:
        return OPERATIONS[name](stage).as_json(_REPEATED.get(name, 1))


# ---- calls of the backend


def get(stage: Stage) -> Usage:
    """Read a customer with a card and a subscription."""
    _add_customer(stage)
    with stage.measured() as used:
        stage.get()
    return used


def create(stage: Stage) -> Usage:
    """Create a customer, and process the stream record of it."""
    _warm_up(stage)
    with stage.measured() as used:
        stage.create(name="Jane Doe")
        stage.stream()
    return used


def update(stage: Stage) -> Usage:
    """Change a customer's name on Stripe and here."""
    _add_customer(stage)
    with stage.measured() as used:
        stage.update(name="Jane Doe")
        stage.stream()
    return used


# ---- events


def customer_created(stage: Stage) -> Usage:
    """Receive and apply the event of a create that has succeeded."""
    _warm_up(stage)
    stage.create(name="Jane Doe")
    stage.stream()
    (payload,) = stage.new_events("customer.created")
    return _receive_and_apply(stage, payload)


def known_event(kind: str, size: int | None = None) -> Callable[[Stage], Usage]:
    """Return the operation that receives and applies an event of a known customer.

    Parameters
    ----------
    kind : str
        ``customer.updated`` or ``customer.subscription.updated``.
    size : int, optional
        The size of the payload in bytes; by default, the double's.
    """

    def operation(stage: Stage) -> Usage:
        payload = next_event(stage, kind, *_add_customer(stage))
        return _receive_and_apply(stage, padded(payload, size) if size else payload)

    return operation


def ambiguous_event(stage: Stage) -> Usage:
    """Receive and apply the second change of one second, which is fetched."""
    customer, subscription = _add_customer(stage)
    first = next_event(stage, "customer.updated", customer, subscription)
    second = next_event(stage, "customer.updated", customer, subscription, seconds=0)
    _receive_and_apply(stage, first)
    return _receive_and_apply(stage, second)


def foreign_event(stage: Stage) -> Usage:
    """Receive events of unknown customers, and look them up until they are discarded.

    What the schedule uses without such events is subtracted.
    """
    _warm_up(stage)
    with stage.measured() as idle:
        _look_up(stage)
    for number in range(FOREIGN_EVENTS):
        stage.change("/v1/customers", email=f"foreign-{number}@example.com", name="Foreign")
    payloads = stage.new_events("customer.created")
    with stage.measured() as used:
        for payload in payloads:
            stage.receive(payload)
        stage.stream()
        _look_up(stage)
    return used.since(idle)


def _look_up(stage: Stage) -> None:
    for seconds in _LOOKUPS:
        stage.time += seconds
        stage.reconcile()


# ---- the account


def backfill(stage: Stage) -> Usage:
    """Store customers without a card or a subscription that exist on Stripe."""
    _prepare_walks(stage)
    _add_existing(stage)
    with stage.measured() as used:
        _walk(stage, "measured")
        stage.stream()
    return used.since(_idle_walk(stage))


def backfill_of_users(stage: Stage) -> Usage:
    """Store such customers as those of the users that a mapping names."""
    _prepare_walks(stage)
    rows = [f"user-{number},{stripe_id}" for number, stripe_id in enumerate(_add_existing(stage))]
    stage.files["mappings/empty.csv"] = b"user_id,stripe_id\n"
    stage.files["mappings/users.csv"] = "\n".join(["user_id,stripe_id", *rows, ""]).encode()
    with stage.measured() as used:
        _walk(stage, "measured", mapping="mappings/users.csv")
        stage.stream()
    return used.since(_idle_walk(stage, mapping="mappings/empty.csv"))


def _prepare_walks(stage: Stage) -> None:
    """Sweep Stripe's events, which a run needs, and walk once: a process reads some items once."""
    stage.reconcile()
    _walk(stage, "first")


def _idle_walk(stage: Stage, **options: str) -> Usage:
    """Walk an account without customers."""
    with Stage(**_STORING).running() as empty:
        _prepare_walks(empty)
        with empty.measured() as used:
            empty.files = stage.files
            _walk(empty, "measured", **options)
    return used


def _add_existing(stage: Stage) -> list[str]:
    """Create customers on Stripe whose events are lost; returns their ids."""
    created = [
        stage.change("/v1/customers", email=f"customer-{number}@example.com", name="Jane Doe")
        for number in range(BACKFILLED)
    ]
    stage.new_events()
    return [customer["id"] for customer in created]


def _walk(stage: Stage, run: str, **options: str) -> None:
    stage.time += 60.0  # a run has what was created before the second of its start
    stage.invoke("walk_account", {"action": "start", "run_id": run, "options": options})
    is_done = False
    while not is_done:
        work = {"action": "work", "run_id": run, "worker": "1"}
        is_done = stage.invoke("walk_account", work)["is_done"]


# ---- the customer and its events


def _warm_up(stage: Stage) -> None:
    """Create another customer, so that what a process reads only once is read."""
    stage.create("another")
    stage.deliver()
    stage.time += 60.0


def _add_customer(stage: Stage) -> tuple[str, str]:
    """Create a customer with a card and a subscription; returns the ids of both on Stripe."""
    ids = add_customer(stage, USER)
    stage.get()
    stage.time += 60.0
    return ids


def add_customer(stage: Stage, user: str) -> tuple[str, str]:
    """Create a customer with a card and a subscription, and apply all events of it.

    Returns
    -------
    tuple of str
        The ids of the customer and of the subscription on Stripe.
    """
    customer: str = stage.create(user, name="Jane Doe")["stripe_id"]
    stage.deliver()
    stage.time += 60.0
    method = stage.attach_card(customer)
    subscription = stage.subscribe(customer, default_payment_method=method)
    stage.deliver()
    return customer, subscription


def next_event(
    stage: Stage, kind: str, customer: str, subscription: str, *, seconds: float = 60.0
) -> Json:
    """Change an object on Stripe after some seconds; returns the event of it."""
    stage.new_events()
    stage.time += seconds
    text = str(len(stage.stripe.account.events))
    if kind == "customer.updated":
        stage.change(f"/v1/customers/{customer}", name=f"Jane Doe {text}")
    else:
        stage.change(f"/v1/subscriptions/{subscription}", metadata={"order": text})
    (payload,) = stage.new_events(kind)
    return payload


def padded(payload: Json, size: int) -> Json:
    """Return an event whose object has further fields, to a size in bytes of JSON.

    Their values are random letters and digits, which compress as badly as ids.
    """
    drawn = random.Random(size)
    grown: Json = json.loads(json.dumps(payload))
    subject = grown["data"]["object"]
    while len(json.dumps(grown)) < size:
        value = "".join(drawn.choices(string.ascii_letters + string.digits, k=24))
        subject[f"further_field_{len(subject)}"] = value
    return grown


def _receive_and_apply(stage: Stage, payload: Json) -> Usage:
    with stage.measured() as used:
        stage.receive(payload)
        stage.stream()
    return used


OPERATIONS: dict[str, Callable[[Stage], Usage]] = {
    "get": get,
    "create": create,
    "update": update,
    "customer.created": customer_created,
    "customer.updated": known_event("customer.updated"),
    "customer.subscription.updated": known_event("customer.subscription.updated"),
    **{f"{kind}, {size // 1024} KB": known_event(kind, size) for kind, size in REAL_BYTES.items()},
    "ambiguous event": ambiguous_event,
    "foreign event": foreign_event,
    "backfilled customer": backfill,
    "backfilled customer of a user": backfill_of_users,
}
"""What is measured, by name."""

_STORING: Json = {"unassigned_customers": UnassignedCustomers.STORE}
_SETTINGS: dict[str, Json] = {
    "backfilled customer": _STORING,
    "backfilled customer of a user": _STORING,
}
_REPEATED = {
    "foreign event": FOREIGN_EVENTS,
    "backfilled customer": BACKFILLED,
    "backfilled customer of a user": BACKFILLED,
}
"""How often an operation is run, if the result is the mean."""


if __name__ == "__main__":
    main()
