"""What makes a snapshot of a process safe: Lambda starts many processes from one (SnapStart).

Identifiers and tokens need nothing: they come from the operating system's random numbers, of which
a process has no state. Lambda's own credentials expire by the clock, and botocore renews them then.
"""

from __future__ import annotations

import random
from contextlib import suppress

from stripe_integrations.adapters import aws, secrets
from stripe_integrations.context import current
from stripe_integrations.errors import ConfigurationError
from stripe_integrations.models.table import Record


def register_hooks() -> None:
    """Let Lambda's runtime call the functions below, where it makes snapshots.

    https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    """
    try:
        import snapshot_restore_py  # noqa: PLC0415 - a part of the runtime
    except ImportError:
        return  # the runtime of Python 3.11 makes none
    snapshot_restore_py.register_before_snapshot(forget)
    snapshot_restore_py.register_after_restore(reseed)


def forget() -> None:
    """Drop connections, which two processes can't share, and secrets, which may be replaced."""
    secrets.forget()
    aws.close_connections()
    with suppress(ConfigurationError):
        Record.close_connections()
        current().disconnect_stripe()


def reseed() -> None:
    """Let the pauses that libraries make before retries differ between the processes."""
    random.seed()
