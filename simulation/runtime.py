"""Readies the libraries once: no network, no sleep, no chance and no log of their own."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import botocore.retries.quota
import botocore.retries.standard

from simulation.database import Answer
from simulation.database.transport import Answering, answering
from simulation.deliveries import SECRET
from simulation.deployment import TABLE_NAME
from simulation.processes import sleep
from simulation.stripe_side import API_KEY
from stripe_integrations.actions.event_handlers import Handler
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models import Customer, Event
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
    """What a process has one of: the client of DynamoDB, the deployment's own handlers.

    Attributes
    ----------
    answer : callable
        The database of the history that is being played.
    heed : callable
        Its handler of events.
    """

    def __init__(self) -> None:
        self.answer: Answering = _nobody
        self.heed: Handler = _unheard
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
    made.kept.enter_context(answering(client, made.dispatch))
    return made


def settings(
    *, event_bus_name: str | None = None, event_handlers: Mapping[str, str] | None = None
) -> Settings:
    """The deployment's settings."""
    return Settings(
        table_name=TABLE_NAME,
        api_key=API_KEY,
        webhook_secret=SECRET,
        event_bus_name=event_bus_name,
        event_handlers=event_handlers or {},
    )


def _nobody(operation: str, _: dict[str, Any]) -> Answer:
    raise RuntimeError(f"{operation}: no history is being played")


def _unheard(event: Event, _: Customer | None) -> None:
    raise RuntimeError(f"{event.stripe_id}: no history is being played")
