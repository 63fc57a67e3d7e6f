"""Applying events: together for one customer, and safe to repeat at every point.

An attempt claims its events, which counts it; loads the customer; plans one change for all of them;
commits it; runs the side effects of each event; and marks it. A process that dies anywhere leaves
the event unfinished, and it is attempted again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from stripe_integrations import errors, limits
from stripe_integrations.actions.customers.adopt import named_user
from stripe_integrations.actions.customers.assign import complete_create, store_unassigned
from stripe_integrations.actions.customers.refresh import FetchedCustomer, fetch_from_stripe
from stripe_integrations.actions.customers.snapshot import CustomerSnapshot, carries_our_token
from stripe_integrations.actions.events.event_types import (
    NO_CHANGE,
    changes_records,
    is_publish_type,
    reason_to_ignore,
    reports_unassigned_customer,
)
from stripe_integrations.actions.events.failures import dead_letter, record_failure
from stripe_integrations.actions.events.fetch_lease import FetchLease
from stripe_integrations.actions.events.handlers import has_handlers
from stripe_integrations.actions.events.ordering import PendingChanges, is_deletion
from stripe_integrations.actions.events.payload_trust import is_untrusted
from stripe_integrations.actions.events.side_effects import Effect, Outcome, finish
from stripe_integrations.context import current
from stripe_integrations.models import (
    Customer,
    CustomerClaim,
    Event,
    EventState,
    Owner,
    Pointer,
    read_customer,
)
from stripe_integrations.models.customer import MAX_EXTRA_ITEMS
from stripe_integrations.models.event import ERASED, UNKNOWN_CUSTOMER
from stripe_integrations.models.observation import Freshness
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.observability import Metric

_SOFT_DELETED = "the customer is soft-deleted"


class Change(Enum):
    """The one change of a customer that a batch of events makes."""

    NONE = "none"
    SOFT_DELETE = "soft-delete the record, since Stripe has deleted the customer"
    REFETCH = "fetch the customer, since an event is ambiguous"
    APPLY_PAYLOADS = "write the payloads, which are newer than the stored state"
    WRITE_FINAL_STATES = "write the final states of a deleted customer's children"


@dataclass(frozen=True)
class Plan:
    """What an attempt does: one change, and an outcome for each event.

    Parameters
    ----------
    change : Change
        Of the customer.
    outcomes : list of Outcome
        One for each event.
    pending : PendingChanges or None
        The payloads that are written.
    fetched : FetchedCustomer or None
        What `REFETCH` writes.
    """

    change: Change
    outcomes: list[Outcome]
    pending: PendingChanges | None = None
    fetched: FetchedCustomer | None = None

    def metadata_of(self, customer: Customer) -> object:
        """The customer's metadata after the change."""
        if self.fetched:
            return self.fetched.stripe_customer.get("metadata")
        values = self.pending.values if self.pending else {}
        return values.get("metadata", customer.metadata)


def apply_events(stripe_ids: Sequence[str], new: Collection[str] = ()) -> None:
    """Apply events of one customer: one fetch serves all of them.

    Parameters
    ----------
    stripe_ids : sequence of str
        Ids of events that name the same Stripe customer. Those that are finished, or claimed by
        another worker, are left out.
    new : collection of str
        Those of them that are new: the stream has invoked this worker for their receipt.

    Raises
    ------
    ApplyFailedError
        Some failed: their next attempts are scheduled, or they are dead-lettered.
    DatabaseUnavailableError
        Not even that could be written.
    """
    _apply_all(_claimed_batches(stripe_ids, new), FetchLease())


def _claimed_batches(stripe_ids: Sequence[str], new: Collection[str]) -> Iterator[list[Event]]:
    """Claim events, as many at a time as one transaction has room for."""
    for first in range(0, len(stripe_ids), MAX_EXTRA_ITEMS):
        if first and not current().has_time_for(limits.APPLY_SECONDS):
            return  # the rest is not claimed, and the schedule attempts it
        yield _claim(stripe_ids[first : first + MAX_EXTRA_ITEMS], new)


def _claim(stripe_ids: Sequence[str], new: Collection[str]) -> list[Event]:
    known = [stripe_id for stripe_id in stripe_ids if stripe_id not in new]
    claimed = [event for event in map(Event.claim, known) if event]
    claimed += Event.begin_first_attempts([each for each in stripe_ids if each in new])
    for event in claimed:
        if event.is_exhausted:
            dead_letter(
                event, f"too many attempts, last error: {event.last_error or 'interrupted'}"
            )
    return [event for event in claimed if not event.is_exhausted]


