"""Applying events: brought about together for one customer, and safe to repeat at every point.

An event is claimed, which counts the try, then brought about, then told to whoever follows, then
marked. A process that dies anywhere on the way leaves the event unfinished, and it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from stripe_integrations.actions.customers.create import (
    USER_KEY,
    Made,
    complete_creation,
    made_for,
    made_for_its_token,
)
from stripe_integrations.actions.customers.refresh import bring_up_to_date, until_unrivalled
from stripe_integrations.actions.events.handlers import changes_records, has_handlers
from stripe_integrations.actions.events.ordering import Draft, is_deletion
from stripe_integrations.actions.events.side_effects import (
    OLDER,
    OUR_OWN,
    Outcome,
    finish,
    is_failure,
)
from stripe_integrations.config import API_VERSION
from stripe_integrations.context import current
from stripe_integrations.errors import (
    DatabaseRefusedError,
    FollowUpError,
    MessageNotSentError,
    StaleRecordError,
    StripeIntegrationsError,
    UnprocessableEventError,
)
from stripe_integrations.models import ActiveCustomer, Customer, Event, Pointer, UserRecords
from stripe_integrations.models.customer import MOST_OTHER_ITEMS
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.observation import Order
from stripe_integrations.models.pointer import Owner
from stripe_integrations.observability import Metric, logger, told, told_by_place

Json = Mapping[str, Any]

NOTHING_TO_DO = "changes no record of ours"
_SOFT_DELETED = "the customer is soft-deleted"
_UNKNOWN = "not a customer of ours"

NEEDED_SECONDS = 30
"""What has to be left of an invocation for a fetch and a write."""
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
        if first and current().remaining_seconds() < NEEDED_SECONDS:
            break  # the rest is left unclaimed, for the schedule
        failure = _apply_chunk(stripe_ids[first : first + MOST_OTHER_ITEMS]) or failure
    return failure


def foreign(event: Event) -> str | None:
    """Why an event is none of this deployment's business, if it is not."""
    if event.object != "event":
        return "not an event of Stripe's API v1"
    if event.livemode is not current().settings.livemode:
        return "of the other mode"
    if event.account:
        return "of a connected account"
    return None


def _apply_chunk(stripe_ids: Iterable[str]) -> Exception | None:
    claimed = [event for event in map(Event.claim, stripe_ids) if event]
    # For the lines of the calls to Stripe that are made for all of them.
    with logger.append_context_keys(stripe_event_id=" ".join(str(e.stripe_id) for e in claimed)):
        for event in claimed:
            if event.is_exhausted:
                _give_up(event, f"tried too often, at last: {event.last_error or 'interrupted'}")
        return _try([event for event in claimed if not event.is_exhausted])


def _try(events: list[Event]) -> Exception | None:
    def attempt(number: int) -> Exception | None:
        still = [event for event in events if not (number and event.is_finished_by_now())]
        return _attempt(still) if still else None

    try:
        return until_unrivalled(attempt)
    except Exception as error:
        is_ones_own = isinstance(error, _FOR_GOOD) or not isinstance(error, StripeIntegrationsError)
        if is_ones_own and len(events) > 1:
            # One of them can't work. Each alone, it takes no other with it.
            return next(filter(None, [_try([event]) for event in events]), None)
        for event in events:
            _settle(event, error)
        return error


def _settle(
    event: Event, error: BaseException, say: Callable[[BaseException], Json] = told
) -> None:
    """Say in the ledger what comes after a try that failed; one that has ended stays ended."""
    if not isinstance(error, _FOR_GOOD):
        _put_off(event, error, say)
    elif not event.is_finished_by_now():
        _give_up(event, type(error).__name__)


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
    current().note(Metric.EVENTS_DEAD_LETTERED)
    logger.error("event failed", extra={"stripe_event_id": event.stripe_id, "event_reason": reason})


def _put_off(
    event: Event, error: BaseException, say: Callable[[BaseException], Json] = told
) -> None:
    logger.warning(
        "event put off",
        extra={
            "stripe_event_id": event.stripe_id,
            "attempts": event.attempts,
            **say(error),
        },
    )
    event.postpone(error)
    current().note(Metric.EVENTS_PUT_OFF)


