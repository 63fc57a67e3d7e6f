"""Called by hand: applies events again, one, all failed ones, or those of a range of time."""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations.actions import StripeEvent
from stripe_integrations.context import current
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.observability import logger


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    current().begin_invocation(context.get_remaining_time_in_millis())
    match event:
        case {"event_id": str(stripe_id)}:
            done = StripeEvent.replay(stripe_id)
        case {"failed": True}:
            done = StripeEvent.replay_failed()
        case {"created_from": int(earliest), "created_to": int(latest)} if earliest <= latest:
            done = StripeEvent.replay_created_between(earliest, latest, event.get("resume_from"))
        case _:
            raise InvalidFieldError(
                "event", "must have event_id, failed: true, or created_from before created_to"
            )
    logger.info("replayed", extra={"replayed": done.replayed})
    return asdict(done)
