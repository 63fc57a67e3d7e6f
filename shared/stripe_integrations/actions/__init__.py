"""The use cases: the public Python API.

from stripe_integrations.actions import StripeCustomer, User

customer = StripeCustomer.create(User("u-1"), "jane@example.com", name="Jane")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stripe_integrations.actions.events.stream import StreamRecord
    from stripe_integrations.actions.stripe_account import StripeAccount
    from stripe_integrations.actions.stripe_customer import StripeCustomer, User
    from stripe_integrations.actions.stripe_event import StripeEvent

__all__ = ["StreamRecord", "StripeAccount", "StripeCustomer", "StripeEvent", "User"]

_MODULES = {
    "StreamRecord": "events.stream",
    "StripeAccount": "stripe_account",
    "StripeCustomer": "stripe_customer",
    "StripeEvent": "stripe_event",
    "User": "stripe_customer",
}


def __getattr__(name: str) -> Any:
    """Import an action's module at its first use: no function needs all of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