def _apply_all(batches: Iterable[list[Event]], lease: FetchLease) -> None:
    """Apply batches of claimed events one after the other, and raise all their failures."""
    failures: list[Exception] = []
    for events in batches:
        try:
            _apply_batch(events, lease)
        except errors.ApplyFailedError as group:
            failures += group.exceptions
    if failures:
        raise errors.ApplyFailedError("events were not applied", failures)


def _apply_batch(events: list[Event], lease: FetchLease) -> None:
    """Apply claimed events, and record each failure."""

    def attempt(number: int) -> None:
        _apply_once([e for e in events if not number or e.holds_turn()], lease)

    try:
        retry_on_conflict(attempt)
    except errors.ApplyFailedError:
        raise  # side effects failed, which is recorded
    except Exception as error:
        if _concerns_one_event(error) and len(events) > 1:
            # Alone, the event that always fails does not fail the others. A deletion first would
            # let what preceded it be ignored.
            in_order = sorted(events, key=lambda event: event.created)
            _apply_all(([event] for event in in_order), lease)
            return
        for event in events:
            record_failure(event, error)
        raise errors.ApplyFailedError("events were not applied", [error]) from error


def _concerns_one_event(error: Exception) -> bool:
    return errors.is_permanent(error) or not isinstance(error, errors.StripeIntegrationsError)


def _apply_once(events: list[Event], lease: FetchLease) -> None:
    """Attempt claimed events: load, plan, commit, side effects, mark."""
    events = _ignore_irrelevant(events)
    customer, events = _load_customer(events)
    plan = _plan(customer, events, lease) if customer else _plan_without_customer(events)
    _commit(customer, plan)
    failures: list[Exception] = []
    for outcome in plan.outcomes:
        reason = None
        try:
            if outcome.has_side_effects:
                if not outcome.event.confirm_claim():
                    continue  # another worker has claimed it, and runs them
                reason = outcome.run_side_effects(customer)
        except errors.SideEffectFailedError as failure:
            record_failure(outcome.event, failure)
            failures.append(failure)
        else:
            if plan.change is Change.NONE or outcome.has_side_effects:
                outcome.mark(reason)
    if failures:
        raise errors.ApplyFailedError("side effects failed", failures)


def _ignore_irrelevant(events: list[Event]) -> list[Event]:
    """Ignore events that do not concern this deployment, which only a replay queues."""
    for event in events:
        reason = reason_to_ignore(event)
        if reason:
            finish(event, EventState.IGNORED, reason)
    return [event for event in events if not reason_to_ignore(event)]


# ---- load


def _load_customer(events: list[Event]) -> tuple[Customer | None, list[Event]]:
    """Read the customer that the events name, and link the events to it.

    Returns
    -------
    tuple
        The customer, None where it is unknown, and the events that are left to apply.
    """
    named = next((event.named_id for event in events), None)
    if named is None:
        return None, events
    linked = _linked_owner(events)
    customer = read_customer(linked) if linked else None
    if linked and customer:
        return customer, _link(events, linked)
    # A stored link may be outdated: the customer may belong to another user by now.
    try:
        owner = Pointer.find(named) or _complete_pending_create(events) or _store_unassigned(events)
    except errors.CustomerErasedError:
        for event in events:
            finish(event, EventState.IGNORED, ERASED)
        return None, []
    if owner is None:
        return None, _keep_waiting(events)
    events = _link(events, owner)
    customer = read_customer(owner)
    if customer is None and Pointer.is_staged(owner.customer_id):
        return None, _keep_waiting(events)
    if customer is None:
        # One transaction writes pointer and record, but two reads are not isolated from it.
        raise errors.StaleRecordError(f"{owner.customer_id} is not visible yet")
    return customer, events


def _link(events: list[Event], owner: Owner) -> list[Event]:
    """Link events to their customer, without waiting events that another worker has linked."""
    linked = []
    for event in events:
        if event.state is not EventState.WAITING:
            event.user_id, event.customer_id = owner
        elif not event.link_waiting(owner):
            continue
        linked.append(event)
    return linked


