"""Stripe as the product's processes meet it, and as the rest of the world uses it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, ClassVar
from urllib.parse import urlsplit

import stripe

from local.stripe_double import form
from local.stripe_double.client import ResponseHeaders
from local.stripe_double.double import Response, StripeDouble
from simulation.chance import between, chance
from simulation.faults import Faults
from simulation.processes import CLOCKS_DIFFER_SECONDS, Call, Fleet, Invocation, sleep
from simulation.schedule import Schedule
from stripe_integrations.stripe_gateway import CONNECT_SECONDS, READ_SECONDS

Json = dict[str, Any]

API_KEY = "sk_test_double"
AUTHORIZATION = {"Authorization": f"Bearer {API_KEY}"}
"""What every request to the double carries."""
USUAL_SECONDS = (0.02, 0.4)

_REFUSALS = {"503": 503, "429": 429, "401": 401}
_EVENTS = "/v1/events"
_MORE_THAN_AN_HOUR = (3600.0, 40 * 86_400.0)


class SimulatedStripe:
    """The one Stripe of a history.

    Parameters
    ----------
    seed : int
        The history's.
    schedule : Schedule
        Virtual time.
    faults : Faults
        What goes wrong.
    list_lag : float
        Most seconds after which an event is listed.
    emits_lost_defaults : bool
        Whether events tell of the defaults that go with a removed card.

    Attributes
    ----------
    changed : callable
        Called with each new event, at the moment in which it comes to be.
    """

    def __init__(
        self,
        seed: int,
        schedule: Schedule,
        faults: Faults,
        list_lag: float,
        *,
        emits_lost_defaults: bool = True,
    ) -> None:
        skew = (chance(seed, "Stripe's clock").random() - 0.5) * CLOCKS_DIFFER_SECONDS
        self.double = StripeDouble(now=lambda: schedule.now + skew, random=Random(0))
        self.double.account.emits_lost_defaults = emits_lost_defaults
        self.changed: Callable[[Json], None] = lambda _: None
        self._seed = seed
        self._schedule = schedule
        self._faults = faults
        self._list_lag = list_lag
        self._listed_from: dict[str, float] = {}

    def act(self, name: str, method: str, path: str, params: Json | None = None) -> Response:
        """Carry out one request at once.

        Parameters
        ----------
        name : str
            Whose request it is: it decides the ids that are drawn.
        method, path, params
            As in HTTP.
        """
        return self.request(name, method, path, params or {}, AUTHORIZATION)

    def request(
        self, name: str, method: str, path: str, given: Json, headers: Mapping[str, str]
    ) -> Response:
        """Carry out one request, with the events that it brings."""
        if path == _EVENTS:
            return self._list_events(method, given, headers)
        with self.happening(name):
            return self.double.request(method, path, given, headers)

    def happening(self, name: str) -> _Happening:
        """What happens on Stripe inside of this block goes by a name."""
        return _Happening(self, name)

    def seed_ids(self, name: str) -> None:
        """Let the next ids depend on the name of what is done, not on what was done before."""
        self.double.account.random.seed(chance(self._seed, "ids", name).getrandbits(64))

    def notice(self, known: int) -> None:
        """Take note of the events beyond the ones that are known."""
        events = self.double.account.events
        for event in list(events.values())[known:]:
            drawn = chance(self._seed, "listed", event["id"])
            self._listed_from[event["id"]] = self._schedule.now + drawn.random() * self._list_lag
            if self._is_on_test_clock(event):
                event["created"] += int(between(*_MORE_THAN_AN_HOUR, drawn.random()))
            self.changed(event)

    def _is_on_test_clock(self, event: Json) -> bool:
        subject = event["data"]["object"]
        owner = subject.get("customer") if subject["object"] != "customer" else subject["id"]
        customer = self.double.account.customers.get(owner or "")
        return customer is not None and customer["test_clock"] is not None

    def _list_events(self, method: str, given: Json, headers: Mapping[str, str]) -> Response:
        """List what is listed by now: what has just happened may be missing."""
        account = self.double.account
        everything = account.events
        account.events = {
            name: event
            for name, event in everything.items()
            if self._listed_from[name] <= self._schedule.now
        }
        try:
            return self.double.request(method, _EVENTS, given, headers)
        finally:
            account.events = everything


class _Happening:
    """Draws ids by name, and notices the events that came of a block."""

    def __init__(self, stripe_side: SimulatedStripe, name: str) -> None:
        self._stripe = stripe_side
        self._name = name
        self._known = 0

    def __enter__(self) -> StripeDouble:
        self._stripe.seed_ids(self._name)
        self._known = len(self._stripe.double.account.events)
        return self._stripe.double

    def __exit__(self, *_: object) -> None:
        self._stripe.notice(self._known)


class SimulatedHttpClient(stripe.HTTPClient):
    """What carries one process's requests to Stripe.

    Parameters
    ----------
    stripe_side : SimulatedStripe
        What answers.
    fleet : callable
        Gives the fleet that the process is of.
    """

    name: ClassVar[str] = "simulation"

    def __init__(self, stripe_side: SimulatedStripe, fleet: Callable[[], Fleet]) -> None:
        super().__init__()
        self._stripe = stripe_side
        self._fleet = fleet

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        """Carry one request there and its answer back.

        Raises
        ------
        stripe.APIConnectionError
            The request or its answer was lost.
        """
        parts = urlsplit(url)
        invocation = self._fleet().invocation()
        if invocation is None:
            raise RuntimeError("the product asks Stripe outside of any invocation")
        given = form.decode((post_data or "") if method.lower() == "post" else parts.query)
        call = invocation.begin("stripe", f"{method.upper()} {parts.path}", USUAL_SECONDS)
        self._before(invocation, call)
        self._arrange(call, method.upper())
        name = f"{invocation.name}/{invocation.calls}"
        response = self._stripe.request(name, method, parts.path, given, dict(headers or {}))
        self._stripe.double.faults.clear()
        self._fleet().trace(call.name, call.fault, response.status, response.body.get("id"))
        if call.fault == "lost answer":
            invocation.wait(READ_SECONDS)
            raise _no_answer()
        if response.delay:
            invocation.wait(response.delay)
        invocation.end(call)
        return json.dumps(response.body), response.status, ResponseHeaders(response.headers)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _before(self, invocation: Invocation, call: Call) -> None:
        """What keeps a request from coming to Stripe."""
        if call.fault == "refused":
            self._fleet().trace(call.name, call.fault)
            if call.drawn < 0.5:
                invocation.wait(CONNECT_SECONDS)
            raise _no_answer()
        if call.fault == "lost request":
            self._fleet().trace(call.name, call.fault)
            invocation.wait(READ_SECONDS)
            raise _no_answer()

    def _arrange(self, call: Call, method: str) -> None:
        """Set in the double what it is to do with this one request."""
        faults = self._stripe.double.faults
        match call.fault:
            case "500 before effect":
                faults.fail_next(status=500)
            case "500 after effect":
                faults.fail_next(status=500, takes_effect=True)
            case "503" | "429" | "401":
                faults.fail_next(status=_REFUSALS[call.fault])
            case "404":
                # The key of an account that knows none of our customers, and may make none.
                faults.fail_next(status=404 if method == "GET" else 403, code="resource_missing")
            case "slow":
                faults.delay(between(0.4, READ_SECONDS - 1, call.drawn))

    def _sleep_time_seconds(self, num_retries: int) -> float:
        # The library would sleep in earnest for what this returns.
        sleep(float(min(self.INITIAL_DELAY * 2 ** (num_retries - 1), self.MAX_DELAY)))
        return 0.0


def _no_answer() -> stripe.APIConnectionError:
    return stripe.APIConnectionError(  # type: ignore[no-untyped-call]
        "Unexpected error communicating with Stripe.", should_retry=True
    )
