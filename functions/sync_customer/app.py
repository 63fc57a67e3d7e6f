"""POST /customers/{user_id}/sync, /customers/sync?user_id=…, or /me/sync: updates from Stripe."""

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.entrypoints.http import Request, Response, api_handler
from stripe_integrations.entrypoints.serialization import customer_to_json


@api_handler
def handler(request: Request) -> Response:
    customer = StripeCustomer.require(User(request.user_id()))
    return Response(200, customer_to_json(StripeCustomer.sync(customer)))
