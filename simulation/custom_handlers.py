"""Custom event handlers, called by the product; they fail at times."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from simulation.processes import CLOCK_SKEW_SECONDS, Call, Fleet, Invocation
from simulation.watch import Violation, Watch
from stripe_integrations.errors import UnprocessableEventError
from stripe_integrations.models import Customer, Event, kind_of_event, stored_kinds

Json = dict[str, Any]

REFERENCE = f"{__name__}:handle"
"""The name of the handler in the settings."""
_SECONDS = (0.001, 0.5)


def handle(event: Event, customer: Customer | None) -> None:
    """Pass an event to the history that runs."""
    CustomHandlers.running.handle(event, customer)


class CustomHandlers:
    """The custom handlers of one history.

    Parameters
    ----------
    patterns : sequence of str
        The types of event that have a handler.
    fleet : Fleet
        The processes that call the handlers.
    watch : Watch
        The items of the table.
    on_violation : callable
        Called with each violation.

    Attributes
    ----------
    running : CustomHandlers
        The handlers of the history that runs.
    handled : dict
        The invocations that handled an event, by its id.
    refused : set of str
        Ids of events that a handler refused for ever.
    """

    running: ClassVar[CustomHandlers]

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
        self.handled: dict[str, list[Invocation]] = {}
        self.refused: set[str] = set()

    def has_handler_for(self, kind: str) -> bool:
        """Return whether a type of event has a handler."""
        return any(fnmatchcase(kind, pattern) for pattern in self._patterns)

    def handle(self, event: Event, customer: Customer | None) -> None:
        """Handle an event, or fail.

        Raises
        ------
        UnprocessableEventError
            The event can never be handled.
        OSError, SystemExit
            The event can't be handled now.
        """
        invocation = self._fleet.invocation()
        stripe_id = event.stripe_id or ""
        call = invocation.begin("handler", f"handler {stripe_id}", _SECONDS)
        self._fleet.trace(call.name, call.fault)
        if customer is not None and not self.is_record_current(
            event, customer, invocation.schedule.now
        ):
            detail = f"{event.kind} {stripe_id}"
            self._on_violation(Violation("the record is current when its event is handled", detail))
        if call.fault == "refuses":
            self.refused.add(stripe_id)
            raise UnprocessableEventError("drawn")
        if call.fault == "raises before effect":
            raise _failure(call)
        self.handled.setdefault(stripe_id, []).append(invocation)
        if call.fault == "raises after effect":
            raise _failure(call)
        invocation.end(call)

    def is_record_current(self, event: Event, customer: Customer, now: float) -> bool:
        """Return whether the stored record is at least as new as the event."""
        created, kind = event.created, event.kind
        partition, sort = customer.pk, f"CUSTOMER#{customer.stripe_id}"
        record = self._watch.images.get((partition, sort), {})
        if "date_purged" in record or created > now + CLOCK_SKEW_SECONDS:
            return True
        was_released = (customer.user_id, customer.stripe_id) in self._watch.released
        if not record and (was_released or customer.stripe_id in self._watch.erased):
            return True  # after its effect
        # The stamps of a test clock can't be compared with the time of a fetch.
        if "test_clock" in record or event.data_object.get("test_clock"):
            return True
        if kind in ("customer.updated", "customer.deleted"):
            return _number(record, "observed_to") >= created
        model = kind_of_event(kind, event.data_object)
        if model not in stored_kinds():
            return True
        child_key = model.key_under(customer.stripe_id, str(event.data_object.get("id")))
        child = self._watch.images.get((partition, child_key), {})
        listings = json.loads(record.get("listings", {}).get("S", "{}"))
        _, listed_to = listings.get(model.COLLECTION, (0, 0))
        return bool(max(_number(child, "observed_to"), listed_to) >= created)


def _failure(call: Call) -> BaseException:
    """An error of a handler; some handlers call `sys.exit`."""
    return SystemExit(1) if call.drawn < 0.2 else OSError("drawn")


def _number(image: Json, name: str) -> float:
    return float(image.get(name, {}).get("N", "-inf"))
