"""What the tests of the customer actions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.context import use
from stripe_integrations.errors import StripeUnavailableError
from stripe_integrations.models import CustomerClaim
from tests.world import EMAIL, USER, World

POST = "POST /v1/customers"


def acquire_claim(**parameters: str) -> CustomerClaim:
    """Store the claim of another process that has not called Stripe yet."""
    claim, is_acquired = CustomerClaim.acquire(
        "u-1", {"stripe": {"email": EMAIL, **parameters}, "local": {}}
    )
    assert is_acquired
    return claim


def stored_claim() -> CustomerClaim:
    """The claim of the first user, which must be stored."""
    claim = CustomerClaim.read("u-1")
    assert claim
    return claim


def crash_create(world: World, when: Literal["before", "after"] = "after", **fields: Any) -> None:
    """Create a customer in a process whose call fails, before or after Stripe has created it."""
    world.stripe.faults.time_out(None, match=POST, when=when, should_retry=False)
    with use(world.new_context()), pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL, **fields)
    world.stripe.faults.clear()


def during_sleep(world: World, action: Callable[[], object], *, times: float = 1) -> None:
    """Run an action in a process of its own during the next sleeps."""
    done = 0

    def run() -> None:
        nonlocal done
        done += 1
        world.during_sleep = lambda: None
        with use(world.new_context()):
            action()
        if done < times:
            world.during_sleep = run

    world.during_sleep = run
