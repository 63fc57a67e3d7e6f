"""What a Lambda process does before its first invocation, while it has a whole vCPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from stripe_integrations.adapters import aws, secrets
from stripe_integrations.config import Settings
from stripe_integrations.context import current
from stripe_integrations.entrypoints import snapshot
from stripe_integrations.models.table import Record


@cache
def initialize() -> None:
    """Make the clients that the first invocation needs, without a call to any service.

    Outside Lambda it does nothing: clients are made on first use. What fails here fails again in
    the invocation, which reports it. No secret is read, and no connection is opened.

    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
    """
    if "AWS_LAMBDA_RUNTIME_API" not in os.environ:
        return
    steps: tuple[Callable[[Settings], object], ...] = (
        lambda _: Record.prepare_connection(),
        secrets.prepare,
        _prepare_stripe,
        _prepare_publishing,
    )
    for step in steps:
        with suppress(Exception):
            step(current().settings)
    snapshot.register_hooks()


def _prepare_stripe(settings: Settings) -> None:
    if settings.api_key_name or settings.api_key:
        _ = current().stripe


def _prepare_publishing(settings: Settings) -> None:
    if settings.event_bus_name:
        aws.client("events")
