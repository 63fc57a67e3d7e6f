"""Invoked by an operator after a restore: stores the customers that the table lacks."""

from dataclasses import asdict
from typing import Any

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models.fields import is_text, whole_number
from stripe_integrations.observability import logger


@invocation_handler
def handler(event: dict[str, Any]) -> dict[str, Any]:
    created_from, resume_from = event.get("created_from"), event.get("resume_from")
    if created_from is not None and whole_number(created_from) is None:
        raise InvalidFieldError("created_from", "must be in Unix seconds")
    if resume_from is not None and not is_text(resume_from):
        raise InvalidFieldError("resume_from", "must be the id of a customer")
    result = asdict(StripeCustomer.rebuild(created_from, resume_from))
    logger.info("rebuilt", extra=result)
    return result
