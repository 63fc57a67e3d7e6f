"""A stateful test double of Stripe's API, for tests, simulations and the local cloud.

`StripeDouble` is the account as an object; `client.StripeDoubleClient` connects the ``stripe``
library to it in process, `StripeDoubleServer` serves it over HTTP.
"""

from .double import Response, StripeDouble
from .faults import Faults
from .filling import fill
from .http_server import StripeDoubleServer
from .rate_limits import RateLimits
from .tokens import TestCard
from .webhooks import Delivery, WebhookEndpoint, Webhooks, sign

__all__ = [
    "Delivery",
    "Faults",
    "RateLimits",
    "Response",
    "StripeDouble",
    "StripeDoubleServer",
    "TestCard",
    "WebhookEndpoint",
    "Webhooks",
    "fill",
    "sign",
]
