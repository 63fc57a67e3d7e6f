"""Called by hand after a restore: puts back the customers that Stripe has and the table has not."""

from dataclasses import asdict
from typing import Any

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.invocation import invocation_handler
from stripe_integrations.models.fields import is_text
from stripe_integrations.observability import logger


@invocation_handler
def handler(event: dict[str, Any]) -> dict[str, Any]:
    match event.get("created_from"), event.get("resume_from"):
        case (int() | None as created_from, resume_from) if resume_from is None or is_text(
            resume_from
        ):
            done = StripeCustomer.rebuild(created_from, resume_from)
        case _:
            raise InvalidFieldError(
                "event", "created_from must be in Unix seconds, resume_from a customer's id"
            )
    logger.info("rebuilt", extra={"listed": done.listed, "rebuilt": done.rebuilt})
    return asdict(done)
