"""POST /customers, or /me: creates the customer of a user, or returns the existing one."""

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.entrypoints.http import Request, Response, api_handler
from stripe_integrations.entrypoints.serialization import customer_to_json
from stripe_integrations.errors import InvalidFieldError


@api_handler
def handler(request: Request) -> Response:
    fields = request.api_json()
    user = User(request.take_user_id(fields))
    request.caller.require_fields(fields)
    billing_email = fields.pop("billing_email", None)
    allow_existing = fields.pop("allow_existing", False)
    if "user" in fields:
        raise InvalidFieldError("user", "is not a field of a customer")
    customer = StripeCustomer.create(user, billing_email, allow_existing=allow_existing, **fields)
    body = {**customer_to_json(customer), "existing": not customer.is_new}
    return Response(201 if customer.is_new else 200, body)
