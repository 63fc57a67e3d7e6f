"""The custom handlers of a deployment: its functions for types of event."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from functools import cache

from stripe_integrations.config import matches_pattern
from stripe_integrations.context import current
from stripe_integrations.errors import EventHandlerNotFoundError
from stripe_integrations.models import Customer, Event

EventHandler = Callable[[Event, Customer | None], None]
"""A custom handler: takes the event, and its customer's record if it has one.

It runs at least once for each event, after the record was updated. After any exception the event is
retried later; `UnprocessableEventError` dead-letters it at once, with its text as the reason.
"""


def has_handlers(event_type: str) -> bool:
    """Return whether the deployment has a custom handler for a type of event."""
    return bool(_references(event_type))


def handlers_of(event_type: str) -> list[EventHandler]:
    """Import the custom handlers for a type of event.

    Raises
    ------
    EventHandlerNotFoundError
        `HANDLERS` names a function that can't be imported.
    """
    return [_resolve(reference) for reference in _references(event_type)]


def _references(event_type: str) -> list[str]:
    handlers = current().settings.event_handlers
    return [
        reference for pattern, reference in handlers.items() if matches_pattern(event_type, pattern)
    ]


@cache
def _resolve(reference: str) -> EventHandler:
    os.environ.update(current().settings.handler_environment)
    try:
        handler: EventHandler = pkgutil.resolve_name(reference)
    except Exception as error:
        raise EventHandlerNotFoundError(f"there is no event handler {reference}") from error
    return handler
