"""What every invocation of a function has around it: its time, its logs, its metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations.context import current
from stripe_integrations.errors import InvocationFailedError, StripeIntegrationsError
from stripe_integrations.observability import error_log_fields, logger, send_metrics

Json = dict[str, Any]

T = TypeVar("T")

Handler = Callable[[Any, LambdaContext], T]


def observed(handler: Handler[T]) -> Handler[T]:
    """Log with the invocation's ids, and send its metrics, however it ends."""

    @logger.inject_lambda_context(clear_state=True)
    @wraps(handler)
    def invoked(event: Any, context: LambdaContext) -> T:
        try:
            return handler(event, context)
        finally:
            send_metrics()

    return invoked


def invocation_handler(operation: Callable[[Json], T]) -> Handler[T]:
    """Make a Lambda handler of an operation that is not called over HTTP.

    Lambda logs an exception with its message, which may quote what was sent: of one that isn't
    ours, only the kind gets out.

    Raises
    ------
    StripeIntegrationsError
        The operation's own, or an `InvocationFailedError` in the place of anything else.
    """

    @observed
    def handler(event: Any, context: LambdaContext) -> T:
        try:
            current().begin_invocation(context.get_remaining_time_in_millis())
            return operation(event if isinstance(event, dict) else {})
        except StripeIntegrationsError as error:
            raise error from None
        except Exception as error:
            logger.error("failed", extra=error_log_fields(error))
            raise InvocationFailedError(type(error).__name__) from None

    return handler
