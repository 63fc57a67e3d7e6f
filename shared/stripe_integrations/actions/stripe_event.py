"""`StripeEvent`: the public actions on Stripe's events.

Most import their use case when they are called: the webhook only receives events, and each further
module would slow its cold starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from stripe_integrations.actions.arguments import (
    HasId,
    StripeData,
    require_type,
    stripe_json,
    user_id_of,
)
from stripe_integrations.actions.events.receive import receive_event
from stripe_integrations.errors import ApplyFailedError, InvalidFieldError
from stripe_integrations.models import Event, EventState
from stripe_integrations.models.deployment import check_deployment

if TYPE_CHECKING:
    from stripe_integrations.actions.events.reconcile import Reconciliation
    from stripe_integrations.actions.events.replay import Replay
    from stripe_integrations.actions.events.stream import StreamRecord


class StripeEvent:
    """The actions on Stripe's events.

    Every method may raise `DatabaseUnavailableError`. All but `receive` raise `ConfigurationError`
    where the table is another deployment's.
    """

    @staticmethod
    def receive(payload: StripeData) -> Event:
        """Store an event whose signature was verified, linked to its customer.

        After this returns, the event is safe: it is stored until it is applied, ignored for a
        stated reason, or dead-lettered. Receiving it again changes nothing.

        Parameters
        ----------
        payload : mapping or stripe.Event
            Stripe's event object, such as `stripe.Webhook.construct_event` returns.

        Returns
        -------
        Event
            The stored record, `waiting` where it names a customer that is not known yet.

        Raises
        ------
        MalformedRequestError
            It is not one of Stripe's events.
        InvalidFieldError
            It is neither a mapping nor an object of Stripe's library.

        Notes
        -----
        Follows https://docs.stripe.com/api/events/object and https://docs.stripe.com/webhooks.
        """
        return receive_event(stripe_json("payload", payload))

    @staticmethod
    def get(stripe_id: str) -> Event | None:
        """Read an event with its payload, strongly consistent.

        Parameters
        ----------
        stripe_id : str
            The event's id, ``evt_…``.

        Returns
        -------
        Event or None
            None if it was never received, or has expired.
        """
        return Event.find(require_type("stripe_id", stripe_id, str))

    @staticmethod
    def find(
        user: HasId | None = None,
        customer_id: str | None = None,
        *,
        state: str | None = None,
        kind: str | None = None,
        created_from: int | None = None,
        created_to: int | None = None,
    ) -> Iterator[Event]:
        """Find stored events, newest first, without their payloads.

        The events of a customer, and those in the states pending, waiting and failed, are read from
        an index, eventually consistent. With such a state alone, the latest next attempt is first:
        for waiting events that is the last receipt, for failed ones the last failure. Without a
        user, a customer or such a state, the whole table is read.

        Parameters
        ----------
        user : object, optional
            Any object with an `id`: the events of all its customers are found.
        customer_id : str, optional
            The Stripe customer that the events name.
        state : str, optional
            Only events in this `EventState`.
        kind : str, optional
            Only events of this type, or of a family such as ``invoice.*``.
        created_from, created_to : int, optional
            Unix seconds of Stripe's `created`, both included.

        Yields
        ------
        Event
            The record; `webhook_message` is None.

        Raises
        ------
        InvalidFieldError
            The user's `id` is invalid, or `state` is not a state.

        Examples
        --------
        >>> for event in StripeEvent.find(User("u-1"), state="ignored"):  # doctest: +SKIP
        ...     print(event.stripe_id, event.kind, event.reason)
        """
        from stripe_integrations.actions.events.find import Search, find_events  # noqa: PLC0415 - see above

        if state is not None and state not in list(EventState):
            raise InvalidFieldError("state", f"must be one of {', '.join(EventState)}")
        bounds = {"created_from": created_from, "created_to": created_to}
        search = Search(
            EventState(state) if state else None,
            kind,
            **{name: value for name, value in bounds.items() if value is not None},
        )
        user_id = None if user is None else user_id_of(user)
        return find_events(user_id, customer_id, search)

    @staticmethod
    def process_stream_records(
        records: Iterable[StreamRecord],
    ) -> Iterator[tuple[StreamRecord, Exception]]:
        """Apply the events that records of the table's stream call for.

        A new event is applied together with the others of its customer; for a new customer, the
        events that arrived before it are applied.

        Parameters
        ----------
        records : iterable of StreamRecord
            New events and customers.

        Yields
        ------
        tuple
            A record that could not be processed, and whose failure could not even be stored, with
            the error: the stream has to deliver it again.
        """
        check_deployment()
        from stripe_integrations.actions.events.stream import process_stream_records  # noqa: PLC0415 - see above

        return process_stream_records(records)

    @staticmethod
    def apply(stripe_id: str) -> None:
        """Apply an event, and record its final state.

        Does nothing where it is finished, claimed by another worker, or missing.

        Parameters
        ----------
        stripe_id : str
            The event's id.

        Raises
        ------
        StripeError, ConflictError, ConfigurationError, SecretUnavailableError
            It could not be applied now: a retry is scheduled.
        DatabaseRefusedError
            It can never be applied: it is dead-lettered.
        SideEffectFailedError
            It was applied, and a custom handler or the event bus failed: a retry is scheduled.
        """
        from stripe_integrations.actions.events.apply import apply_events  # noqa: PLC0415 - see above

        check_deployment()
        try:
            apply_events([require_type("stripe_id", stripe_id, str)])
        except ApplyFailedError as group:
            raise group.exceptions[0] from group.exceptions[0].__cause__

    @staticmethod
    def reconcile() -> Reconciliation:
        """Recover what was lost: sweep Stripe's list of events, and retry what is due.

        Children that were never listed are fetched, and the metadata of adopted customers is
        written, where the worker that stored the customer has not done it; erasures get their
        second pass, or are completed.

        It takes as long as the invocation lasts if there is so much to do; the next run resumes.

        Returns
        -------
        Reconciliation
            Counts, and `failures` with what stopped a part; the other parts were run.
        """
        from stripe_integrations.actions.events import reconcile  # noqa: PLC0415 - see above

        check_deployment()
        result = reconcile.Reconciliation()
        try:
            reconcile.emit_backlog_metrics()
        except Exception as error:
            result.failures.append(error)
        for part in (
            reconcile.sweep,
            reconcile.retry_due,
            reconcile.look_up_waiting,
            reconcile.fetch_due_children,
            reconcile.complete_erasures,
            reconcile.write_due_metadata,
        ):
            try:
                part(result)
            except Exception as error:
                result.failures.append(error)
        return result

    @staticmethod
    def replay(stripe_id: str) -> Replay:
        """Apply an event again, whatever its state, from Stripe's state now.

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
        from stripe_integrations.actions.events.replay import replay_one  # noqa: PLC0415 - see above

        check_deployment()
        return replay_one(require_type("stripe_id", stripe_id, str))

    @staticmethod
    def replay_failed(resume_from: dict[str, Any] | None = None) -> Replay:
        """Apply all failed events again, from Stripe's state now.

        Parameters
        ----------
        resume_from : mapping, optional
            The `resume_from` that a replay which ran out of time returned.

        Returns
        -------
        Replay
            How many were put back into the queue, and `resume_from` if time ran out.
        """
        from stripe_integrations.actions.events.replay import replay_failed  # noqa: PLC0415 - see above

        check_deployment()
        return replay_failed(resume_from)

    @staticmethod
    def replay_created_between(
        earliest: int, latest: int, resume_from: dict[str, Any] | None = None
    ) -> Replay:
        """Apply the events of a range of time again, whatever their state.

        Parameters
        ----------
        earliest, latest : int
            Unix seconds of Stripe's `created`, both included.
        resume_from : mapping, optional
            What a replay that ran out of time has returned.

        Returns
        -------
        Replay
            With `resume_from` where the time did not suffice.
        """
        from stripe_integrations.actions.events.replay import replay_created_between  # noqa: PLC0415 - see above

        check_deployment()
        return replay_created_between(earliest, latest, resume_from)
