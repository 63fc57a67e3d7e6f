"""Hooks into the libraries: no network, no sleep, no randomness and no logs of their own."""

from __future__ import annotations

import logging
import os
from functools import cache
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import botocore.retries.quota
import botocore.retries.standard

from simulation.deployment import TABLE_NAME
from simulation.processes import sleep
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models.table import Record
from stripe_integrations.observability import logger

HASH_SEED = "0"
"""The PYTHONHASHSEED of every process, so that sets iterate in the same order in every run."""

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


@cache
def client() -> Any:
    """The client of DynamoDB that all processes share, after the hooks are installed."""
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
    with use(Context(Settings(table_name=TABLE_NAME))):
        return Record.connection().client
