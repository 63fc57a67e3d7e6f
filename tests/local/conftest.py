"""The Stripe double in process, under the real ``stripe`` library and a clock of its own."""

from __future__ import annotations

import random
from typing import Any

import pytest
import stripe

from local.stripe_double import StripeDouble
from local.stripe_double.client import StripeDoubleClient

START = 1_800_000_000
API_KEY = "sk_test_double"


class Clock:
    """A clock that is moved explicitly."""

    def __init__(self) -> None:
        self.time = float(START)

    def __call__(self) -> float:
        return self.time

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def double(clock: Clock) -> StripeDouble:
    return StripeDouble(now=clock, random=random.Random(7))


@pytest.fixture
def api(double: StripeDouble, clock: Clock) -> Any:
    """Stripe's library, whose calls the double handles; nothing is retried."""
    client = StripeDoubleClient(double, sleep=clock.move)
    return stripe.StripeClient(API_KEY, http_client=client, max_network_retries=0).v1
