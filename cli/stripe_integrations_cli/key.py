"""``key``: the restricted key that the stack's functions call Stripe with."""

from __future__ import annotations

import typer

from stripe_integrations_cli.doctor import check_key
from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.secret_store import SecretStore, ask_for_secret
from stripe_integrations_cli.session import Session, command
from stripe_integrations_cli.stack import Deployment

key = typer.Typer(no_args_is_help=True, help="The restricted key of Stripe's API.")


@command(key, "set")
def set_key(session: Session) -> None:
    """Store the key that the functions use, typed at a prompt; it is never printed.

    A key of the other mode, a secret key, and one without the permissions that the stack needs are
    refused. The functions read a stored key again when Stripe refuses the one that they have, and
    every five minutes.
    """
    store_key(session.stack)
    session.output.fields({"stored": session.stack.parameters["StripeApiKeyName"]})


def store_key(stack: Deployment) -> None:
    """Ask for the key that the functions use, check it, and store it.

    Parameters
    ----------
    stack : Deployment
        The stack, deployed or not.

    Raises
    ------
    CommandError
        The key does not fit the stack.
    """
    value = ask_for_secret("Restricted key")
    # A local double of Stripe has no restricted keys.
    if value.startswith("sk_") and not stack.parameters["StripeApiBase"]:
        raise CommandError("this is a secret key, not a restricted one: nothing was changed")
    for finding in check_key(stack, value):
        if finding.result == "problem":
            raise CommandError(f"{finding.found}: nothing was changed")
    SecretStore(stack).write_api_key(value)
