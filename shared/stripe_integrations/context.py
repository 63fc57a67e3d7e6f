"""What the actions are given by their surroundings: settings, Stripe, time and chance.

A process makes its context once, from the environment, when an action first needs it; a test or
a simulation puts its own in place with `use`.
"""

from __future__ import annotations

import math
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from stripe_integrations import observability
from stripe_integrations.adapters import publisher
from stripe_integrations.config import Settings
from stripe_integrations.observability import Metric, logger

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeCall, StripeGateway


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
    send_dead_letter, publish : callable, optional
        Take a message to the dead-letter queue, and one to the event bus; by default, to the ones
        of the settings.
    measure : callable
        Takes a metric and a value; by default, for CloudWatch.
    deadline : float
        Unix time at which the invocation ends that is being served; never, outside of Lambda.
    """

    settings: Settings
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    random: random.Random = field(default_factory=random.SystemRandom)
    make_stripe: Callable[..., StripeGateway] | None = None
    send_dead_letter: Callable[[Mapping[str, Any]], None] | None = None
    publish: Callable[[Mapping[str, Any]], None] | None = None
    measure: Callable[[Metric, float], None] = observability.measure
    deadline: float = math.inf

    @cached_property
    def stripe(self) -> StripeGateway:
        """The gateway to Stripe; made, and `stripe` imported, only where it is needed."""
        from stripe_integrations.adapters.stripe_gateway import StripeGateway  # noqa: PLC0415

        make = self.make_stripe or StripeGateway
        return make(
            self.settings,
            remaining_seconds=self.remaining_seconds,
            clock=self.clock,
            pause=self.pause,
            report=self._report_call,
        )

    def report_dead_letter(self, message: Mapping[str, Any]) -> None:
        """Tell the dead-letter queue of an event that has failed."""
        send = self.send_dead_letter or partial(publisher.send_dead_letter, self.settings)
        send(message)

    def publish_change(self, detail: Mapping[str, Any]) -> None:
        """Tell the event bus of a change that was applied."""
        send = self.publish or partial(publisher.publish, self.settings)
        send(detail)

    def add_metric(self, metric: Metric, value: float = 1) -> None:
        """Add to a metric; nothing is sent, nor kept, outside of an invocation."""
        if self._is_invocation:
            self.measure(metric, value)

    def begin_invocation(self, remaining_milliseconds: int) -> None:
        """Take note of the time that an invocation of a Lambda function has."""
        self.deadline = self.clock() + remaining_milliseconds / 1000

    @property
    def _is_invocation(self) -> bool:
        return math.isfinite(self.deadline)

    def _report_call(self, asked: StripeCall) -> None:
        if not self._is_invocation:
            return
        self.add_metric(Metric.STRIPE_LATENCY, round(asked.seconds * 1000))
        if asked.status == HTTPStatus.TOO_MANY_REQUESTS:
            self.add_metric(Metric.STRIPE_RATE_LIMITED)
        logger.info(
            "asked Stripe",
            extra={
                "asked": asked.what,
                "stripe_status": asked.status,
                "stripe_request_id": asked.request_id,
                "milliseconds": round(asked.seconds * 1000),
            },
        )

    def remaining_seconds(self) -> float:
        """How long the invocation may still take."""
        return self.deadline - self.clock()

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def pause(self, seconds: float) -> None:
        """Wait between half of these seconds and all of them, so that rivals don't keep step."""
        self.sleep(self.jittered(seconds))

    def jittered(self, seconds: float) -> float:
        """Between half of these seconds and all of them."""
        return seconds * (0.5 + self.random.random() / 2)

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
