"""Lambda's processes: each has its own clock, is reused while warm, and may die at any call."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import stripe

from simulation.chance import between, chance
from simulation.deployment import timeouts
from simulation.faults import Faults
from simulation.schedule import START, KilledError, Schedule, Task, current_task
from simulation.worker import WORKERS
from stripe_integrations.adapters.stripe_gateway import StripeGateway
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from tools import lambda_events

Json = dict[str, Any]

CLOCK_SKEW_SECONDS = 5.0
"""The largest difference between any two clocks, Stripe's included."""

_STAYS_WARM = 0.7
_START_SECONDS = (0.2, 1.5)
_RESPONSE_SECONDS = 0.003


@dataclass
class Outcome:
    """How an invocation ended.

    Parameters
    ----------
    response : object
        The return value of the handler.
    error : Exception or None
        The exception that it raised.
    died : str or None
        ``killed``, ``exited`` or ``timed out`` if the process ended before it responded.
    """

    response: Any = None
    error: Exception | None = None
    died: str | None = None

    @property
    def status(self) -> int:
        """The HTTP status that a caller sees."""
        if self.died or self.error:
            return 502
        return int(self.response["statusCode"])


@dataclass
class Call:
    """One outgoing call of an invocation.

    Parameters
    ----------
    name : str
        The name of the call in this history.
    fault : str or None
        The fault drawn for it.
    there, back : float
        Seconds until it takes effect, and from then until its response arrives.
    drawn : float
        A number from [0, 1) for the details of the fault.
    """

    name: str
    fault: str | None
    there: float
    back: float
    drawn: float


@dataclass
class Process:
    """One process of a function."""

    function: str
    name: str
    context: Context
    handler: Callable[[Any, Any], Any]


@dataclass
class Invocation:
    """One invocation of a function.

    Each outgoing call waits twice: until it takes effect, and until its response arrives.
    """

    name: str
    function: str
    schedule: Schedule
    faults: Faults
    random: Random
    counts: Counter[str]
    deadline: float = 0.0
    died: str | None = None
    calls: int = 0
    has_fault: bool = False
    queues_read: set[str] = field(default_factory=set)
    poison: str | None = None

    def begin(self, service: str, what: str, latency: tuple[float, float]) -> Call:
        """Send a call; returns at the moment when it takes effect."""
        self.calls += 1
        self.counts["calls"] += 1
        there, back, fault, drawn = (self.random.random() for _ in range(4))
        name = f"{self.name}/{self.calls} {what}"
        kind = self.faults.of_call(service, name, self.schedule.now - START, fault)
        self.has_fault = self.has_fault or kind is not None
        call = Call(name, kind, between(*latency, there), between(*latency, back), drawn)
        self.wait(call.there)
        if kind == "death before effect" or (self.poison and service == "stripe"):
            self.die()
        return call

    def end(self, call: Call) -> None:
        """Wait for the response of a call that has taken effect."""
        if call.fault == "death after effect":
            self.die()
        self.wait(call.back)

    @property
    def is_fault_free(self) -> bool:
        """Whether it had no fault and its process did not die."""
        return not self.has_fault and self.died is None

    def wait(self, seconds: float) -> None:
        """Wait in virtual time."""
        sleep(seconds)

    def die(self) -> None:
        """Kill the process here."""
        self.died = "killed"
        raise KilledError


