"""The commands: ``stripe-customers GROUP COMMAND``."""

from __future__ import annotations

import typer

from stripe_integrations_cli.console.command import console
from stripe_integrations_cli.customers import customers
from stripe_integrations_cli.doctor import doctor
from stripe_integrations_cli.environment import env
from stripe_integrations_cli.events import events
from stripe_integrations_cli.key import key
from stripe_integrations_cli.runs import add_runs, backfill
from stripe_integrations_cli.session import command
from stripe_integrations_cli.setup import setup
from stripe_integrations_cli.webhook import webhook

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Inspect and operate a stack that stores Stripe customers in your AWS account.",
    epilog="Exit status: 0 done, 1 failed or found differences, 2 called wrongly, 130 Ctrl-C.",
)
app.add_typer(customers, name="customers")
app.add_typer(events, name="events")
app.add_typer(backfill, name="backfill")
app.add_typer(webhook, name="webhook")
app.add_typer(key, name="key")
add_runs(app)
command(app, "env")(env)
command(app, "setup")(setup)
command(app, "doctor")(doctor)
command(app, "console")(console)
