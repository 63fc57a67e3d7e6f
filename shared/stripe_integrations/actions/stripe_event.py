"""Stripe's events: received once, then applied until it is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from stripe_integrations.actions.events.apply import apply_events
from stripe_integrations.actions.events.receive import receive_event
from stripe_integrations.actions.events.reconcile import (
    Reconciliation,
    emit_backlog_metrics,
    retry_due,
    sweep,
)
from stripe_integrations.actions.events.replay import (
    Replay,
    replay_created_between,
    replay_failed,
    replay_one,
)
from stripe_integrations.models import Event

Json = Mapping[str, Any]


class StreamRecord(NamedTuple):
    """An item that is new in the table, as the table's stream shows it.

    Parameters
    ----------
    pk, sk : str
        Its key.
    customer_id : str or None
        The Stripe customer that an event names.
    """

    pk: str
    sk: str
    customer_id: str | None

    @property
    def is_event(self) -> bool:
        """Whether it is an event; anything else here is a customer."""
        return self.sk == Event.SORT_KEY

    @property
    def subject(self) -> str:
        """What it is, without whose: a user's id is nothing for a log."""
        return self.pk if self.is_event else self.sk

    @property
    def customer_id_of_key(self) -> str:
        """The Stripe id of a customer, as its key has it."""
        return self.sk.partition("#")[2]


class StripeEvent:
    """What is done with Stripe's events.

    Every method may raise `DatabaseUnavailableError`.
    """

    @staticmethod
    def receive(payload: Json) -> Event:
        """Keep an event whose signature was verified, linked to its customer.

        After this returns, the event is safe: it stands in the table until it is applied, or
        ignored for a stated reason, or has failed and was reported. The same event received again
        changes nothing.

        Parameters
        ----------
        payload : mapping
            Stripe's event object.

        Returns
        -------
        Event
            The record that stands in the table, `waiting` where it names a customer that we don't
            have (yet).

        Raises
        ------
        MalformedRequestError
            It is not one of Stripe's events.

        Notes
        -----
        Follows https://docs.stripe.com/api/events/object and https://docs.stripe.com/webhooks.
        """
        return receive_event(payload)

    @staticmethod
    def process_stream_records(
        items: Iterable[StreamRecord],
    ) -> Iterator[tuple[StreamRecord, Exception]]:
        """Do what items that are new in the table call for.

        A new event is applied, together with the others of its customer; for a new customer, the
        events that came ahead of it are.

        Parameters
        ----------
        items : iterable of StreamRecord
            Events and customers.

        Yields
        ------
        tuple
            An item for which nothing could be done, not even be noted in the table, and why: it
            has to be brought again.
        """
        for group in _grouped(items):
            try:
                apply_events(_events_of(group))
            except Exception as error:
                for item in group:
                    yield item, error

    @staticmethod
    def apply(stripe_id: str) -> None:
        """Bring about what an event says, and mark it.

        Nothing happens where it is finished, somebody else is at it, or there is none.

        Parameters
        ----------
        stripe_id : str
            The event's id.

        Raises
        ------
        StripeError, ConflictError
            It could not be done for now; the event is unfinished, with the kind of error kept.
        SideEffectFailedError
            It was done, and a handler of your own, or the event bus, failed; so is it then.
        """
        failure = apply_events([stripe_id])
        if failure:
            raise failure

    @staticmethod
    def reconcile() -> Reconciliation:
        """Bring home what was lost: sweep Stripe's list of events, and try again what is due.

        It takes as long as the invocation lasts, if there is so much to do; the next run goes on.

        Returns
        -------
        Reconciliation
            What was done. `failures` has what any part was stopped by; the others went on.
        """
        done = Reconciliation()
        for part in (emit_backlog_metrics, sweep, retry_due):
            try:
                part(done)
            except Exception as error:
                done.failures.append(error)
        return done

    @staticmethod
    def replay(stripe_id: str) -> Replay:
        """Apply an event again, whatever has become of it, by what Stripe says now.

        Parameters
        ----------
        stripe_id : str
            The event's id, ``evt_…``.

        Returns
        -------
        Replay
            With `replayed` 1.

        Raises
        ------
        EventNotFoundError
            There is no such event in the table.
        """
        return replay_one(stripe_id)

    @staticmethod
    def replay_failed() -> Replay:
        """Apply all failed events again, by what Stripe says now.

        Returns
        -------
        Replay
            How many were put back into the queue.
        """
        return replay_failed()

    @staticmethod
    def replay_created_between(
        earliest: int, latest: int, resume_from: dict[str, Any] | None = None
    ) -> Replay:
        """Apply the events of a range of time again, in whatever state they are.

        Parameters
        ----------
        earliest, latest : int
            Unix seconds of the events' own stamps, both included.
        resume_from : mapping, optional
            What a replay that ran out of time has returned.

        Returns
        -------
        Replay
            With `resume_from` where the time did not suffice.
        """
        return replay_created_between(earliest, latest, resume_from)


def _grouped(items: Iterable[StreamRecord]) -> Iterable[list[StreamRecord]]:
    """Items by the Stripe customer that they speak of."""
    groups: dict[str, list[StreamRecord]] = {}
    for item in items:
        customer_id = item.customer_id if item.is_event else item.customer_id_of_key
        groups.setdefault(customer_id or item.pk, []).append(item)
    return groups.values()


def _events_of(items: Iterable[StreamRecord]) -> list[str]:
    ids: dict[str, None] = {}
    for item in items:
        if item.is_event:
            ids[item.pk.removeprefix(Event.key(""))] = None
        else:
            ids |= dict.fromkeys(Event.ids_of_customer(item.customer_id_of_key))
    return list(ids)