def _attempt(events: list[Event]) -> Exception | None:
    for event in events:
        reason = foreign(event)
        if reason:  # a replay brings such events here
            finish(event, "ignored", reason)
    events = [event for event in events if not foreign(event)]
    if not events:
        return None
    named = events[0].customer_id or events[0].payment_method_id
    if named is None:
        return _bring_about(None, events)
    owner = _owner(events[0]) or Pointer.find(named)
    if owner is None:
        return _await_customer(events)
    customer = UserRecords.read(owner.user_id).customer(owner.customer_id)
    if customer is None:
        # The transaction that made the pointer is not visible as a whole yet.
        raise StaleRecordError(f"{owner.customer_id} is not there yet")
    for event in events:
        event.user_id, event.customer_id = owner
    return _bring_about(customer, events)


def _owner(event: Event) -> Owner | None:
    if event.user_id is None or event.customer_id is None:
        return None
    return Owner(event.user_id, event.customer_id)


def _await_customer(events: list[Event]) -> Exception | None:
    """Finish the create that these events are ahead of, or let them wait until somebody has."""
    for event in events:
        if event.kind == "customer.created" and _complete_creation(event):
            raise StaleRecordError(f"{event.customer_id} is known now")
    given_up = [event for event in events if event.has_waited_long()]
    for event in events:
        if not event.has_waited_long():
            event.keep_waiting()
    failures = [_follow(Outcome(e, has_effect=False, reason=_UNKNOWN), None) for e in given_up]
    return next(filter(None, failures), None)


def _complete_creation(event: Event) -> bool:
    """Finish a create of ours that got no further than Stripe; any other customer stays unknown."""
    made = _as_told(event) or _as_looked_up(event)
    if made is None:
        return False
    user_id = value_at(made.stripe_customer, "metadata", USER_KEY)
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


def _bring_about(customer: Customer | None, events: list[Event]) -> Exception | None:
    """Effect, then what follows, then the mark; the mark comes with the effect if nothing does."""
    outcomes, write = _decide(customer, events)
    if write:
        write(also=[outcome.beside_the_effect() for outcome in outcomes if outcome.goes_along])
        for outcome in outcomes:
            if outcome.was_in_doubt:
                current().note(Metric.TIES_REFETCHED)
            if outcome.goes_along and not outcome.is_followed:
                outcome.report()
    failures = [_follow(o, customer) for o in outcomes if o.is_followed or not write]
    return next(filter(None, failures), None)


def _follow(outcome: Outcome, customer: Customer | None) -> Exception | None:
    try:
        if outcome.is_followed:
            outcome.follow(customer)
    except BaseException as error:
        if not is_failure(error):
            raise
        _settle(outcome.event, error, told if isinstance(error, OUR_OWN) else told_by_place)
        failure = FollowUpError(f"what follows on {outcome.event.stripe_id} failed")
        failure.__cause__ = error
        return failure
    outcome.end()
    return None


def _decide(
    customer: Customer | None, events: list[Event]
) -> tuple[list[Outcome], partial[None] | None]:
    """How the events end, and what has to be written for that."""
    changing: list[Event] = []
    idle: list[Outcome] = []
    for event in events:
        if event.effected_at:
            idle.append(Outcome(event))  # an earlier try came as far as its effect
        elif customer is None or not changes_records(event):
            idle.append(Outcome(event, has_effect=False, reason=_nothing_to_do(event)))
        else:
            changing.append(event)
    if customer is None or not changing:
        return idle, None
    if not customer.is_active:
        return idle + [Outcome(e, has_effect=False, reason=_SOFT_DELETED) for e in changing], None
    if any(is_deletion(event, customer) for event in changing):
        purge = partial(customer.purge, gone_from_stripe=True)
        return idle + [Outcome(event) for event in changing], purge
    draft = Draft(customer)
    orders = [(e, draft.take(e)) for e in sorted(changing, key=lambda e: e.created or 0)]
    if any(order is Order.IN_DOUBT for _, order in orders):
        fetched = [Outcome(e, was_in_doubt=order is Order.IN_DOUBT) for e, order in orders]
        return idle + fetched, partial(bring_up_to_date, customer)
    taken = [
        Outcome(event, has_effect=False, reason=OLDER) if order is Order.OLDER else Outcome(event)
        for event, order in orders
    ]
    return idle + taken, partial(draft.write) if draft.has_news else None


def _nothing_to_do(event: Event) -> str | None:
    return None if has_handlers(event.kind or "") else NOTHING_TO_DO
