"""Readies the libraries once: no network, no sleep, no chance and no log of their own."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from functools import cache
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import botocore.retries.quota
import botocore.retries.standard
from botocore import UNSIGNED

from simulation.database import Answer
from simulation.database.transport import Answering, answering
from simulation.deployment import TABLE_NAME
from simulation.processes import sleep
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models.record import Record
from stripe_integrations.observability import logger

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "simulation",
    "AWS_SECRET_ACCESS_KEY": "simulation",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_REGION": "eu-west-1",
    "POWERTOOLS_METRICS_DISABLED": "true",
    "POWERTOOLS_METRICS_NAMESPACE": "simulation",
}
_INEXHAUSTIBLE = 10**9
_MIDDLE = 0.5


class Stage:
    """The one client of DynamoDB, and whose database answers it now."""

    def __init__(self) -> None:
        self.answer: Answering = _nobody
        self.kept = ExitStack()

    def dispatch(self, operation: str, body: dict[str, Any]) -> Answer:
        """Let the history that is being played answer."""
        return self.answer(operation, body)


@cache
def stage() -> Stage:
    """The stage on which every history of this process is played."""
    os.environ.update(_ENVIRONMENT)
    logger.setLevel(logging.CRITICAL)
    # botocore's own pauses; chance in them would not come from the seed.
    botocore.endpoint.time = SimpleNamespace(sleep=sleep)
    botocore.retries.standard.ExponentialBackoff.__init__.__defaults__ = (
        20,
        lambda: _MIDDLE,
        None,
        None,
    )
    # Processes that share the client must not use up each other's retries.
    botocore.retries.quota.RetryQuota.__init__.__defaults__ = (_INEXHAUSTIBLE, None)
    made = Stage()
    with use(Context(settings())):
        client = Record.connection().client
    client.meta.events.register("choose-signer.dynamodb", lambda **_: UNSIGNED)
    made.kept.enter_context(answering(client, made.dispatch))
    return made


def settings(*, event_bus_name: str | None = None) -> Settings:
    """The deployment's settings."""
    return Settings(
        table_name=TABLE_NAME,
        api_key="sk_test_double",
        webhook_secret="whsec_double",  # noqa: S106 - the double's
        event_bus_name=event_bus_name,
    )


def _nobody(operation: str, _: dict[str, Any]) -> Answer:
    raise RuntimeError(f"{operation}: no history is being played")
