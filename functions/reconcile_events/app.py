"""The schedule: asks Stripe for events that never arrived, and tries again what is unfinished."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations.actions import StripeEvent
from stripe_integrations.context import current
from stripe_integrations.observability import logger, told


@logger.inject_lambda_context
def handler(_: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    current().begin_invocation(context.get_remaining_time_in_millis())
    done = StripeEvent.reconcile()
    for error in done.failures:
        logger.warning("failed", extra=told(error))
    counts = {"swept": done.swept, "recovered": done.recovered, "tried": done.tried}
    logger.info("reconciled", extra=counts)
    return counts