class Fleet:
    """All processes of all functions.

    Parameters
    ----------
    seed : int
        The seed of the history.
    schedule : Schedule
        Virtual time.
    settings : Settings
        The settings of the deployment.
    faults : Faults
        The faults of the history.
    make_http_client : callable
        Makes the HTTP client of a process for Stripe.
    clock_skew : float
        The largest difference between the clocks of two processes, in seconds.

    Attributes
    ----------
    context_options : mapping
        Further arguments of the context of each new process.
    trace : callable
        Called with the parts of each step.
    stays_warm : float
        Probability that an idle process serves the next invocation of its function.
    """

    def __init__(
        self,
        *,
        seed: int,
        schedule: Schedule,
        settings: Settings,
        faults: Faults,
        make_http_client: Callable[[], stripe.HTTPClient],
        clock_skew: float = CLOCK_SKEW_SECONDS,
    ) -> None:
        self._seed = seed
        self._schedule = schedule
        self._settings = settings
        self._faults = faults
        self._make_http_client = make_http_client
        self._clock_skew = clock_skew
        self._idle: dict[str, list[Process]] = {}
        self._running: dict[int, tuple[Invocation, Task]] = {}
        self._names: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.context_options: Mapping[str, Any] = {}
        self.trace: Callable[..., None] = lambda *_: None
        self.stays_warm = _STAYS_WARM

    def invoke(
        self, function: str, event: Json, name: str, then: Callable[[Outcome], None]
    ) -> None:
        """Start an invocation now.

        Parameters
        ----------
        function : str
            The folder of the function.
        event : dict
            The event for its handler.
        name : str
            The name of the invocation; those of one name are numbered.
        then : callable
            Called with the outcome.
        """
        self._names[name] += 1
        number = self._names[name]
        name = name if number == 1 else f"{name}~{number}"
        random = chance(self._seed, name)
        process, start = self._process(function, name, random)
        invocation = Invocation(name, function, self._schedule, self._faults, random, self.counts)
        task = Task(self._schedule, lambda: self._serve(invocation, process, event, then))
        self.counts[f"invocations of {function}"] += 1
        self._schedule.after(start, lambda: self._start(invocation, task))

    def invocation(self) -> Invocation:
        """The running invocation; nothing else calls a service or a handler."""
        return self._running[id(current_task())][0]

    def is_busy(self) -> bool:
        """Return whether any invocation is in progress."""
        return bool(self._running)

    def tasks(self) -> list[Task]:
        """The tasks of the invocations that are in progress."""
        return [task for _, task in self._running.values()]

    def end(self) -> None:
        """Kill every invocation that is in progress."""
        for task in self.tasks():
            task.kill()

    def _process(self, function: str, name: str, random: Random) -> tuple[Process, float]:
        """An idle process, or a new one, and the seconds until it is ready."""
        drawn, start = random.random(), random.random()
        idle = self._idle.setdefault(function, [])
        if idle and drawn < self.stays_warm:
            return idle.pop(), 0.0
        return self._new_process(function, name), between(*_START_SECONDS, start)

    def _new_process(self, function: str, name: str) -> Process:
        random = chance(self._seed, "process", name)
        skew = (random.random() - 0.5) * self._clock_skew
        schedule = self._schedule
        context = Context(
            self._settings,
            clock=lambda: schedule.now + skew,
            sleep=sleep,
            random=random,
            make_stripe=partial(StripeGateway, http_client=self._make_http_client()),
            measure=lambda _metric, _value: None,
            **self.context_options,
        )
        return Process(function, name, context, fresh_handler(function))

    def _start(self, invocation: Invocation, task: Task) -> None:
        self._running[id(task)] = (invocation, task)
        invocation.deadline = self._schedule.now + _timeout(invocation.function)
        if len(self._running) > 1:
            self.counts["concurrent invocations"] += 1

        def expire() -> None:
            if not task.dead:
                invocation.died = "timed out"
                task.kill()

        self._schedule.at(invocation.deadline, expire)
        task.switch()

    def _serve(
        self,
        invocation: Invocation,
        process: Process,
        event: Json,
        then: Callable[[Outcome], None],
    ) -> None:
        task = current_task()
        self.trace("begin", invocation.name, process.name)
        try:
            with use(process.context):
                outcome = Outcome(process.handler(event, lambda_context(invocation)))
        except KilledError:
            outcome = Outcome(died=invocation.died or "killed")
        except SystemExit:
            outcome = Outcome(died="exited")
        except Exception as error:
            outcome = Outcome(error=error)
        del self._running[id(task)]
        if outcome.died:
            self.counts[f"processes {outcome.died}"] += 1
        else:
            self._idle.setdefault(process.function, []).append(process)
        self.trace("end", invocation.name, outcome.died, type(outcome.error).__name__)
        self._schedule.after(_RESPONSE_SECONDS, lambda: then(outcome))


def sleep(seconds: float) -> None:
    """Let the running task wait; without a task, or for no time, return at once."""
    task = current_task()
    if task is not None and seconds > 0:
        task.wait(seconds)


def lambda_context(invocation: Invocation) -> SimpleNamespace:
    """The context object that Lambda passes to a handler, on virtual time."""

    def remaining() -> int:
        return max(0, int((invocation.deadline - invocation.schedule.now) * 1000))

    context = lambda_events.lambda_context()
    context.get_remaining_time_in_millis = remaining
    return context


def _timeout(function: str) -> float:
    return WORKERS[function][1] if function in WORKERS else timeouts()[function]


def fresh_handler(function: str) -> Callable[[Any, Any], Any]:
    """The handler of a function from a newly executed module, as a new process has it."""
    if function in WORKERS:
        return WORKERS[function][0]
    handler: Callable[[Any, Any], Any] = runpy.run_module(f"functions.{function}.app")["handler"]
    return handler
