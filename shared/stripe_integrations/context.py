"""What the actions depend on: settings, Stripe, the clock and randomness.

A process makes its context once, from the environment, when an action first needs it; a test or
the simulation replaces it with `use`.
"""

from __future__ import annotations

import math
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from stripe_integrations import observability
from stripe_integrations.adapters import publisher, storage
from stripe_integrations.config import Settings
from stripe_integrations.observability import Metric, logger

if TYPE_CHECKING:
    from stripe_integrations.adapters.stripe_gateway import StripeCall, StripeGateway


@dataclass
class Context:
    """The dependencies of the actions.

    Parameters
    ----------
    settings : Settings
        The deployment's settings.
    clock : callable
        Unix time in seconds.
    sleep : callable
        Waits for a number of seconds.
    random : random.Random
        For tokens and jitter.
    make_stripe : callable, optional
        Makes the gateway to Stripe on first use, with the parameters of `StripeGateway`.
    send_dead_letter, publish, log_erasure : callable, optional
        Send a message to the dead-letter queue, one to the event bus, and the ids of customers to
        the erasure log; by default, to those of the settings.
    store_report : callable, optional
        Stores a text under a key; by default, in the settings' bucket for reports.
    read_file : callable, optional
        Reads the lines of a file from an offset; by default, in the same bucket.
    before_stripe_call, after_stripe_call : callable, optional
        Called with the operation before each call to Stripe, and with its outcome after it.
    measure : callable
        Adds a value to a metric; by default, for CloudWatch.
    deadline : float
        Unix time at which the current invocation ends; infinite outside of Lambda.

    Attributes
    ----------
    deployment_name : str or None
        The deployment name stored in the table; None until it is read.
    """

    settings: Settings
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    random: random.Random = field(default_factory=random.SystemRandom)
    make_stripe: Callable[..., StripeGateway] | None = None
    send_dead_letter: Callable[[Mapping[str, Any]], None] | None = None
    publish: Callable[[Mapping[str, Any]], None] | None = None
    log_erasure: Callable[[Sequence[str]], None] | None = None
    store_report: Callable[[str, str], None] | None = None
    read_file: Callable[[str, int], Iterator[tuple[bytes, int]]] | None = None
    before_stripe_call: Callable[[str], None] | None = None
    after_stripe_call: Callable[[StripeCall], None] | None = None
    measure: Callable[[Metric, float], None] = observability.measure
    deadline: float = math.inf
    deployment_name: str | None = field(default=None, init=False)

    @cached_property
    def stripe(self) -> StripeGateway:
        """The gateway to Stripe; made, and `stripe` imported, on first use."""
        from stripe_integrations.adapters.stripe_gateway import StripeGateway  # noqa: PLC0415

        make = self.make_stripe or StripeGateway
        return make(
            self.settings,
            remaining_seconds=self.remaining_seconds,
            clock=self.clock,
            pause=self.pause,
            before_call=self.before_stripe_call or (lambda _: None),
            report=self._report_call,
        )

    def disconnect_stripe(self) -> None:
        """Close the connections to Stripe, and forget the API key until the next call."""
        if "stripe" in vars(self):
            self.stripe.disconnect()

    def report_dead_letter(self, message: Mapping[str, Any]) -> None:
        """Send a failed event to the dead-letter queue."""
        send = self.send_dead_letter or partial(publisher.send_dead_letter, self.settings)
        send(message)

    def publish_change(self, detail: Mapping[str, Any]) -> None:
        """Publish the outcome of an event to the event bus."""
        send = self.publish or partial(publisher.publish, self.settings)
        send(detail)

    def record_erasure(self, customer_ids: Sequence[str]) -> None:
        """Add customers to the erasure log, outside the table."""
        if self.log_erasure:
            self.log_erasure(customer_ids)
        else:
            publisher.log_erasure(self.settings, customer_ids, self.clock())

    def put_report(self, key: str, text: str) -> None:
        """Store a part of a report, in place of the one that has this key."""
        store = self.store_report or partial(storage.store_text, self.settings)
        store(key, text)

    def read_lines(self, key: str, offset: int) -> Iterator[tuple[bytes, int]]:
        """Read the lines of a file in the bucket, each with the offset of the next one."""
        read = self.read_file or partial(storage.read_lines, self.settings)
        return read(key, offset)

    def add_metric(self, metric: Metric, value: float = 1) -> None:
        """Add a value to a metric; ignored outside of an invocation."""
        if self.is_invocation:
            self.measure(metric, value)

    def log_item(self, name: str, item: Mapping[str, Any] | str) -> None:
        """Add an item to a list in the invocation's log line; ignored outside of an invocation."""
        if self.is_invocation:
            observability.add_item(name, item)

    def begin_invocation(self, remaining_milliseconds: int) -> None:
        """Note when the current invocation of a Lambda function ends."""
        self.deadline = self.clock() + remaining_milliseconds / 1000

    @property
    def is_invocation(self) -> bool:
        """Whether a Lambda function runs this, whose time is limited."""
        return math.isfinite(self.deadline)

    def _report_call(self, call: StripeCall) -> None:
        if self.after_stripe_call:
            self.after_stripe_call(call)
        if not self.is_invocation:
            return
        milliseconds = round(call.seconds * 1000)
        self.add_metric(Metric.STRIPE_LATENCY, milliseconds)
        if call.is_rate_limited:
            self.add_metric(Metric.STRIPE_RATE_LIMITED)
        observability.add_stripe_call(milliseconds, call.request_id)
        logger.debug(
            "called Stripe",
            extra={
                "operation": call.operation,
                "stripe_status": call.status,
                "stripe_request_id": call.request_id,
                "milliseconds": milliseconds,
            },
        )

    def remaining_seconds(self) -> float:
        """The time until the invocation ends."""
        return self.deadline - self.clock()

    def has_time_for(self, seconds: float) -> bool:
        """Return whether the invocation has this many seconds left."""
        return self.remaining_seconds() >= seconds

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def pause(self, seconds: float) -> None:
        """Wait between half of these seconds and all of them: concurrent writers diverge."""
        self.sleep(self.jittered(seconds))

    def jittered(self, seconds: float) -> float:
        """Between half of these seconds and all of them."""
        return seconds * (0.5 + self.random.random() / 2)

    def new_token(self) -> str:
        """A random UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))


_given: ContextVar[Context | None] = ContextVar("context", default=None)


@cache
def _of_process() -> Context:
    return Context(Settings.from_environment())


def current() -> Context:
    """The context that is in use."""
    return _given.get() or _of_process()


@contextmanager
def use(context: Context) -> Iterator[Context]:
    """Use this context inside the block."""
    token = _given.set(context)
    try:
        yield context
    finally:
        _given.reset(token)
