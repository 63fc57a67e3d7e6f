"""The deployment that a table belongs to, by its name.

A deployment recognizes its customers on Stripe by its name in their tokens. With another name, a
process would create customers that a rebuild skips, and their users would get a second one. So the
first create stores the name in the table, and a process configured with a different name is
rejected.
"""

from __future__ import annotations

from contextlib import suppress

from pynamodb.attributes import UnicodeAttribute

from stripe_integrations.context import current
from stripe_integrations.errors import ConfigurationError
from stripe_integrations.models.table import ConditionFailedError, Record, transact

_PK, _SK = "DEPLOYMENT", "NAME"


class Deployment(Record, discriminator="Deployment"):
    """The name of the table's deployment, stored once, before the first customer."""

    name = UnicodeAttribute()


def deployment_name() -> str:
    """Return the deployment's name: the table's, or the settings' while the table has none.

    Once the table has one, a process reads it only once.

    Raises
    ------
    ConfigurationError
        The table has another name than the settings, or neither has one.
    """
    context = current()
    own = context.settings.deployment_name
    if context.deployment_name is None:
        stored = Deployment.read_one(_PK, _SK)
        context.deployment_name = stored.name if stored else None
    name = context.deployment_name or own
    if name is None:
        raise ConfigurationError("DEPLOYMENT_NAME is not set, and the table has no name yet")
    if own not in (None, name):
        raise ConfigurationError(
            f"DEPLOYMENT_NAME is {own}, but the table belongs to deployment {name}"
        )
    return name


def check_deployment() -> None:
    """Raise `ConfigurationError` if the table belongs to another deployment."""
    deployment_name()


def store_deployment_name() -> None:
    """Store the name in a table that has none: see `deployment_name`."""
    name = deployment_name()
    if current().deployment_name is None:
        deployment = Deployment(_PK, _SK, name=name)
        with suppress(ConditionFailedError):  # a concurrent process has stored one
            transact(lambda t: t.save(deployment, Deployment.pk.does_not_exist()))
        check_deployment()
