"""Invoked by an operator, or by your backend: erases a user's customers, or one Stripe customer."""

from dataclasses import asdict
from typing import Any

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.actions.customers import erase  # noqa: F401 - imported in the INIT
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.errors import InvalidFieldError


@invocation_handler
def handler(event: dict[str, Any]) -> dict[str, Any]:
    delete_on_stripe = event.get("delete_on_stripe", False)
    match event:
        case {"user_id": _, "stripe_id": _}:
            raise InvalidFieldError("stripe_id", "must not be given together with user_id")
        case {"user_id": user_id}:
            erased = StripeCustomer.erase(User(user_id), delete_on_stripe=delete_on_stripe)
        case {"stripe_id": stripe_id}:
            erased = StripeCustomer.erase_stripe_customer(
                stripe_id, delete_on_stripe=delete_on_stripe
            )
        case _:
            raise InvalidFieldError("event", "must have user_id or stripe_id")
    return asdict(erased)
