"""The Stripe account of a history, and the product's connections to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

from local.stripe_double.double import Response, StripeDouble
from simulation.chance import between, chance
from simulation.processes import CLOCK_SKEW_SECONDS, Call, Fleet
from simulation.schedule import Schedule
from stripe_integrations.adapters.stripe_gateway import CONNECT_SECONDS, READ_SECONDS

Json = dict[str, Any]

API_KEY = "sk_test_double"
AUTHORIZATION = {"Authorization": f"Bearer {API_KEY}"}
"""The headers of every request to the double."""
USUAL_SECONDS = (0.02, 0.4)

_EVENTS = "/v1/events"
_WALKED = ("/v1/customers", "/v1/subscriptions")
_SLOW_PAGES = 0.3
"""The part of the pages of the account's lists that take long, in histories with runs."""
_MORE_THAN_AN_HOUR = (3600.0, 40 * 86_400.0)


class SimulatedStripe:
    """The Stripe account of a history.

    Parameters
    ----------
    seed : int
        The seed of the history.
    schedule : Schedule
        Virtual time.
    list_lag : float
        Maximum seconds until an event is listed.
    emits_lost_defaults : bool
        Whether an update event is sent for defaults that a removed card was.

    Attributes
    ----------
    changed : callable
        Called with each new event at the time when it is created.
    calls : list of str
        The path of each call of the product, and the customer in its parameters.
    updates : dict
        The idempotency key and the status of each update that the product sent, by invocation.
    writes : list of tuple
        The function, the invocation's name and the path of each call of the product that may change
        something.
    overtake : callable
        Called with the name of a call and the objects of its page, which arrives late.
    page_limit : int or None
        How many entries the pages of the account's customers and subscriptions have at most; None
        for what is asked for.
    """

    def __init__(
        self,
        seed: int,
        schedule: Schedule,
        list_lag: float,
        *,
        emits_lost_defaults: bool = True,
    ) -> None:
        skew = (chance(seed, "Stripe's clock").random() - 0.5) * CLOCK_SKEW_SECONDS
        self.double = StripeDouble(now=lambda: schedule.now + skew, random=Random(0))
        self.double.account.emits_lost_defaults = emits_lost_defaults
        self.changed: Callable[[Json], None] = lambda _: None
        self.overtake: Callable[[str, list[Json]], None] = lambda *_: None
        self.calls: list[str] = []
        self.updates: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self.writes: list[tuple[str, str, str]] = []
        self.page_limit: int | None = None
        self._seed = seed
        self._schedule = schedule
        self._list_lag = list_lag
        self._listed_from: dict[str, float] = {}

    def act(self, name: str, method: str, path: str, params: Json | None = None) -> Response:
        """Carry out one authorised request at once.

        Parameters
        ----------
        name : str
            The name of the request; new ids depend on it.
        method, path, params
            As in HTTP.
        """
        return self.request(name, method, path, params or {}, AUTHORIZATION)

    def request(
        self,
        name: str,
        method: str,
        path: str,
        given: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Response:
        """Carry out one request and record the events that it creates."""
        if path == _EVENTS:
            return self._list_events(method, given, headers)
        with self.operation(name):
            return self.double.request(method, path, given, headers)

    @contextmanager
    def operation(self, name: str) -> Iterator[StripeDouble]:
        """Change the double in a block; its new events are recorded at the end of it.

        Parameters
        ----------
        name : str
            The name of the change. New ids depend on it, not on what was done before.
        """
        account = self.double.account
        account.random.seed(chance(self._seed, "ids", name).getrandbits(64))
        known = len(account.events)
        yield self.double
        for event in list(account.events.values())[known:]:
            drawn = chance(self._seed, "listed", event["id"])
            self._listed_from[event["id"]] = self._schedule.now + drawn.random() * self._list_lag
            if self._is_on_test_clock(event):
                event["created"] += int(between(*_MORE_THAN_AN_HOUR, drawn.random()))
                account.events_by_creation.add(event["id"], event["created"])
            self.changed(event)

    def _is_on_test_clock(self, event: Json) -> bool:
        subject = event["data"]["object"]
        owner = subject.get("customer") if subject["object"] != "customer" else subject["id"]
        customer = self.double.account.customers.get(owner or "")
        return customer is not None and customer["test_clock"] is not None

    def _list_events(
        self, method: str, given: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Response:
        """List the events that are listed by now; the newest may be missing."""
        account = self.double.account
        all_events = account.events
        account.events = {
            name: event
            for name, event in all_events.items()
            if self._listed_from[name] <= self._schedule.now
        }
        try:
            return self.double.request(method, _EVENTS, given, headers)
        finally:
            account.events = all_events


class StripeConnection:
    """The connection of one process to Stripe, for a `StripeDoubleClient`.

    Parameters
    ----------
    stripe_side : SimulatedStripe
        The Stripe account.
    fleet : callable
        Returns the fleet that the process belongs to.
    """

    def __init__(self, stripe_side: SimulatedStripe, fleet: Callable[[], Fleet]) -> None:
        self._stripe = stripe_side
        self._fleet = fleet

    def request(
        self, method: str, path: str, given: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Response:
        """Carry one request to Stripe and its response back, with the faults drawn for it."""
        invocation = self._fleet().invocation()
        call = invocation.begin("stripe", f"{method.upper()} {path}", USUAL_SECONDS)
        trace = self._fleet().trace
        if call.fault in ("refused", "lost request"):
            trace(call.name, call.fault)
            is_refused_at_once = call.fault == "refused" and call.drawn >= 0.5
            connect = CONNECT_SECONDS if call.fault == "refused" else READ_SECONDS
            return _lost(0.0 if is_refused_at_once else connect)
        self._stripe.calls.append(f"{path} {given.get('customer', '')}")
        self._arrange(call, method.upper())
        if method.upper() != "GET":
            self._stripe.writes.append((invocation.function, invocation.name, path))
        elif path in _WALKED and self._stripe.page_limit:
            given = {**given, "limit": self._stripe.page_limit}
        name = f"{invocation.name}/{invocation.calls}"
        response = self._stripe.request(name, method, path, given, headers)
        self._stripe.double.faults.clear()
        if self._is_slow_page(call, path, given):
            self._stripe.overtake(call.name, response.body.get("data", []))
            response = replace(response, delay=_slow_seconds(call.drawn / _SLOW_PAGES))
        if method.upper() == "POST" and path.startswith("/v1/customers/"):
            key = headers["Idempotency-Key"]
            self._stripe.updates[invocation.name].append((key, response.status))
        trace(call.name, call.fault, response.status, response.body.get("id"))
        if call.fault == "lost response":
            return _lost(READ_SECONDS)
        if response.delay:
            invocation.wait(response.delay)
        invocation.end(call)
        return replace(response, delay=0.0)

    def _is_slow_page(self, call: Call, path: str, given: Mapping[str, Any]) -> bool:
        is_page = path in _WALKED and "customer" not in given
        is_walked = is_page and self._stripe.page_limit is not None
        return is_walked and call.fault is None and call.drawn < _SLOW_PAGES

    def _arrange(self, call: Call, method: str) -> None:
        """Set the faults of the double for this one request."""
        faults = self._stripe.double.faults
        match call.fault:
            case "500 before effect":
                faults.fail_next(status=500)
            case "500 after effect":
                faults.fail_next(status=500, takes_effect=True)
            case "503" | "429" | "401":
                faults.fail_next(status=int(call.fault))
            case "404":
                # A key of an account without our customers, which may not create any.
                faults.fail_next(status=404 if method == "GET" else 403, code="resource_missing")
            case "slow":
                faults.delay(_slow_seconds(call.drawn))


def _slow_seconds(drawn: float) -> float:
    return between(0.4, READ_SECONDS - 1, drawn)


def _lost(seconds: float) -> Response:
    """A connection error after so many seconds."""
    return Response(0, {}, {}, delay=seconds, lost=True)
