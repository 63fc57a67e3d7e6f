"""The schedule: asks Stripe for events that never arrived, and tries again what is unfinished."""

from typing import Any

from stripe_integrations.actions import StripeEvent
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.observability import error_log_fields, logger


@invocation_handler
def handler(_: dict[str, Any]) -> dict[str, int]:
    done = StripeEvent.reconcile()
    for error in done.failures:
        logger.warning("failed", extra=error_log_fields(error))
    counts = {"swept": done.swept, "recovered": done.recovered, "tried": done.tried}
    logger.info("reconciled", extra=counts)
    return counts
