"""Recording a failed attempt: the next one is scheduled, or the event is dead-lettered."""

from __future__ import annotations

from stripe_integrations import errors
from stripe_integrations.context import current
from stripe_integrations.models import Event
from stripe_integrations.observability import (
    Metric,
    error_location_fields,
    error_log_fields,
    logger,
)

_ERRORS_OUTSIDE_HANDLERS = (
    errors.EventHandlerNotFoundError,
    errors.MessageNotSentError,
    errors.OutOfTimeError,
)
"""Raised outside custom handlers, so that their messages are safe to log."""

_MAX_REASON_CHARACTERS = 1000


def record_failure(event: Event, error: BaseException) -> None:
    """Schedule the next attempt, or dead-letter the event; one that has ended is not changed.

    Parameters
    ----------
    event : Event
        The event, claimed.
    error : BaseException
        What the attempt failed with.

    Raises
    ------
    DatabaseUnavailableError
        Not even that could be written.
    """
    cause = error.__cause__ if isinstance(error, errors.SideEffectFailedError) else None
    error = cause or error
    if not errors.is_permanent(error):
        _schedule_retry(event, error, is_of_handler=_is_of_handler(cause))
    elif event.holds_turn():
        dead_letter(event, _reason(error))


def dead_letter(event: Event, reason: str) -> None:
    """Send the event to the dead-letter queue, then mark it failed; both are retried together."""
    message = {
        "event_id": event.stripe_id,
        "type": event.kind,
        "customer_id": event.customer_id,
        "attempts": event.attempts,
        "reason": reason,
    }
    try:
        current().report_dead_letter(message)
    except errors.MessageNotSentError as error:
        _schedule_retry(event, error, is_of_handler=False)
        return
    event.fail(reason)
    current().add_metric(Metric.EVENTS_DEAD_LETTERED)
    logger.error("event failed", extra={"stripe_event_id": event.stripe_id, "event_reason": reason})


def _reason(error: BaseException) -> str:
    """The type of a permanent error, and the text of an `UnprocessableEventError`.

    The text is made of the error's string arguments; lone surrogates, which no store accepts, are
    replaced.
    """
    name = type(error).__name__
    if not isinstance(error, errors.UnprocessableEventError):
        return name
    text = " ".join(argument for argument in error.args if isinstance(argument, str))
    storable = text[:_MAX_REASON_CHARACTERS].encode(errors="replace").decode()
    return f"{name}: {storable}" if storable else name


def _schedule_retry(event: Event, error: BaseException, *, is_of_handler: bool) -> None:
    fields = error_location_fields(error) if is_of_handler else error_log_fields(error)
    logger.warning(
        "event retry scheduled",
        extra={"stripe_event_id": event.stripe_id, "attempts": event.attempts, **fields},
    )
    event.schedule_retry(error)
    current().add_metric(Metric.EVENT_RETRIES_SCHEDULED)
    if errors.is_internal(error) and not is_of_handler:
        current().add_metric(Metric.INTERNAL_ERRORS)


def _is_of_handler(cause: BaseException | None) -> bool:
    """Return whether a custom handler raised it: its message may contain anything."""
    return cause is not None and not isinstance(cause, _ERRORS_OUTSIDE_HANDLERS)
