"""Hooks into the libraries: no network, no sleep, no randomness and no logs of their own."""

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
from stripe_integrations.actions.events.handlers import EventHandler
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models import Customer, Event
from stripe_integrations.models.table import Record
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


class Hooks:
    """The per-process hooks: the database behind the DynamoDB client, and the custom handler.

    Attributes
    ----------
    answer : callable
        Answers database requests of the history that runs.
    handle : callable
        Handles events of the history that runs.
    """

    def __init__(self) -> None:
        self.answer: Answering = _no_database
        self.handle: EventHandler = _no_handler
        self.resources = ExitStack()

    def dispatch(self, operation: str, body: dict[str, Any]) -> Answer:
        """Answer a database request of the history that runs."""
        return self.answer(operation, body)


@cache
def hooks() -> Hooks:
    """The hooks of this process, installed by the first call."""
    os.environ.update(_ENVIRONMENT)
    logger.setLevel(logging.CRITICAL)
    # botocore sleeps for a random time between retries; here it sleeps on virtual time.
    botocore.endpoint.time = SimpleNamespace(sleep=sleep)
    botocore.retries.standard.ExponentialBackoff.__init__.__defaults__ = (
        20,
        lambda: _MIDDLE,
        None,
        None,
    )
    # Processes that share the client must not use up each other's retries.
    botocore.retries.quota.RetryQuota.__init__.__defaults__ = (_INEXHAUSTIBLE, None)
    installed = Hooks()
    with use(Context(settings())):
        client = Record.connection().client
    installed.resources.enter_context(answering(client, installed.dispatch))
    return installed


def settings(
    *,
    event_bus_name: str | None = None,
    event_handlers: Mapping[str, str] | None = None,
    stored_records: frozenset[str] | None = None,
) -> Settings:
    """The settings of the deployment."""
    return Settings(
        table_name=TABLE_NAME,
        api_key=API_KEY,
        webhook_secret=SECRET,
        event_bus_name=event_bus_name,
        event_handlers=event_handlers or {},
        stored_records=stored_records,
    )


def _no_database(operation: str, _: dict[str, Any]) -> Answer:
    raise RuntimeError(f"{operation}: no history runs")


def _no_handler(event: Event, _: Customer | None) -> None:
    raise RuntimeError(f"{event.stripe_id}: no history runs")
