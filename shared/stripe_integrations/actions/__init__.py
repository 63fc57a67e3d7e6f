"""The use cases: the public Python API.

from stripe_integrations.actions import StripeCustomer, User

customer = StripeCustomer.create(User("u-1"), "jane@example.com", name="Jane")
"""

from stripe_integrations.actions.events.stream import StreamRecord
from stripe_integrations.actions.stripe_customer import StripeCustomer, User
from stripe_integrations.actions.stripe_event import StripeEvent

__all__ = ["StreamRecord", "StripeCustomer", "StripeEvent", "User"]
