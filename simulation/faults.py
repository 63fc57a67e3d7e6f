"""Faults: drawn for each call from its name, counted, and each can be left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from random import Random

from simulation.chance import between, chance, pick

DATABASE_FAULTS = (
    "throttled",
    "conflict",
    "refused",
    "lost request",
    "lost response",
    "error before effect",
    "error after effect",
    "death before effect",
    "death after effect",
)
STRIPE_FAULTS = (
    "refused",
    "lost request",
    "lost response",
    "500 before effect",
    "500 after effect",
    "503",
    "429",
    "slow",
    "death before effect",
    "death after effect",
)
SERVICE_FAULTS = ("refused", "lost response", "death before effect", "death after effect")
HANDLER_FAULTS = (
    "raises before effect",
    "raises after effect",
    "refuses",
    "death before effect",
    "death after effect",
)
FIRST_KINDS = (
    "customer.created",
    "customer.source.created",
    "customer.subscription.created",
    "payment_method.attached",
)
"""Types of event that later events of the same object may overtake."""

_STRIPE_OUTAGES = {
    "429": (2.0, 60.0),
    "401": (60.0, 7200.0),
    "404": (60.0, 7200.0),
    "refused": (60.0, 3600.0),
}
_DATABASE_OUTAGES = {"throttled": (1.0, 30.0), "refused": (5.0, 300.0)}
_OVERTAKEN_SECONDS = (10.0, 900.0)
_LONG_OUTAGE_SECONDS = 2 * 24 * 3600.0


@dataclass(frozen=True)
class Outage:
    """A period in which most calls to one service fail.

    Parameters
    ----------
    service : str
        ``stripe`` or ``database``.
    kind : str
        The fault of each call.
    start, end : float
        Seconds since the history's start.
    """

    service: str
    kind: str
    start: float
    end: float

    @property
    def name(self) -> str:
        """The name by which the outage can be left out."""
        return f"outage/{self.service}/{self.kind}/{self.start:.0f}"


@dataclass(frozen=True)
class FaultProfile:
    """How often each kind of fault happens in a history.

    Parameters
    ----------
    stripe, database, queue, bus, bucket, handler : tuple
        Kinds of fault and their probability per call of the service; `handler` is the custom
        handlers.
    outages : tuple of Outage
        Periods of failure.
    lost, duplicated, poisonous : float
        Probability that an event is never delivered, is delivered twice, and kills every process
        that attempts it.
    overtaken : float
        Probability that the event of a new object is delivered after later events.
    delays : tuple
        Kinds of delivery delay and their weights.
    index_lag : float
        Maximum lag of the index in seconds.
    list_lag : float
        Maximum seconds until Stripe lists an event.
    stream_off : tuple
        Start and end of the period without a stream, in seconds since the history's start.
    """

    stripe: tuple[tuple[str, float], ...] = ()
    database: tuple[tuple[str, float], ...] = ()
    queue: tuple[tuple[str, float], ...] = ()
    bus: tuple[tuple[str, float], ...] = ()
    bucket: tuple[tuple[str, float], ...] = ()
    handler: tuple[tuple[str, float], ...] = ()
    outages: tuple[Outage, ...] = ()
    lost: float = 0.0
    duplicated: float = 0.0
    poisonous: float = 0.0
    overtaken: float = 0.0
    delays: tuple[tuple[str, float], ...] = (("prompt", 1.0),)
    index_lag: float = 0.0
    list_lag: float = 5.0
    stream_off: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, random: Random, length: float) -> FaultProfile:
        """Draw the profile of a history of so many seconds; one in six has no faults."""
        if random.random() < 1 / 6:
            return cls()
        stripe = _rates(random, STRIPE_FAULTS)
        database = _rates(random, DATABASE_FAULTS)
        service = _rates(random, SERVICE_FAULTS)
        return cls(
            stripe=stripe,
            database=database,
            queue=service,
            bus=service,
            bucket=service,
            handler=_handler_rates(random),
            outages=_outages(random, length),
            lost=random.choice((0.0, 0.05, 0.3)),
            duplicated=random.choice((0.0, 0.2, 0.5)),
            poisonous=0.1 if random.random() < 0.06 else 0.0,
            overtaken=random.choice((0.0, 0.0, 0.2, 0.6)),
            delays=random.choice(
                (
                    (("prompt", 1.0),),
                    (("prompt", 0.7), ("slow", 0.3)),
                    (("prompt", 0.3), ("slow", 0.6), ("late", 0.1)),
                )
            ),
            index_lag=random.choice((0.0, 0.5, 10.0)),
            list_lag=random.choice((5.0, 60.0, 60.0, 300.0)),
            stream_off=_stream_off(random, length),
        )


@dataclass
class Faults:
    """The faults of one history.

    Parameters
    ----------
    seed : int
        The seed of the history.
    fault_profile : FaultProfile
        How often.
    only : set of str, optional
        The faults that may happen, by name; by default all that are drawn.
    """

    seed: int
    profile: FaultProfile
    only: Set[str] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    happened: list[str] = field(default_factory=list)
    is_stopped: bool = False
    is_cured: bool = False
    poisonous: set[str] = field(default_factory=set)

    def of_call(self, service: str, call: str, elapsed: float, drawn: float) -> str | None:
        """The fault of one call, or None.

        Parameters
        ----------
        service : str
            ``stripe``, ``database``, ``queue``, ``bus``, ``bucket`` or ``handler``.
        call : str
            The name of the call in this history.
        elapsed : float
            Seconds since the history's start.
        drawn : float
            A number from [0, 1), drawn for the call.
        """
        if self.is_stopped or elapsed < 0:
            return None
        for outage in self.profile.outages:
            if outage.service == service and outage.start <= elapsed < outage.end and drawn < 0.9:
                happens = self.happens(outage.name, f"{service} {outage.kind}")
                return outage.kind if happens else None
        kind = pick(getattr(self.profile, service), drawn)
        if kind is None or not self.happens(f"{call}/{kind}", f"{service} {kind}"):
            return None
        return kind

    def happens(self, name: str, kind: str) -> bool:
        """Return whether a drawn fault may happen; if so it is counted."""
        if self.only is not None and name not in self.only:
            return False
        self.counts[kind] += 1
        self.happened.append(name)
        return True

    def is_poisonous(self, key: str) -> bool:
        """Return whether an event kills every process that attempts it, until it is cured."""
        if self.is_cured or not self.profile.poisonous or not key.startswith("EVENT#"):
            return False
        if key in self.poisonous:
            return True
        is_drawn = chance(self.seed, "poison", key).random() < self.profile.poisonous
        if is_drawn and self.happens(f"{key}/poison", "event poisonous"):
            self.poisonous.add(key)
        return key in self.poisonous

    def delivery(self, name: str, event_type: str) -> DeliveryPlan:
        """Draw how one event is delivered to the webhook.

        Parameters
        ----------
        name : str
            The name of the delivery in this history.
        event_type : str
            The type of the event.
        """
        random = chance(self.seed, "delivery", name)
        lost, duplicated, kind, first, second, overtaken = (random.random() for _ in range(6))
        prompt = DeliveryPlan(between(0.02, 2.0, first))
        if self.is_stopped:
            return prompt
        if lost < self.profile.lost and self.happens(f"{name}/lost", "event lost"):
            return DeliveryPlan(None)
        delay = prompt.delay
        kind_drawn = pick(self.profile.delays, kind)
        if kind_drawn in ("slow", "late") and self.happens(f"{name}/{kind_drawn}", "event delayed"):
            bounds = (2.0, 600.0) if kind_drawn == "slow" else (600.0, 86_400.0)
            delay = between(*bounds, first)
        elif (
            event_type in FIRST_KINDS
            and overtaken < self.profile.overtaken
            and self.happens(f"{name}/overtaken", "event overtaken")
        ):
            delay = between(*_OVERTAKEN_SECONDS, first)
        is_repeated = duplicated < self.profile.duplicated
        if is_repeated and self.happens(f"{name}/duplicated", "event duplicated"):
            return DeliveryPlan(delay, between(0.001, 3600.0, second))
        return DeliveryPlan(delay)


@dataclass(frozen=True)
class DeliveryPlan:
    """How an event is delivered.

    Parameters
    ----------
    delay : float or None
        Seconds until the first delivery; None if the event is lost.
    repeat_after : float or None
        Seconds from the first delivery to a duplicate; None if there is none.
    """

    delay: float | None
    repeat_after: float | None = None


def _rates(random: Random, kinds: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Some kinds of fault with their rates; at most 40 % of the calls fail."""
    severity = random.choice((0.0, 0.01, 0.03, 0.1, 0.25))
    chosen = [kind for kind in kinds if random.random() < 0.5]
    return tuple((kind, severity * random.uniform(0.2, 1.0) / len(chosen) * 2) for kind in chosen)


