"""Applying events: brought about together for one customer, and safe to repeat at every point.

An event is claimed, which counts the try, then brought about, then error_log_fields to whoever follows, then
marked. A process that dies anywhere on the way leaves the event unfinished, and it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from stripe_integrations.actions.customers.create import (
    USER_KEY,
    CustomerSnapshot,
    complete_create,
    is_for_claim,
    is_for_current_token,
)
from stripe_integrations.actions.customers.refresh import refresh_from_stripe, retry_on_conflict
from stripe_integrations.actions.events.handlers import changes_records, has_handlers
from stripe_integrations.actions.events.ordering import PendingChanges, is_deletion
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
    MessageNotSentError,
    SideEffectFailedError,
    StaleRecordError,
    StripeIntegrationsError,
    UnprocessableEventError,
)
from stripe_integrations.models import Customer, CustomerClaim, Event, Pointer, UserRecords
from stripe_integrations.models.customer import MAX_EXTRA_ITEMS
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.observation import Freshness
from stripe_integrations.models.pointer import Owner
from stripe_integrations.observability import (
    Metric,
    error_location_fields,
    error_log_fields,
    logger,
)

Json = Mapping[str, Any]

NOTHING_TO_DO = "changes no record of ours"
_SOFT_DELETED = "the customer is soft-deleted"
_UNKNOWN = "not a customer of ours"

NEEDED_SECONDS = 30
"""What has to be left of an invocation for a fetch and a write."""
_FOR_GOOD = (DatabaseRefusedError, UnprocessableEventError)
"""What will be raised again, however often the event is tried."""


def apply_events(stripe_ids: Sequence[str]) -> Exception | None:
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
    for first in range(0, len(stripe_ids), MAX_EXTRA_ITEMS):
        if first and current().remaining_seconds() < NEEDED_SECONDS:
            break  # the rest is left unclaimed, for the schedule
        failure = _apply_chunk(stripe_ids[first : first + MAX_EXTRA_ITEMS]) or failure
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
                _dead_letter(
                    event, f"tried too often, at last: {event.last_error or 'interrupted'}"
                )
        return _try([event for event in claimed if not event.is_exhausted])


def _try(events: list[Event]) -> Exception | None:
    def attempt(number: int) -> Exception | None:
        still = [event for event in events if not (number and event.is_finished_meanwhile())]
        return _attempt(still) if still else None

    try:
        return retry_on_conflict(attempt)
    except Exception as error:
        is_ones_own = isinstance(error, _FOR_GOOD) or not isinstance(error, StripeIntegrationsError)
        if is_ones_own and len(events) > 1:
            # One of them can't work. Each alone, it takes no other with it.
            return next(filter(None, [_try([event]) for event in events]), None)
        for event in events:
            _record_failure(event, error)
        return error


def _record_failure(
    event: Event, error: BaseException, say: Callable[[BaseException], Json] = error_log_fields
) -> None:
    """Say in the ledger what comes after a try that failed; one that has ended stays ended."""
    if not isinstance(error, _FOR_GOOD):
        _schedule_retry(event, error, say)
    elif not event.is_finished_meanwhile():
        _dead_letter(event, type(error).__name__)


def _dead_letter(event: Event, reason: str) -> None:
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
        _schedule_retry(event, error)
        return
    event.fail(reason)
    current().add_metric(Metric.EVENTS_DEAD_LETTERED)
    logger.error("event failed", extra={"stripe_event_id": event.stripe_id, "event_reason": reason})


def _schedule_retry(
    event: Event, error: BaseException, say: Callable[[BaseException], Json] = error_log_fields
) -> None:
    logger.warning(
        "event put off",
        extra={
            "stripe_event_id": event.stripe_id,
            "attempts": event.attempts,
            **say(error),
        },
    )
    event.schedule_retry(error)
    current().add_metric(Metric.EVENT_RETRIES_SCHEDULED)


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
        return _apply_to_customer(None, events)
    owner = _owner(events[0]) or Pointer.find(named)
    if owner is None:
        return _await_customer(events)
    customer = UserRecords.read(owner.user_id).customer(owner.customer_id)
    if customer is None:
        # The transaction that made the pointer is not visible as a whole yet.
        raise StaleRecordError(f"{owner.customer_id} is not there yet")
    for event in events:
        event.user_id, event.customer_id = owner
    return _apply_to_customer(customer, events)


def _owner(event: Event) -> Owner | None:
    if event.user_id is None or event.customer_id is None:
        return None
    return Owner(event.user_id, event.customer_id)


def _await_customer(events: list[Event]) -> Exception | None:
    """Finish the create that these events are ahead of, or let them wait until somebody has."""
    for event in events:
        if event.kind == "customer.created" and _complete_creation(event):
            raise StaleRecordError(f"{event.customer_id} is known now")
    given_up = [event for event in events if event.has_waited_too_long()]
    for event in events:
        if not event.has_waited_too_long():
            event.continue_waiting()
    failures = [_follow(Outcome(e, has_effect=False, reason=_UNKNOWN), None) for e in given_up]
    return next(filter(None, failures), None)


def _complete_creation(event: Event) -> bool:
    """Finish a create of ours that got no further than Stripe; any other customer stays unknown."""
    made = _snapshot_from_event(event) or _snapshot_from_stripe(event)
    if made is None:
        return False
    user_id = value_at(made.stripe_customer, "metadata", USER_KEY)
    if not isinstance(user_id, str) or not user_id:
        return False
    claim = CustomerClaim.read(user_id)
    if claim is None or not is_for_claim(claim, made.stripe_customer):
        return False
    if not is_for_current_token(claim, made.stripe_customer):
        # Another token was taken since, after a look at what Stripe has: a customer that was
        # deleted by then is none to come back to.
        made = _snapshot_from_stripe(event)
    return made is not None and complete_create(user_id, claim, made) is not None


def _snapshot_from_event(event: Event) -> CustomerSnapshot | None:
    """What the event of a creation shows, if that can be taken at its word."""
    if not event.subject or event.api_version != API_VERSION or event.replayed_at:
        return None
    return CustomerSnapshot.answered(event.subject)


def _snapshot_from_stripe(event: Event) -> CustomerSnapshot | None:
    """What Stripe has of an event's customer; None where it was deleted."""
    customer = current().stripe.retrieve_customer(event.customer_id or "")
    return None if customer.get("deleted") else CustomerSnapshot.found(customer)


