"""Webhook deliveries that are late, duplicated, out of order, lost and retried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from local.stripe_double.webhooks import Delivery, sign
from simulation.faults import Faults
from simulation.processes import Fleet, Outcome
from simulation.schedule import Schedule
from simulation.stripe_side import SimulatedStripe
from tools.lambda_events import api_event

Json = dict[str, Any]

FUNCTION = "link_customer"
SECRET = "whsec_double"  # noqa: S105 - of the double
URL = "https://hook"


class Deliveries:
    """Delivers the double's queued events to the webhook function.

    Parameters
    ----------
    schedule : Schedule
        Virtual time.
    stripe_side : SimulatedStripe
        The Stripe account.
    fleet : Fleet
        The processes of the webhook function.
    faults : Faults
        The faults of the history.
    responded : callable
        Called with the id of each delivered event and the outcome of the invocation.
    """

    def __init__(
        self,
        schedule: Schedule,
        stripe_side: SimulatedStripe,
        fleet: Fleet,
        faults: Faults,
        responded: Callable[[str, Outcome], None],
    ) -> None:
        self._schedule = schedule
        self._webhooks = stripe_side.double.webhooks
        self._fleet = fleet
        self._faults = faults
        self._responded = responded
        self._in_progress: set[int] = set()
        self._planned: list[float] = []
        self.lost: set[str] = set()
        self.counts: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        """Whether no delivery is pending."""
        return self._webhooks.pending_count() == 0

    def next_at(self) -> float:
        """The time of the next delivery: now, if one is in progress."""
        return min(self._planned, default=self._schedule.now)

    def send_due(self) -> None:
        """Start the deliveries that are due and not in progress."""
        for delivery in self._webhooks.due():
            if delivery.number in self._in_progress:
                continue
            self._in_progress.add(delivery.number)
            name = f"{delivery.event_id}/{delivery.attempt}"
            plan = self._faults.delivery(name, delivery.event_type)
            if plan.delay is None and delivery.attempt == 1:
                self.lost.add(delivery.event_id)
                self._webhooks.mark(delivery, 200)
                continue
            self._after(plan.delay or 0.0, delivery)
            if plan.repeat_after is not None:
                self._after((plan.delay or 0.0) + plan.repeat_after, delivery, again=True)

    def send(self, name: str, body: bytes, headers: Json, then: Callable[[Outcome], None]) -> None:
        """POST a body to the webhook."""
        event = api_event("POST", "/", body=body.decode())
        self.counts["deliveries"] += 1
        self._fleet.invoke(FUNCTION, {**event, "headers": headers}, name, then)

    def _after(self, seconds: float, delivery: Delivery, *, again: bool = False) -> None:
        self._plan(seconds, lambda: self._deliver(delivery, again=again))

    def _plan(self, seconds: float, action: Callable[[], None]) -> None:
        moment = self._schedule.now + seconds
        self._planned.append(moment)

        def act() -> None:
            self._planned.remove(moment)
            action()

        self._schedule.at(moment, act)

    def _deliver(self, delivery: Delivery, *, again: bool) -> None:
        # Stripe signs each attempt at the time when it is sent.
        signature = sign(delivery.body, SECRET, self._webhooks.account.clock())
        headers = {**delivery.headers, "Stripe-Signature": signature}
        name = f"hook {delivery.event_type} {delivery.event_id[4:10]}"

        def then(outcome: Outcome) -> None:
            self._responded(delivery.event_id, outcome)
            if again:
                return
            self._in_progress.discard(delivery.number)
            self._webhooks.mark(delivery, outcome.status)
            due = self._webhooks.next_due(self._in_progress)
            if due is not None:
                wait = due - self._webhooks.account.clock()
                self._plan(wait + 0.001, self.send_due)

        self.send(name, delivery.body, headers, then)
        if again:
            self.counts["duplicates"] += 1
        elif delivery.attempt > 1:
            self.counts["retries"] += 1
