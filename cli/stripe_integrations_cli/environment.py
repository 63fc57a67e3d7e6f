"""``env``: the variables of a process that calls the Python API."""

from __future__ import annotations

import shlex

from stripe_integrations_cli.session import Session


def env(session: Session) -> None:
    """Print the environment variables that your own worker with the Python API needs.

    They are printed as NAME=value, quoted for a shell, with the names of secrets and no secret.
    """
    variables = session.stack.variables()
    if session.output.as_json:
        session.output.json(variables)
        return
    for name, value in variables.items():
        session.output.line(f"{name}={shlex.quote(value)}")