def _linked_owner(events: list[Event]) -> Owner | None:
    for event in events:
        if event.user_id is not None and event.customer_id is not None:
            return Owner(event.user_id, event.customer_id)
    return None


def _complete_pending_create(events: list[Event]) -> Owner | None:
    """Complete the create of ours that the events' customer belongs to, if its process died."""
    for event in events:
        if event.kind == "customer.created":
            snapshot = _created_customer(event)
            if snapshot and snapshot.user_id and _complete(snapshot.user_id, event, snapshot):
                return Owner(snapshot.user_id, snapshot.stripe_id)
    return None


def _complete(user_id: str, event: Event, snapshot: CustomerSnapshot) -> bool:
    claim = CustomerClaim.read(user_id)
    if claim is None or not snapshot.is_for_claim(claim):
        return False
    if snapshot.is_for_current_token(claim):
        return complete_create(user_id, claim, snapshot) is not None
    # The claim has another token since, because this customer was not found on Stripe: it is used
    # only if Stripe still has it.
    fetched = _fetch_customer(event)
    return fetched is not None and complete_create(user_id, claim, fetched) is not None


def _store_unassigned(events: list[Event]) -> Owner | None:
    """Store the customer that the events report as created, if the deployment stores such ones."""
    for event in events:
        if reports_unassigned_customer(event):
            snapshot = _snapshot(event)
            return store_unassigned(snapshot) if snapshot else None
    return None


def _created_customer(event: Event) -> CustomerSnapshot | None:
    """The customer of a customer.created event, if this deployment has created it."""
    if not carries_our_token(event.data_object):
        return None  # without a stored payload, no call is made either
    return _snapshot(event)


def _snapshot(event: Event) -> CustomerSnapshot | None:
    """The customer of a customer.created event; None where Stripe has deleted it."""
    if is_untrusted(event) or event.data_object.get("object") != "customer":
        return _fetch_customer(event)
    return CustomerSnapshot.from_creation(event.data_object)


def _fetch_customer(event: Event) -> CustomerSnapshot | None:
    """Fetch the customer of an event; None where Stripe has deleted it."""
    customer = current().stripe.retrieve_customer(str(event.customer_id))
    return None if customer.get("deleted") else CustomerSnapshot.from_fetch(customer)


def _keep_waiting(events: list[Event]) -> list[Event]:
    """Let events wait for their unknown customer, and return the others."""
    waiting = [e for e in events if e.named_id and not e.has_waited_too_long()]
    for event in waiting:
        event.continue_waiting()
    return [event for event in events if event not in waiting]


# ---- plan


def _plan_without_customer(events: list[Event]) -> Plan:
    """Plan for events that name no customer, or one that has been unknown for too long."""
    outcomes = [
        Outcome(event, None, UNKNOWN_CUSTOMER) if event.named_id else _without_change(event)
        for event in events
    ]
    return Plan(Change.NONE, outcomes)


def _plan(customer: Customer, events: list[Event], lease: FetchLease) -> Plan:
    """Plan one change for all events of a customer, and its adoption."""
    return _plan_adoption(customer, _plan_change(customer, events, lease))


def _plan_change(customer: Customer, events: list[Event], lease: FetchLease) -> Plan:
    changing: list[Event] = []
    outcomes: list[Outcome] = []
    for event in events:
        if event.effected_at:
            outcomes.append(Outcome(event))  # an earlier attempt has committed its change
        elif changes_records(event):
            changing.append(event)
        elif _is_soft_deleted_here(customer) and is_publish_type(event.kind):
            outcomes.append(Outcome(event, None, _SOFT_DELETED))
        else:
            outcomes.append(_without_change(event))
    changing.sort(key=lambda event: event.created)
    if customer.deleted:
        return _plan_after_deletion(customer, changing, outcomes)
    if _is_soft_deleted_here(customer):
        outcomes += [Outcome(event, None, _SOFT_DELETED) for event in changing]
        return Plan(Change.NONE, outcomes)
    if any(is_deletion(event, customer) for event in changing):
        return _plan_deletion(customer, changing, outcomes)
    pending = PendingChanges(customer)
    compared = [(event, pending.add(event)) for event in changing]
    is_ambiguous = any(freshness is Freshness.AMBIGUOUS for _, freshness in compared)
    # The record with the effect may have been released, and the customer adopted, since.
    may_lack_effect = not customer.is_listed and any(event.effected_at for event in events)
    if (is_ambiguous and not lease.is_served(customer)) or may_lack_effect:
        lease.acquire(customer)
        fetched = fetch_from_stripe(customer)
        if fetched.is_deleted:
            return _plan_deletion(customer, changing, outcomes)
        outcomes += [
            Outcome(event, was_ambiguous=freshness is Freshness.AMBIGUOUS)
            for event, freshness in compared
        ]
        return Plan(Change.REFETCH, outcomes, pending, fetched)
    outcomes += [_outcome(event, freshness) for event, freshness in compared]
    change = Change.NONE if pending.are_empty else Change.APPLY_PAYLOADS
    return Plan(change, outcomes, pending)


