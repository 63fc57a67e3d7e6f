"""The Stripe account, with the operator's secret key: the stack's own key may not do as much."""

from __future__ import annotations

from typing import Any

from stripe_integrations.config import API_VERSION, STRIPE_API_BASE, api_key_pattern
from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.secret_store import ask_for_secret
from stripe_integrations_cli.stack import Deployment

KEY_VARIABLE = "STRIPE_API_KEY"


def is_key_of_mode(stack: Deployment, key: str) -> bool:
    """Return whether this is a key of Stripe's API, of the mode that the stack serves."""
    return api_key_pattern(stack.parameters["StripeMode"]).fullmatch(key) is not None


def require_mode(stack: Deployment, key: str) -> None:
    """Refuse a key that is not of the stack's mode.

    Raises
    ------
    CommandError
        It is no key, or one of the other mode.
    """
    if not is_key_of_mode(stack, key):
        mode = stack.parameters["StripeMode"]
        raise CommandError(
            f"{stack.name} is in {mode} mode: this is not a {mode}-mode key of Stripe's API"
        )


def ask_for_secret_key(stack: Deployment) -> str:
    """Return a secret key of Stripe's API that is typed, or in STRIPE_API_KEY.

    Raises
    ------
    CommandError
        The key is of the other mode.
    """
    key = ask_for_secret("Secret key", KEY_VARIABLE)
    require_mode(stack, key)
    return key


def stripe_client(stack: Deployment) -> Any:
    """Return a client of Stripe's API with the operator's secret key."""
    return client_with_key(stack, ask_for_secret_key(stack))


def client_with_key(stack: Deployment, key: str) -> Any:
    """Return a client of Stripe's API, at the address that the stack calls."""
    import stripe  # noqa: PLC0415 - half a second, which most commands don't need

    base = stack.parameters["StripeApiBase"] or STRIPE_API_BASE
    return stripe.StripeClient(key, stripe_version=API_VERSION, base_addresses={"api": base})