def _handler_rates(random: Random) -> tuple[tuple[str, float], ...]:
    """Rates for custom handlers, higher because they are called rarely."""
    severity = random.choice((0.0, 0.1, 0.3, 0.6))
    chosen = [kind for kind in HANDLER_FAULTS if random.random() < 0.5]
    return tuple((kind, severity / len(chosen)) for kind in chosen)


def _outages(random: Random, length: float) -> tuple[Outage, ...]:
    outages = []
    for service, kinds in (("stripe", _STRIPE_OUTAGES), ("database", _DATABASE_OUTAGES)):
        if random.random() < 0.2:
            kind = random.choice(sorted(kinds))
            start = random.uniform(0, length)
            outages.append(
                Outage(service, kind, start, start + between(*kinds[kind], random.random()))
            )
    if random.random() < 0.02:
        start = random.uniform(0, length)
        outages.append(Outage("stripe", "refused", start, start + _LONG_OUTAGE_SECONDS))
    return tuple(outages)


def _stream_off(random: Random, length: float) -> tuple[float, float]:
    drawn = random.random()
    if drawn < 0.05:
        return (0.0, float("inf"))
    if drawn < 0.15:
        start = random.uniform(0, length)
        return (start, start + between(60.0, 2 * 86_400.0, random.random()))
    return (0.0, 0.0)
