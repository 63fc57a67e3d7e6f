"""The schedule: recovers events that never arrived, and retries unfinished ones."""

from typing import Any

from stripe_integrations.actions import StripeEvent
from stripe_integrations.actions.events import reconcile  # noqa: F401 - imported in the INIT
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.observability import add_fields, error_log_fields, logger


@invocation_handler
def handler(_: dict[str, Any]) -> dict[str, int]:
    result = StripeEvent.reconcile()
    for error in result.failures:
        logger.warning("failed", extra=error_log_fields(error))
    counts = {"swept": result.swept, "recovered": result.recovered, "attempted": result.attempted}
    add_fields(**counts)
    return counts
