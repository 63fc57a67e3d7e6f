"""PUT /customers/{user_id}, or /customers?user_id=…: makes a Stripe customer the user's."""

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.entrypoints.http import Request, Response, api_handler
from stripe_integrations.entrypoints.serialization import customer_to_json
from stripe_integrations.errors import InvalidFieldError


@api_handler
def handler(request: Request) -> Response:
    request.caller.require_trusted()
    user = User(request.user_id())
    fields = request.api_json()
    stripe_id, take_over = fields.pop("stripe_id", None), fields.pop("take_over", False)
    if fields:
        raise InvalidFieldError(next(iter(fields)), "is not a field of this request")
    customer = StripeCustomer.adopt(user, stripe_id, take_over=take_over)
    return Response(201 if customer.is_new else 200, customer_to_json(customer))