def _apply_to_customer(customer: Customer | None, events: list[Event]) -> Exception | None:
    """Effect, then what follows, then the mark; the mark comes with the effect if nothing does."""
    outcomes, write = _plan(customer, events)
    if write:
        write(
            also=[outcome.transaction_item() for outcome in outcomes if outcome.is_in_transaction]
        )
        for outcome in outcomes:
            if outcome.was_ambiguous:
                current().add_metric(Metric.AMBIGUOUS_EVENTS_REFETCHED)
            if outcome.is_in_transaction and not outcome.has_side_effects:
                outcome.report()
    failures = [_follow(o, customer) for o in outcomes if o.has_side_effects or not write]
    return next(filter(None, failures), None)


def _follow(outcome: Outcome, customer: Customer | None) -> Exception | None:
    try:
        if outcome.has_side_effects:
            outcome.follow(customer)
    except BaseException as error:
        if not is_failure(error):
            raise
        _record_failure(
            outcome.event,
            error,
            error_log_fields if isinstance(error, OUR_OWN) else error_location_fields,
        )
        failure = SideEffectFailedError(f"what follows on {outcome.event.stripe_id} failed")
        failure.__cause__ = error
        return failure
    outcome.end()
    return None


def _plan(
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
        purge = partial(customer.purge, deleted_on_stripe=True)
        return idle + [Outcome(event) for event in changing], purge
    draft = PendingChanges(customer)
    orders = [(e, draft.take(e)) for e in sorted(changing, key=lambda e: e.created or 0)]
    if any(order is Freshness.AMBIGUOUS for _, order in orders):
        fetched = [Outcome(e, was_ambiguous=order is Freshness.AMBIGUOUS) for e, order in orders]
        return idle + fetched, partial(refresh_from_stripe, customer)
    taken = [
        Outcome(event, has_effect=False, reason=OLDER)
        if order is Freshness.OLDER
        else Outcome(event)
        for event, order in orders
    ]
    return idle + taken, partial(draft.write) if draft.has_news else None


def _nothing_to_do(event: Event) -> str | None:
    return None if has_handlers(event.kind or "") else NOTHING_TO_DO
