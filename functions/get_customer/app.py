"""GET /customers/{user_id}, /customers?user_id=…, or /me: a user's customer with its children."""

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.entrypoints.http import Request, Response, api_handler
from stripe_integrations.entrypoints.serialization import customer_to_json
from stripe_integrations.errors import CustomerNotFoundError


@api_handler
def handler(request: Request) -> Response:
    customer = StripeCustomer.get(User(request.user_id()))
    if customer is None:
        raise CustomerNotFoundError("this user has no customer")
    return Response(200, customer_to_json(customer))
