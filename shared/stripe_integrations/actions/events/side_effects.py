"""The outcome of an event: its mark, its side effects (custom handlers, event bus), its report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pynamodb.transactions import TransactWrite

from stripe_integrations import limits
from stripe_integrations.actions.customers.adopt import adopt_by_metadata
from stripe_integrations.actions.events.handlers import handlers_of, has_handlers
from stripe_integrations.context import current
from stripe_integrations.errors import OutOfTimeError, SideEffectFailedError, StaleRecordError
from stripe_integrations.models import Customer, Event, EventState
from stripe_integrations.observability import Metric

OLDER = "older than the stored state"
DELETED = "the customer is deleted"


class Effect(StrEnum):
    """The effect of an event on the records, as it is published."""

    APPLIED = "applied"
    """The record includes its change, by this attempt or an earlier one."""
    OLDER = "older"
    """The record already had this state or a later one."""
    FROZEN = "frozen"
    """Stripe has deleted the customer, so the event is not applied."""
    NONE = "none"
    """It changes no record, and is published because `publish_types` has its type."""


@dataclass(frozen=True)
class Outcome:
    """How an event ends, once its change is committed.

    Parameters
    ----------
    event : Event
        The event, claimed.
    effect : Effect or None
        How it affected the record; None where it is not published: it changes no record of ours.
    reason : str or None
        Why it has no effect.
    was_ambiguous : bool
        Whether Stripe was called, since the event was not certainly newer or older.
    adopts : bool
        Whether it ends only after the user has adopted the customer whom its metadata names.
    """

    event: Event
    effect: Effect | None = Effect.APPLIED
    reason: str | None = None
    was_ambiguous: bool = False
    adopts: bool = False

    @classmethod
    def older(cls, event: Event) -> Outcome:
        """The outcome of an event whose state, or a later one, was stored already."""
        return cls(event, Effect.OLDER, OLDER)

    @classmethod
    def frozen(cls, event: Event) -> Outcome:
        """The outcome of an event of a customer that Stripe has deleted."""
        return cls(event, Effect.FROZEN, DELETED)

    @property
    def is_change_stored(self) -> bool:
        """Whether the record includes its change."""
        return self.effect is Effect.APPLIED

    @property
    def is_handled(self) -> bool:
        """Whether the deployment has a custom handler for it."""
        return has_handlers(self.event.kind)

    @property
    def is_published(self) -> bool:
        """Whether it is published to the event bus: an unassigned customer's is not."""
        has_user = self.event.customer_id is None or self.event.user_id is not None
        has_bus = current().settings.event_bus_name is not None
        return self.effect is not None and has_user and has_bus

    @property
    def has_side_effects(self) -> bool:
        """Whether anything happens between its effect and its mark."""
        return self.is_handled or self.is_published or self.adopts

    @property
    def state(self) -> EventState:
        """The state that it ends in."""
        is_applied = self.is_change_stored or self.is_handled
        return EventState.APPLIED if is_applied else EventState.IGNORED

    @property
    def in_transaction(self) -> bool:
        """Whether the transaction of the change includes a write of the event."""
        return self.is_change_stored or not self.has_side_effects

    def add_to(self, transaction: TransactWrite) -> None:
        """Add the event's write to the transaction: its mark, or that it took effect."""
        if self.has_side_effects:
            self.event.note_effect(transaction)
        else:
            self.event.finish_in(transaction, self.state, self.reason)

    def run_side_effects(self, customer: Customer | None) -> str | None:
        """Publish the event, call the custom handlers, and let a user adopt the customer.

        Returns
        -------
        str or None
            Why the user has not adopted it.

        Raises
        ------
        SideEffectFailedError
            One failed, or the invocation would end before they are done; the cause is chained.
        """
        try:
            return self._run_side_effects(customer)
        except BaseException as error:
            if not _is_failure(error):
                raise
            message = f"side effects of {self.event.stripe_id} failed"
            raise SideEffectFailedError(message) from error

    def _run_side_effects(self, customer: Customer | None) -> str | None:
        if not current().has_time_for(limits.SIDE_EFFECTS_SECONDS):
            raise OutOfTimeError("no time is left for the side effects of the event")
        if self.is_published and not self.event.published_at:
            self._publish(customer)
        for handle in handlers_of(self.event.kind):
            handle(self.event, customer)
        return adopt_by_metadata(str(self.event.customer_id)) if self.adopts else None

    def _publish(self, customer: Customer | None) -> None:
        """Publish the event's effect, before the custom handlers run: they may fail."""
        current().publish_change(
            {
                "event_id": self.event.stripe_id,
                "type": self.event.kind,
                "created": self.event.created,
                "customer_id": self.event.customer_id,
                "user_id": self.event.user_id,
                "livemode": self.event.livemode,
                "effect": self.effect,
                "customer_is_active": customer is not None and customer.is_active,
            }
        )
        if self.is_handled and not self.event.note_publication():
            raise StaleRecordError("another worker has claimed the event")

    def mark(self, reason: str | None = None) -> None:
        """End the event, and report that unless another worker has ended it.

        Parameters
        ----------
        reason : str, optional
            Why a side effect has not happened.
        """
        finish(self.event, self.state, reason or self.reason)

    def report(self) -> None:
        """Report the end of an event that was marked in the transaction of its change."""
        _report(self.event, self.state, self.reason)


def finish(event: Event, state: EventState, reason: str | None) -> None:
    """End an event by a write of its own, and report that unless another worker has ended it."""
    if event.finish(state, reason):
        _report(event, state, reason)


def _report(event: Event, state: EventState, reason: str | None) -> None:
    is_applied = state is EventState.APPLIED
    current().add_metric(Metric.EVENTS_APPLIED if is_applied else Metric.EVENTS_IGNORED)
    if is_applied and event.replayed_at is None:
        current().add_metric(Metric.EVENT_DELAY, max(current().clock() - event.created, 0))
    if reason == OLDER:
        current().add_metric(Metric.STALE_EVENTS_DROPPED)
    ended = {
        "stripe_event_id": event.stripe_id,
        "stripe_customer_id": event.customer_id,
        "state": state,
        "event_reason": reason,
    }
    current().log_item("events", {name: value for name, value in ended.items() if value})


def _is_failure(error: BaseException) -> bool:
    """Return whether a custom handler has failed with this, rather than the process ending."""
    from asyncio import CancelledError  # noqa: PLC0415 - most processes never need it

    raised = (Exception, SystemExit, GeneratorExit, BaseExceptionGroup, CancelledError)
    return isinstance(error, raised)
