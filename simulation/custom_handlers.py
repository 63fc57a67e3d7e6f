"""The deployment's own event handlers, as the product finds and calls them; they fail at times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from simulation.processes import CLOCKS_DIFFER_SECONDS, Call, Fleet
from simulation.runtime import hooks
from simulation.watch import Violation, Watch
from stripe_integrations.errors import UnprocessableEventError
from stripe_integrations.models import Card, Customer, Event, Subscription

Json = dict[str, Any]

REFERENCE = f"{__name__}:handle"
"""How the deployment's settings name the handler."""
_SECONDS = (0.001, 0.5)


def handle(event: Event, customer: Customer | None) -> None:
    """The handler: the history that is being played takes note."""
    hooks().handle(event, customer)


class CustomHandlers:
    """What the handlers of one history do.

    Parameters
    ----------
    patterns : sequence of str
        The types of event that they are for.
    fleet : Fleet
        Tells in which invocation they run.
    watch : Watch
        The table as it stands.
    on_violation : callable
        Gets every violation.

    Attributes
    ----------
    handled : set of str
        Events that were handled, by their ids.
    refused : set of str
        Events that they said can never be handled.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        fleet: Fleet,
        watch: Watch,
        on_violation: Callable[[Violation], None],
    ) -> None:
        self._patterns = patterns
        self._fleet = fleet
        self._watch = watch
        self._on_violation = on_violation
        self.handled: set[str] = set()
        self.refused: set[str] = set()

    def has_handler_for(self, kind: str) -> bool:
        """Whether there is one for a type of event."""
        return any(fnmatchcase(kind, pattern) for pattern in self._patterns)

    def handle(self, event: Event, customer: Customer | None) -> None:
        """Handle an event, or fail in doing so.

        Raises
        ------
        UnprocessableEventError
            The event can never be handled.
        OSError, SystemExit
            It can't be now.
        """
        invocation = self._fleet.invocation()
        if invocation is None:
            raise RuntimeError("a handler is called outside of any invocation")
        stripe_id = event.stripe_id or ""
        call = invocation.begin("handler", f"handler {stripe_id}", _SECONDS)
        self._fleet.trace(call.name, call.fault)
        if customer is not None and not self.is_in_record(event, customer, invocation.schedule.now):
            detail = f"{event.kind} {stripe_id}"
            self._on_violation(Violation("an event is handled once the record shows it", detail))
        if call.fault == "refuses":
            self.refused.add(stripe_id)
            raise UnprocessableEventError("drawn")
        if call.fault == "raises before effect":
            raise _failure(call)
        self.handled.add(stripe_id)
        if call.fault == "raises after effect":
            raise _failure(call)
        invocation.end(call)

    def is_in_record(self, event: Event, customer: Customer, now: float) -> bool:
        """Whether what stands in the table is not older than what the event tells."""
        created, kind = event.created or 0, event.kind or ""
        partition, sort = f"USER#{customer.user_id}", f"CUSTOMER#{customer.stripe_id}"
        record = self._watch.images.get((partition, sort), {})
        if "date_purged" in record or created > now + CLOCKS_DIFFER_SECONDS:
            return True
        if kind in ("customer.updated", "customer.deleted"):
            return _number(record, "true_until") >= created
        model = Card if kind.startswith("payment_method.") else Subscription
        child_key = f"{sort}#{model.KIND}#{event.subject.get('id')}"
        child = self._watch.images.get((partition, child_key), {})
        listed_until = _number(record, f"{model.LISTED_AS}_until")
        return max(_number(child, "true_until"), listed_until) >= created


def _failure(call: Call) -> BaseException:
    """What somebody else's code may raise; some of it calls `sys.exit`."""
    return SystemExit(1) if call.drawn < 0.2 else OSError("drawn")


def _number(image: Json, name: str) -> float:
    return float(image.get(name, {}).get("N", "-inf"))
