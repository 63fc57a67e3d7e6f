"""``console``: serves the console on this machine."""

from __future__ import annotations

import threading
import webbrowser
from typing import Annotated

import typer

from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.session import Session


def console(
    session: Session,
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="By default, one that is free.")] = 0,
    is_opened: Annotated[
        bool, typer.Option("--open", help="Open it in the browser of this machine.")
    ] = False,
) -> None:
    """Serve pages about the stack's customers, events and runs on this machine, until Ctrl-C.

    They can be reached only from this machine, by the address that is printed, and use your AWS
    credentials.
    """
    try:
        from stripe_integrations_cli.console.server import application, served  # noqa: PLC0415 - other commands need no web server
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is not installed: install the package with the extra cli"
        ) from None

    with served(application(session.stack), port) as address:
        session.output.fields({"console": address})
        if is_opened:
            webbrowser.open(address)
        threading.Event().wait()
