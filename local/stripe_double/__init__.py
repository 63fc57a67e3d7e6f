"""A small Stripe of our own, for tests, simulations and the local demo.

`StripeDouble` is the plain object; `client.StripeDoubleClient` puts it under the ``stripe``
library in process, `StripeDoubleServer` behind HTTP.
"""

from .double import Response, StripeDouble
from .faults import Faults
from .http_server import StripeDoubleServer
from .tokens import TestCard
from .webhooks import Delivery, WebhookEndpoint, Webhooks, sign

__all__ = [
    "Delivery",
    "Faults",
    "Response",
    "StripeDouble",
    "StripeDoubleServer",
    "TestCard",
    "WebhookEndpoint",
    "Webhooks",
    "sign",
]
