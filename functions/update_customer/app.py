"""PATCH /customers/{user_id}, /customers?user_id=…, or /me: updates the customer of a user."""

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.entrypoints.http import Request, Response, api_handler
from stripe_integrations.entrypoints.serialization import customer_to_json
from stripe_integrations.errors import InvalidFieldError


@api_handler
def handler(request: Request) -> Response:
    fields = request.api_json()
    user = User(request.user_id_for(fields))
    request.caller.require_fields(fields)
    if "idempotency_key" in fields:
        raise InvalidFieldError("idempotency_key", "is passed as the header Idempotency-Key")
    updated = StripeCustomer.update(
        StripeCustomer.require(user), idempotency_key=request.idempotency_key, **fields
    )
    return Response(200, customer_to_json(updated))
