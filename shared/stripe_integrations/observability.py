"""Structured logs and metrics: they contain ids, and nothing personal.

An invocation logs one line, which has its outcome, what it did, and its metrics in CloudWatch's
embedded metric format:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Mapping
from enum import Enum
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from stripe_integrations import errors

Json = dict[str, Any]

NAMESPACE = "StripeIntegrations"

logger = Logger(location=None)
_metrics = Metrics(namespace=NAMESPACE)

MAX_ITEMS = 100
"""The most items of a list in a line."""


class Metric(Enum):
    """The metrics: their name in CloudWatch, their meaning, and their unit.

    They have one dimension, `service`, which is the stack. `INTERNAL_ERRORS` is sent a second time
    with the function and its version: a deployment is rolled back on those of the new version.
    """

    def __init__(self, title: str, meaning: str, unit: MetricUnit = MetricUnit.Count) -> None:
        self.title = title
        self.meaning = meaning
        self.unit = unit

    CUSTOMERS_CREATED = "CustomersCreated", "create calls that created a customer"
    CUSTOMERS_RETURNED = "CustomersReturned", "creates that returned the user's existing customer"
    CUSTOMERS_ADOPTED = "CustomersAdopted", "existing customers on Stripe that a user adopted"
    EVENTS_RECEIVED = "EventsReceived", "events that were stored, or were stored already"
    EVENTS_APPLIED = "EventsApplied", "events that took effect, or whose custom handlers ran"
    EVENT_DELAY = (
        "EventDelay",
        "time from an event's creation on Stripe until it was applied, replays excluded",
        MetricUnit.Seconds,
    )
    EVENTS_IGNORED = "EventsIgnored", "events that changed nothing, for a stated reason"
    STALE_EVENTS_DROPPED = "StaleEventsDropped", "of those, older than the stored state"
    AMBIGUOUS_EVENTS_REFETCHED = (
        "AmbiguousEventsRefetched",
        "events whose order was ambiguous, so that the customer was fetched",
    )
    EVENT_RETRIES_SCHEDULED = (
        "EventRetriesScheduled",
        "failed attempts of an event, whose retry is scheduled",
    )
    EVENTS_DEAD_LETTERED = "EventsDeadLettered", "events that were dead-lettered"
    EVENTS_RECOVERED = (
        "EventsRecovered",
        "events that had not arrived after a minute, and were found in Stripe's list",
    )
    EVENTS_MISSED_BY_STREAM = (
        "EventsMissedByStream",
        "events that apply_event had not attempted after two minutes, applied by the schedule",
    )
    API_VERSION_MISMATCHES = (
        "ApiVersionMismatches",
        "events in another API version than ours, which cost a fetch each",
    )
    INTERNAL_ERRORS = (
        "InternalErrors",
        "responses with 500, and failed attempts of an event, due to a bug or a wrong setting",
    )
    SIGNATURES_REFUSED = "SignaturesRefused", "webhooks whose signature is missing, forged or old"
    OBJECTS_WALKED = "ObjectsWalked", "objects that a walk has read from Stripe's lists and written"
    OBJECTS_REPORTED = "ObjectsReported", "of those, the ones in the report of the walk"
    STRIPE_RATE_LIMITED = "StripeRateLimited", "calls to Stripe that returned 429"
    STRIPE_LATENCY = (
        "StripeLatency",
        "duration of a call to Stripe, retries by its library included",
        MetricUnit.Milliseconds,
    )
    OLDEST_UNFINISHED_EVENT_AGE = (
        "OldestUnfinishedEventAge",
        "age of the oldest pending event since its receipt; 0 without one",
        MetricUnit.Seconds,
    )
    SWEEP_AGE = (
        "SweepAge",
        "time since the last complete sweep of Stripe's list began",
        MetricUnit.Seconds,
    )
    ACCOUNT_DIFFERENCES = (
        "AccountDifferences",
        "differences between Stripe and the table that a verification found",
    )


class _Line:
    """The log line of the current invocation, until it is printed."""

    def __init__(self) -> None:
        self.level = logging.ERROR
        self.message = "interrupted"
        self.clear()

    def clear(self) -> None:
        """Begin the next line, after one was printed."""
        self.fields: Json = {}
        self.lists: dict[str, list[Mapping[str, Any] | str]] = {}
        self.calls = 0
        self.milliseconds = 0

    def as_fields(self) -> Json:
        """What the invocation did."""
        summary = {"calls": self.calls, "milliseconds": self.milliseconds}
        return {**self.fields, **({"stripe": summary} if self.calls else {}), **self.lists}


_line = _Line()


def begin_line() -> None:
    """Begin the log line of an invocation."""
    global _line  # noqa: PLW0603 - a process of Lambda runs one invocation at a time
    _line = _Line()


def set_outcome(level: int, message: str, **fields: object) -> None:
    """Set how the invocation ended, for its line."""
    _line.level, _line.message = level, message
    add_fields(**fields)


def add_fields(**fields: object) -> None:
    """Add fields to the line of this invocation: ids and numbers."""
    _line.fields.update(fields)


def add_item(name: str, item: Mapping[str, Any] | str) -> None:
    """Add an item to a list in the line of this invocation.

    What an invocation did is printed in several lines if it is more than one line can have.
    """
    items = _line.lists.setdefault(name, [])
    items.append(item)
    if len(items) == MAX_ITEMS:
        print_line("continues")


def add_stripe_call(milliseconds: int, request_id: str | None) -> None:
    """Count a call to Stripe in the line of this invocation."""
    _line.calls += 1
    _line.milliseconds += milliseconds
    if request_id is not None:
        add_item("stripe_request_ids", request_id)


def measure(metric: Metric, value: float) -> None:
    """Add a value to the metrics of this invocation.

    Powertools prints them at once when a metric has 100 values.
    """
    _metrics.add_metric(metric.title, metric.unit, value)
    if metric is Metric.INTERNAL_ERRORS:
        _print_by_version(metric, value)


def _print_by_version(metric: Metric, value: float) -> None:
    """Print a metric with the dimensions of the version that is running."""
    dimensions = {
        "service": _metrics.service or "",
        "function_name": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", ""),
        "function_version": os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
    }
    if all(dimensions.values()):
        with single_metric(
            metric.title, metric.unit, value, namespace=NAMESPACE, default_dimensions=dimensions
        ):
            pass


def print_line(message: str, level: int = logging.INFO) -> None:
    """Print what the invocation has done since its last line.

    Where the log level suppresses the line, its metrics are printed alone.
    """
    fields = _line.as_fields()
    _line.clear()
    if level >= logger.log_level:
        if _metrics.metric_set:
            fields |= _metrics.serialize_metric_set()
            _metrics.clear_metrics()
        logging.getLogger(logger.name).log(level, message, extra=fields)
    elif _metrics.metric_set:
        _metrics.flush_metrics()


def end_line() -> None:
    """Print the line of this invocation."""
    print_line(_line.message, _line.level)


def error_log_fields(error: BaseException) -> dict[str, Any]:
    """The log fields of an error: its type, ids and location, and no message but our own."""
    match error:
        case errors.StripeError():
            return {
                "error": type(error).__name__,
                "stripe_request_id": error.request_id,
                "stripe_status": error.status,
                "stripe_code": error.code,
            }
        case errors.InvalidFieldError():
            return {"error": type(error).__name__}  # the field's name is the caller's own text
        case errors.CustomerExistsError(stripe_ids=ids):
            return {"error": type(error).__name__, "detail": str(error), "stripe_ids": ids}
        case errors.StripeIntegrationsError():
            return {"error": type(error).__name__, "detail": str(error)}
    return error_location_fields(error)


def error_location_fields(error: BaseException) -> dict[str, Any]:
    """The log fields of an error whose message is not ours."""
    return {"error": type(error).__name__, "where": where(error)}


def where(error: BaseException) -> list[str]:
    """The locations of an error's traceback, without its message: that may quote a payload."""
    return [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
