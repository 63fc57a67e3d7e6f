"""The registry of the kinds of Stripe objects that can be stored under a customer.

Settings, refreshes, ordering, the sweep, responses, openapi.json and the simulation's invariants
iterate over it.
"""

from __future__ import annotations

from functools import cache

from stripe_integrations.context import current
from stripe_integrations.errors import ConfigurationError
from stripe_integrations.models.card import Card
from stripe_integrations.models.child import Child, EventRole, Json
from stripe_integrations.models.entitlement import Entitlement
from stripe_integrations.models.payment_method import PaymentMethod
from stripe_integrations.models.subscription import Subscription
from stripe_integrations.models.tax_id import TaxId

KINDS: tuple[type[Child], ...] = (Card, Subscription, TaxId, PaymentMethod, Entitlement)


def stored_kinds() -> tuple[type[Child], ...]:
    """Return the kinds that this deployment stores.

    Raises
    ------
    ConfigurationError
        `STORED_RECORDS` has a name that no kind has.
    """
    return _kinds_named(current().settings.stored_records)


def kind_of_event(event_type: str, obj: Json) -> type[Child] | None:
    """Return the kind that an event concerns, stored or not.

    Parameters
    ----------
    event_type : str
        The type of the event; several kinds may share it.
    obj : mapping
        The object of its payload.
    """
    kinds = _kinds_by_event_type().get(event_type, ())
    return next((kind for kind in kinds if kind.concerns(obj)), None)


def applied_roles(kind: type[Child]) -> frozenset[EventRole]:
    """Return the roles of a kind's events that change what this deployment stores.

    The removal of an object that can be a default is always stored: the customer may name it.
    """
    if kind in stored_kinds():
        return frozenset(EventRole)
    return frozenset({EventRole.REMOVED} if kind.CAN_BE_DEFAULT else ())


@cache
def _kinds_named(names: frozenset[str] | None) -> tuple[type[Child], ...]:
    if names is None:
        return tuple(kind for kind in KINDS if kind.IS_DEFAULT)
    if not names <= {kind.__name__ for kind in KINDS}:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise ConfigurationError(f"STORED_RECORDS may name {known}")
    return tuple(kind for kind in KINDS if kind.__name__ in names)


@cache
def _kinds_by_event_type() -> dict[str, tuple[type[Child], ...]]:
    event_types = {event_type for kind in KINDS for event_type in kind.EVENTS}
    return {
        event_type: tuple(kind for kind in KINDS if event_type in kind.EVENTS)
        for event_type in event_types
    }
