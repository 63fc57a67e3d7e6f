"""Applying events: brought about together for one customer, and safe to repeat at every point.

An event is claimed, which counts the try, then brought about, then told to whoever follows, then
marked. A process that dies anywhere on the way leaves the event unfinished, and it is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stripe_integrations.actions.creation import (
    USER_KEY,
    Made,
    complete_creation,
    made_for,
    made_for_its_token,
)
from stripe_integrations.actions.event_handlers import changes_records, handlers_of, has_handlers
from stripe_integrations.actions.order import Draft
from stripe_integrations.actions.synchronisation import bring_up_to_date, until_unrivalled
from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.errors import (
    DatabaseRefusedError,
    MessageNotSentError,
    StaleRecordError,
    UnprocessableEventError,
)
from stripe_integrations.models import ActiveCustomer, Customer, Event, Pointer, UserRecords
from stripe_integrations.models.customer import MOST_OTHER_ITEMS
from stripe_integrations.models.pointer import Owner
from stripe_integrations.models.validity import Order
from stripe_integrations.observability import logger, told

Json = Mapping[str, Any]

NOTHING_TO_DO = "changes no record of ours"
OF_THE_OTHER_MODE = "of the other mode"
_SOFT_DELETED = "the customer is soft-deleted"
_OLDER = "older than what the record shows"
_UNKNOWN = "not a customer of ours"

_FOR_GOOD = (DatabaseRefusedError, UnprocessableEventError)
"""What will be raised again, however often the event is tried."""


def apply_together(stripe_ids: Sequence[str]) -> Exception | None:
    """Bring about what events of one customer say: one fetch for all of them.

    Parameters
    ----------
    stripe_ids : sequence of str
        Ids of events that name the same Stripe customer. Those that are finished, or that somebody
        else is at, are left out.

    Returns
    -------
    Exception or None
        What the try failed with; the events are put off then, or have failed.

    Raises
    ------
    DatabaseUnavailableError
        Not even that could be written.
    """
    failure: Exception | None = None
    for first in range(0, len(stripe_ids), MOST_OTHER_ITEMS):
        failure = _apply_chunk(stripe_ids[first : first + MOST_OTHER_ITEMS]) or failure
    return failure


def foreign(event: Event) -> str | None:
    """Why an event is none of this deployment's business, if it is not."""
    if event.object != "event":
        return "not an event of Stripe's API v1"
    if event.livemode is not current().settings.livemode:
        return OF_THE_OTHER_MODE
    if event.account:
        return "of a connected account"
    return None


def _apply_chunk(stripe_ids: Iterable[str]) -> Exception | None:
    claimed = [event for event in map(Event.claim, stripe_ids) if event]
    for event in claimed:
        if event.is_exhausted:
            _give_up(event, f"tried too often, at last: {event.last_error or 'interrupted'}")
    return _try([event for event in claimed if not event.is_exhausted])


def _try(events: list[Event]) -> Exception | None:
    def attempt(number: int) -> None:
        still = [event for event in events if not (number and event.is_finished_by_now())]
        if still:
            _attempt(still)

    try:
        until_unrivalled(attempt)
    except Exception as error:
        if isinstance(error, _FOR_GOOD) and len(events) > 1:
            # One of them can never work. Each alone, it takes no other with it.
            return next(filter(None, [_try([event]) for event in events]), None)
        for event in events:
            _settle(event, error)
        return error
    return None


def _settle(event: Event, error: Exception) -> None:
    """Say in the ledger what comes after a try that failed; one that has ended stays ended."""
    if isinstance(error, _FOR_GOOD):
        _give_up(event, type(error).__name__)
    else:
        _put_off(event, error)


def _give_up(event: Event, reason: str) -> None:
    """Tell the dead-letter queue, then let the event fail: neither without the other for long."""
    message = {
        "event_id": event.stripe_id,
        "type": event.kind,
        "customer_id": event.customer_id,
        "attempts": event.attempts,
        "reason": reason,
    }
    try:
        current().report_dead_letter(message)
    except MessageNotSentError as error:
        _put_off(event, error)
        return
    event.fail(reason)
    logger.error("event failed", extra={"stripe_event_id": event.stripe_id, "event_reason": reason})


def _put_off(event: Event, error: Exception) -> None:
    logger.warning(
        "event put off",
        extra={
            "stripe_event_id": event.stripe_id,
            "attempts": event.attempts,
            **told(error),
        },
    )
    event.postpone(error)


def _attempt(events: list[Event]) -> None:
    for event in events:
        reason = foreign(event)
        if reason:  # a replay brings such events here
            event.finish("ignored", reason)
    events = [event for event in events if not foreign(event)]
    if not events:
        return
    named = events[0].customer_id or events[0].payment_method_id
    if named is None:
        _bring_about(None, events)
        return
    owner = _owner(events[0]) or Pointer.find(named)
    if owner is None:
        _await_customer(events)
        return
    customer = UserRecords.read(owner.user_id).customer(owner.customer_id)
    if customer is None:
        # The transaction that made the pointer is not visible as a whole yet.
        raise StaleRecordError(f"{owner.customer_id} is not there yet")
    for event in events:
        event.user_id, event.customer_id = owner
    _bring_about(customer, events)


