"""``key``: the restricted key that the stack's functions call Stripe with."""

from __future__ import annotations

import typer

from stripe_integrations_cli.secret_store import SecretStore, ask_for_secret
from stripe_integrations_cli.session import Session, command
from stripe_integrations_cli.stripe_account import require_mode

key = typer.Typer(no_args_is_help=True, help="The restricted key of Stripe's API.")


@command(key, "set")
def set_key(session: Session) -> None:
    """Store the key that the functions use, typed at a prompt; it is never printed.

    A key of the other mode is refused. The functions read a stored key again when Stripe refuses
    the one that they have, and every five minutes.
    """
    value = ask_for_secret("Restricted key")
    require_mode(session.stack, value)
    SecretStore(session.stack).write_api_key(value)
    session.output.fields({"stored": session.stack.parameters["StripeApiKeyName"]})
