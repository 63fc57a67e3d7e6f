"""Stripe's events: received once, then applied until it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stripe_integrations.actions.creation import USER_KEY, complete_creation, made_for
from stripe_integrations.actions.customers import StripeCustomer
from stripe_integrations.actions.synchronisation import bring_up_to_date, until_unrivalled
from stripe_integrations.context import current
from stripe_integrations.errors import CustomerNotFoundError, StaleRecordError
from stripe_integrations.models import ActiveCustomer, Event, Pointer, UserRecords

Json = Mapping[str, Any]

_APPLIED_KINDS = frozenset(
    {
        "customer.created",
        "customer.updated",
        "customer.deleted",
        "checkout.session.completed",
    }
)
_APPLIED_FAMILIES = ("customer.source.", "customer.subscription.", "payment_method.")
_NOTHING_TO_DO = "changes no record of ours"


class StripeEvent:
    """What is done with Stripe's events.

    Every method may raise `DatabaseUnavailableError`.
    """

    @staticmethod
    def receive(payload: Json) -> Event:
        """Keep an event whose signature was verified, linked to its customer.

        After this returns, the event is safe: it stands in the table until it is applied, or
        ignored for a stated reason. The same event received again changes nothing.

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
        """
        event = Event.received(payload, valid=True)
        foreign = _foreign(event, payload)
        if foreign:
            event.end("ignored", foreign)
            return event.store()
        if not _changes_records(event):
            event.end("ignored", _NOTHING_TO_DO)
        try:
            return StripeCustomer.link_customer(event)
        except CustomerNotFoundError:
            event.wait()
            return event.store()

    @staticmethod
    def wake(pk: str, sk: str) -> None:
        """Do what an item that is new in the table calls for.

        Parameters
        ----------
        pk, sk : str
            The item's key: a new event is applied; for a new customer, the events that came
            ahead of it are.
        """
        if sk == Event.SORT_KEY:
            StripeEvent.apply(pk.removeprefix(Event.key("")))
            return
        _, _, customer_id = sk.partition("#")
        for event_id in Event.ids_of_customer(customer_id):
            StripeEvent.apply(event_id)

    @staticmethod
    def apply(stripe_id: str) -> Event | None:
        """Bring about what an event says, and mark it, in one transaction.

        Parameters
        ----------
        stripe_id : str
            The event's id.

        Returns
        -------
        Event or None
            The event as it was tried; None where it was finished already, or is not there.

        Raises
        ------
        StripeError, ConflictError
            It could not be done for now; the event is unfinished, with the kind of error kept.
        """
        event = Event.begin(stripe_id)
        if event is None:
            return None

        def attempt(number: int) -> None:
            if number == 0 or not event.is_finished_by_now():
                _bring_about(event)

        try:
            until_unrivalled(attempt)
        except Exception as error:
            event.note_error(error)
            raise
        return event


def _bring_about(event: Event) -> None:
    customer_id = event.customer_id or ""
    user_id = event.user_id or Pointer.find(customer_id)
    if user_id is None:
        if event.kind == "customer.created":
            _complete_creation(event)
        return
    if event.user_id is None:
        event.link(user_id)
    if not _changes_records(event):
        event.finish("ignored", _NOTHING_TO_DO)
        return
    customer = UserRecords.read(user_id).customer(customer_id)
    if customer is None:
        # The transaction that made the pointer is not visible as a whole yet.
        raise StaleRecordError(f"{customer_id} is not there yet")
    if not customer.is_active:
        event.finish("ignored", "the customer is soft-deleted")
        return
    bring_up_to_date(customer, also=event.ending("applied"))


def _complete_creation(event: Event) -> None:
    """Finish a create of ours that got no further than Stripe; any other customer stays unknown."""
    customer = current().stripe.retrieve_customer(event.customer_id or "")
    user_id = (customer.get("metadata") or {}).get(USER_KEY)
    if user_id is None:
        return
    claim = ActiveCustomer.read(user_id)
    if claim and made_for(claim, customer) and complete_creation(user_id, claim, customer):
        event.finish("applied", user_id=user_id)


def _foreign(event: Event, payload: Json) -> str | None:
    """Why an event is none of this deployment's business, if it is not."""
    if payload.get("object") != "event":
        return "not an event of Stripe's API v1"
    if event.livemode is not current().settings.livemode:
        return "of the other mode"
    if payload.get("account"):
        return "of a connected account"
    return None


def _changes_records(event: Event) -> bool:
    kind = event.kind or ""
    return event.customer_id is not None and (
        kind in _APPLIED_KINDS or kind.startswith(_APPLIED_FAMILIES)
    )
