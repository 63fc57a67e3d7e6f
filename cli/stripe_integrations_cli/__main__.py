"""Runs the command line: ``python -m stripe_integrations_cli``."""

from stripe_integrations_cli.app import app

app(prog_name="stripe-customers")
