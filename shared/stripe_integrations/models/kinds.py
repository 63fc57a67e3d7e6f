"""The registry of the kinds of Stripe objects that can be stored under a customer.

Settings, refreshes, ordering, the sweep, responses, openapi.json and the simulation's invariants
iterate over it.
"""

from __future__ import annotations

from functools import cache

from stripe_integrations.context import current
from stripe_integrations.errors import ConfigurationError
from stripe_integrations.models.card import Card
from stripe_integrations.models.child import Child
from stripe_integrations.models.subscription import Subscription
from stripe_integrations.models.tax_id import TaxId

KINDS: tuple[type[Child], ...] = (Card, Subscription, TaxId)


def stored_kinds() -> tuple[type[Child], ...]:
    """Return the kinds that this deployment stores.

    Raises
    ------
    ConfigurationError
        `STORED_RECORDS` has a name that no kind has.
    """
    return _kinds_named(current().settings.stored_records)


def kind_of_event(event_type: str) -> type[Child] | None:
    """Return the kind that a type of event concerns, stored or not."""
    return _kinds_by_event_type().get(event_type)


@cache
def _kinds_named(names: frozenset[str] | None) -> tuple[type[Child], ...]:
    if names is None:
        return tuple(kind for kind in KINDS if kind.IS_DEFAULT)
    if not names <= {kind.__name__ for kind in KINDS}:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise ConfigurationError(f"STORED_RECORDS may name {known}")
    return tuple(kind for kind in KINDS if kind.__name__ in names)


@cache
def _kinds_by_event_type() -> dict[str, type[Child]]:
    return {event_type: kind for kind in KINDS for event_type in kind.EVENTS}