def _owner(event: Event) -> Owner | None:
    if event.user_id is None or event.customer_id is None:
        return None
    return Owner(event.user_id, event.customer_id)


def _await_customer(events: list[Event]) -> None:
    """Finish the create that these events are ahead of, or let them wait until somebody has."""
    for event in events:
        if event.kind == "customer.created" and _complete_creation(event):
            raise StaleRecordError(f"{event.customer_id} is known now")
    for event in events:
        if event.has_waited_long():
            event.finish("ignored", _UNKNOWN)
        else:
            event.keep_waiting()


def _complete_creation(event: Event) -> bool:
    """Finish a create of ours that got no further than Stripe; any other customer stays unknown."""
    made = _as_told(event) or _as_looked_up(event)
    if made is None:
        return False
    user_id = (made.stripe_customer.get("metadata") or {}).get(USER_KEY)
    if not isinstance(user_id, str) or not user_id:
        return False
    claim = ActiveCustomer.read(user_id)
    if claim is None or not made_for(claim, made.stripe_customer):
        return False
    if not made_for_its_token(claim, made.stripe_customer):
        # Another token was taken since, after a look at what Stripe has: a customer that was
        # deleted by then is none to come back to.
        made = _as_looked_up(event)
    return made is not None and complete_creation(user_id, claim, made) is not None


def _as_told(event: Event) -> Made | None:
    """What the event of a creation shows, if that can be taken at its word."""
    if not event.subject or event.api_version != API_VERSION or event.replayed_at:
        return None
    return Made.answered(event.subject)


def _as_looked_up(event: Event) -> Made | None:
    """What Stripe has of an event's customer; None where it was deleted."""
    customer = current().stripe.retrieve_customer(event.customer_id or "")
    return None if customer.get("deleted") else Made.found(customer)


@dataclass
class _Outcome:
    """How an event is to end, once what it calls for was done."""

    event: Event
    state: str = "applied"
    reason: str | None = None

    @property
    def is_followed(self) -> bool:
        """Whether others hear of it, or do something of their own, before it is marked."""
        return has_handlers(self.event.kind or "") or self.is_announced

    @property
    def is_announced(self) -> bool:
        """An earlier try may have applied it and come no further: then it is announced again."""
        was_applied = self.state == "applied" or (self.event.attempts or 0) > 1
        changed = was_applied and changes_records(self.event)
        return bool(changed and current().settings.event_bus_name)

    def follow(self, customer: Customer | None) -> None:
        """Call the deployment's own functions, and announce the change."""
        kind = self.event.kind or ""
        for handle in handlers_of(kind):
            handle(self.event, customer)
            self.state, self.reason = "applied", None
        if self.is_announced:
            current().announce(
                {
                    "event_id": self.event.stripe_id,
                    "type": kind,
                    "created": self.event.created,
                    "customer_id": self.event.customer_id,
                    "user_id": self.event.user_id,
                    "livemode": self.event.livemode,
                }
            )


def _bring_about(customer: Customer | None, events: list[Event]) -> None:
    """Effect, then what follows, then the mark; the mark comes with the effect if nothing does."""
    changing = [event for event in events if customer and changes_records(event)]
    outcomes = [
        _Outcome(event, "ignored", NOTHING_TO_DO)
        for event in events
        if not (customer and changes_records(event))
    ]
    write = None
    if customer and changing:
        changed, write = _decide(customer, changing)
        outcomes += changed
    alone = [outcome for outcome in outcomes if not outcome.is_followed]
    if write:
        write(also=[o.event.ending(o.state, o.reason) for o in alone])
    else:
        for outcome in alone:
            outcome.event.finish(outcome.state, outcome.reason)
    for outcome in outcomes:
        if outcome.is_followed:
            _follow(outcome, customer)


def _follow(outcome: _Outcome, customer: Customer | None) -> None:
    try:
        outcome.follow(customer)
    except Exception as error:
        _settle(outcome.event, error)
    else:
        outcome.event.finish(outcome.state, outcome.reason)


def _decide(customer: Customer, events: list[Event]) -> tuple[list[_Outcome], partial[None] | None]:
    """How the events end, and what has to be written for that."""
    if not customer.is_active:
        return [_Outcome(event, "ignored", _SOFT_DELETED) for event in events], None
    outcomes = [_Outcome(event) for event in events]
    if any(event.kind == "customer.deleted" for event in events):
        return outcomes, partial(customer.purge, gone_from_stripe=True)
    draft = Draft(customer)
    orders = {e.pk: draft.take(e) for e in sorted(events, key=lambda e: e.created or 0)}
    if Order.IN_DOUBT in orders.values():
        return outcomes, partial(bring_up_to_date, customer)
    for outcome in outcomes:
        if orders[outcome.event.pk] is Order.OLDER:
            outcome.state, outcome.reason = "ignored", _OLDER
    return outcomes, partial(draft.write) if draft.has_news else None
