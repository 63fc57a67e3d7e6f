"""What the actions are given by their surroundings: settings, Stripe, time and chance.

A process makes its context once, from the environment, when an action first needs it; a test or
a simulation puts its own in place with `use`.
"""

from __future__ import annotations

import math
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING

from stripe_integrations.config import Settings

if TYPE_CHECKING:
    from stripe_integrations.stripe_gateway import StripeGateway


@dataclass
class Context:
    """The surroundings of the actions.

    Parameters
    ----------
    settings : Settings
        What the deployment decides.
    clock : callable
        Unix time in seconds.
    sleep : callable
        Waits for so many seconds.
    random : random.Random
        Chance, for tokens and jitter.
    make_stripe : callable, optional
        Makes the gateway to Stripe on first use; takes what `StripeGateway` does.
    deadline : float
        Unix time at which the invocation ends that is being served; never, outside of Lambda.
    """

    settings: Settings
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    random: random.Random = field(default_factory=random.SystemRandom)
    make_stripe: Callable[..., StripeGateway] | None = None
    deadline: float = math.inf

    @cached_property
    def stripe(self) -> StripeGateway:
        """The gateway to Stripe; made, and `stripe` imported, only where it is needed."""
        from stripe_integrations.stripe_gateway import StripeGateway  # noqa: PLC0415

        make = self.make_stripe or StripeGateway
        return make(self.settings, remaining_seconds=self.remaining_seconds)

    def begin_invocation(self, remaining_milliseconds: int) -> None:
        """Take note of the time that an invocation of a Lambda function has."""
        self.deadline = self.clock() + remaining_milliseconds / 1000

    def remaining_seconds(self) -> float:
        """How long the invocation may still take."""
        return self.deadline - self.clock()

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def pause(self, seconds: float) -> None:
        """Wait between half of these seconds and all of them, so that rivals don't keep step."""
        self.sleep(seconds * (0.5 + self.random.random() / 2))

    def new_token(self) -> str:
        """A name that nobody else has."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))


_given: ContextVar[Context | None] = ContextVar("context", default=None)


@cache
def _of_process() -> Context:
    return Context(Settings.from_environment())


def current() -> Context:
    """The context that counts here."""
    return _given.get() or _of_process()


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Let this context count inside the block."""
    token = _given.set(context)
    try:
        yield context
    finally:
        _given.reset(token)
