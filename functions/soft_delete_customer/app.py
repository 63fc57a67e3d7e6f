"""DELETE /customers/{user_id}, or /customers?user_id=…: soft-deletes the customer of a user."""

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.entrypoints.http import Request, Response, api_handler


@api_handler
def handler(request: Request) -> Response:
    StripeCustomer.soft_delete(StripeCustomer.require(User(request.user_id())))
    return Response(204)
