"""The use cases: the public Python API.

from stripe_integrations.actions import StripeCustomer, User

customer = StripeCustomer.create(User("u-1"), "jane@example.com", name="Jane")
"""

from typing import TYPE_CHECKING, Any

from stripe_integrations.actions.events.stream import StreamRecord
from stripe_integrations.actions.stripe_customer import StripeCustomer, User
from stripe_integrations.actions.stripe_event import StripeEvent

if TYPE_CHECKING:
    from stripe_integrations.actions.stripe_account import StripeAccount

__all__ = ["StreamRecord", "StripeAccount", "StripeCustomer", "StripeEvent", "User"]


def __getattr__(name: str) -> Any:
    """Import `StripeAccount` on first use: no function that serves a request needs it."""
    if name != "StripeAccount":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stripe_integrations.actions.stripe_account import StripeAccount  # noqa: PLC0415

    return StripeAccount
