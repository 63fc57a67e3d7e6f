"""The invocation of a Lambda function: its deadline, its logs, its metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations import observability
from stripe_integrations.context import current
from stripe_integrations.entrypoints.initialization import initialize
from stripe_integrations.errors import (
    ConfigurationError,
    InvocationFailedError,
    StripeIntegrationsError,
)
from stripe_integrations.models.kinds import stored_kinds
from stripe_integrations.observability import Metric, error_log_fields, logger

Json = dict[str, Any]

T = TypeVar("T")

LambdaHandler = Callable[[Any, LambdaContext], T]


def observed(handler: LambdaHandler[T]) -> LambdaHandler[T]:
    """Print the invocation's log line, however it ends."""
    initialize()

    @logger.inject_lambda_context(clear_state=True)
    @wraps(handler)
    def invoked(event: Any, context: LambdaContext) -> T:
        observability.begin_line()
        try:
            return handler(event, context)
        finally:
            observability.end_line()

    return invoked


def begin_invocation(context: LambdaContext) -> None:
    """Note when the invocation ends, and check the settings before anything is written.

    Raises
    ------
    ConfigurationError
        A setting is invalid.
    """
    current().begin_invocation(context.get_remaining_time_in_millis())
    stored_kinds()


def count_internal_error() -> None:
    """Count a failure that is a bug or a wrong setting, even if the context can't be made."""
    try:
        measure = current().measure
    except ConfigurationError:
        measure = observability.measure
    measure(Metric.INTERNAL_ERRORS, 1)


def invocation_handler(operation: Callable[[Json], T]) -> LambdaHandler[T]:
    """Make a Lambda handler of an operation that is not invoked over HTTP.

    Lambda logs an exception with its message, which may quote a payload: of one that isn't ours,
    only the type is raised.

    Raises
    ------
    StripeIntegrationsError
        The operation's own, or an `InvocationFailedError` in place of any other error.
    """

    @observed
    def handler(event: Any, context: LambdaContext) -> T:
        try:
            begin_invocation(context)
            response = operation(event if isinstance(event, dict) else {})
        except StripeIntegrationsError as error:
            observability.set_outcome(logging.ERROR, "failed", **error_log_fields(error))
            raise error from None
        except Exception as error:
            observability.set_outcome(logging.ERROR, "failed", **error_log_fields(error))
            raise InvocationFailedError(type(error).__name__) from None
        observability.set_outcome(logging.INFO, "completed")
        return response

    return handler
