"""The schedule: asks Stripe for events that never arrived, and tries again what is unfinished."""

from typing import Any

from stripe_integrations.actions import StripeEvent
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.observability import logger, told


@invocation_handler
def handler(_: dict[str, Any]) -> dict[str, int]:
    done = StripeEvent.reconcile()
    for error in done.failures:
        logger.warning("failed", extra=told(error))
    counts = {"swept": done.swept, "recovered": done.recovered, "tried": done.tried}
    logger.info("reconciled", extra=counts)
    return counts
