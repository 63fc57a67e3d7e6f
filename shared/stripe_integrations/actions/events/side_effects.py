"""What follows on an event's effect, before it is marked: own handlers, then the event bus."""

from __future__ import annotations

from dataclasses import dataclass

from stripe_integrations.actions.events.handlers import handlers_of, has_handlers
from stripe_integrations.context import current
from stripe_integrations.errors import (
    EventHandlerNotFoundError,
    MessageNotSentError,
    OutOfTimeError,
)
from stripe_integrations.models import Customer, Event
from stripe_integrations.models.customer import ExtraItem
from stripe_integrations.observability import Metric, logger

OLDER = "older than what the record shows"
OUR_OWN = (EventHandlerNotFoundError, MessageNotSentError, OutOfTimeError)
"""What fails here by no fault of a handler's, so that its message is known to hold no value."""

_NEEDED_SECONDS = 12
"""What one event may take here: as long as the event bus may, and the mark."""


@dataclass(frozen=True)
class Outcome:
    """How an event is to end, once what it calls for was done.

    Parameters
    ----------
    event : Event
        The event, claimed.
    has_effect : bool
        Whether the record shows what it says, by this try or an earlier one.
    reason : str or None
        Why it has none.
    was_ambiguous : bool
        Whether Stripe was asked, since nobody could tell if it is newer than the record.
    """

    event: Event
    has_effect: bool = True
    reason: str | None = None
    was_ambiguous: bool = False

    @property
    def is_handled(self) -> bool:
        """Whether the deployment has a handler of its own for it."""
        return has_handlers(self.event.kind or "")

    @property
    def is_published(self) -> bool:
        """Whether the bus hears of it."""
        return self.has_effect and current().settings.event_bus_name is not None

    @property
    def has_side_effects(self) -> bool:
        """Whether anything is to be done between its effect and its mark."""
        return self.is_handled or self.is_published

    @property
    def state(self) -> str:
        """The state that it ends in."""
        return "applied" if self.has_effect or self.is_handled else "ignored"

    @property
    def is_in_transaction(self) -> bool:
        """Whether the transaction of the effect says anything of it."""
        return self.has_effect or not self.has_side_effects

    def transaction_item(self) -> ExtraItem:
        """What is written in the transaction of the effect: its mark, or that it took effect."""
        if self.has_side_effects:
            return self.event.effect_mark()
        return self.event.ending(self.state, self.reason)

    def end(self) -> None:
        """Mark the event."""
        finish(self.event, self.state, self.reason)

    def report(self) -> None:
        """Tell how the event has ended, where its mark was written with the effect."""
        _report(self.event, self.state, self.reason)

    def follow(self, customer: Customer | None) -> None:
        """Call the deployment's own functions, and announce the change.

        Raises
        ------
        OutOfTimeError
            The invocation would end before it is done.
        """
        if current().remaining_seconds() < _NEEDED_SECONDS:
            raise OutOfTimeError("no time is left for what follows on the event")
        kind = self.event.kind or ""
        for handle in handlers_of(kind):
            handle(self.event, customer)
        if self.is_published:
            current().publish_change(
                {
                    "event_id": self.event.stripe_id,
                    "type": kind,
                    "created": self.event.created,
                    "customer_id": self.event.customer_id,
                    "user_id": self.event.user_id,
                    "livemode": self.event.livemode,
                }
            )


def is_failure(error: BaseException) -> bool:
    """Whether this is how code of the deployment's own may fail, and not the end of the process."""
    from asyncio import CancelledError  # noqa: PLC0415 - most processes never need it

    raised = (Exception, SystemExit, GeneratorExit, BaseExceptionGroup, CancelledError)
    return isinstance(error, raised)


def finish(event: Event, state: str, reason: str | None) -> None:
    """End an event, and tell how, unless somebody else has ended it."""
    if event.finish(state, reason):
        _report(event, state, reason)


def _report(event: Event, state: str, reason: str | None) -> None:
    is_applied = state == "applied"
    current().add_metric(Metric.EVENTS_APPLIED if is_applied else Metric.EVENTS_IGNORED)
    if reason == OLDER:
        current().add_metric(Metric.STALE_EVENTS_DROPPED)
    logger.info(
        "event ended",
        extra={
            "stripe_event_id": event.stripe_id,
            "stripe_customer_id": event.customer_id,
            "state": state,
            "event_reason": reason,
        },
    )