def _plan_adoption(customer: Customer, plan: Plan) -> Plan:
    """Let an event of an unassigned customer end after its adoption, if the metadata names a user.

    So the event is attempted again if the process dies after the commit.
    """
    is_unassigned = customer.user_id is None and customer.is_active
    if not is_unassigned or plan.change is Change.SOFT_DELETE or not plan.outcomes:
        return plan
    if named_user(customer, plan.metadata_of(customer)) is None:
        return plan
    *others, last = plan.outcomes
    return replace(plan, outcomes=[*others, replace(last, adopts=True)])


def _plan_deletion(customer: Customer, events: list[Event], outcomes: list[Outcome]) -> Plan:
    """Plan for a deletion by Stripe: payloads that certainly preceded it are written with it."""
    pending = PendingChanges(customer)
    for event in events:
        if event.kind == "customer.deleted":
            outcomes.append(Outcome(event))
            continue
        freshness = pending.add(event)
        if freshness is Freshness.AMBIGUOUS:
            is_final = pending.add_final(event)
            outcomes.append(Outcome(event) if is_final else Outcome.frozen(event))
        else:
            outcomes.append(_outcome(event, freshness))
    return Plan(Change.SOFT_DELETE, outcomes, pending)


def _plan_after_deletion(customer: Customer, events: list[Event], outcomes: list[Outcome]) -> Plan:
    """Plan for the record of a deleted customer: only final events change it."""
    pending = PendingChanges(customer)
    for event in events:
        if is_deletion(event, customer):
            outcomes.append(Outcome.older(event))
        elif pending.add_final(event):
            outcomes.append(Outcome(event))
        else:
            outcomes.append(Outcome.frozen(event))
    return Plan(Change.NONE if pending.are_empty else Change.WRITE_FINAL_STATES, outcomes, pending)


def _outcome(event: Event, freshness: Freshness) -> Outcome:
    return Outcome.older(event) if freshness is Freshness.OLDER else Outcome(event)


def _is_soft_deleted_here(customer: Customer) -> bool:
    """Return whether a record was soft-deleted other than by Stripe's deletion."""
    return not customer.is_active and not customer.deleted


def _without_change(event: Event) -> Outcome:
    """The outcome of an event that changes no record: it may be published, or handled."""
    effect = Effect.NONE if is_publish_type(event.kind) else None
    return Outcome(event, effect, None if has_handlers(event.kind) else NO_CHANGE)


# ---- commit


def _commit(customer: Customer | None, plan: Plan) -> None:
    """Write the change and the marks of the events in one transaction."""
    if customer is None or plan.change is Change.NONE:
        return
    extra_items = [outcome.add_to for outcome in plan.outcomes if outcome.in_transaction]
    pending = plan.pending
    match plan.change:
        case Change.REFETCH if plan.fetched and pending:
            plan.fetched.write(pending.removed, extra_items)
        case Change.APPLY_PAYLOADS if pending:
            customer.update_with(pending.values, pending.children, extra_items)
        case Change.SOFT_DELETE if pending:
            customer.soft_delete_as_deleted_on_stripe(pending.values, pending.children, extra_items)
        case Change.WRITE_FINAL_STATES if pending:
            customer.write_final_states(pending.children, extra_items)
    for outcome in plan.outcomes:
        if outcome.in_transaction and outcome.has_side_effects:
            outcome.event.take_next_turn()
    for outcome in plan.outcomes:
        if outcome.was_ambiguous:
            current().add_metric(Metric.AMBIGUOUS_EVENTS_REFETCHED)
        if not outcome.has_side_effects:
            outcome.report()
