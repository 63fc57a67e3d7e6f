"""Structured logs and metrics: they contain ids, and nothing personal.

An invocation logs one line at INFO, which has its outcome, what it did, and its metrics in
CloudWatch's embedded metric format:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any

from stripe_integrations import errors

Json = dict[str, Any]

NAMESPACE = "StripeIntegrations"

logger = logging.getLogger("stripe_integrations")
handler = logging.StreamHandler(sys.stdout)
"""Prints the log lines in Lambda. Elsewhere they go where the application's logging sends them."""

MAX_ITEMS = 100
"""The most values that a metric in a line may have, and the most items of our own lists."""


class Unit(StrEnum):
    """CloudWatch's units of metrics."""

    COUNT = "Count"
    MILLISECONDS = "Milliseconds"
    SECONDS = "Seconds"


class Metric(Enum):
    """The metrics: their name in CloudWatch, their meaning, and their unit.

    They have one dimension, `service`, which is the stack. `INTERNAL_ERRORS` is sent a second time
    with the function and its version: a deployment is rolled back on those of the new version.
    """

    def __init__(self, title: str, meaning: str, unit: Unit = Unit.COUNT) -> None:
        self.title = title
        self.meaning = meaning
        self.unit = unit

    CUSTOMERS_CREATED = "CustomersCreated", "create calls that created a customer"
    CUSTOMERS_RETURNED = "CustomersReturned", "creates that returned the user's existing customer"
    CUSTOMERS_ADOPTED = "CustomersAdopted", "existing customers on Stripe that a user adopted"
    EVENTS_RECEIVED = "EventsReceived", "events that were stored, or were stored already"
    EVENTS_APPLIED = "EventsApplied", "events that took effect, or whose custom handlers ran"
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
        Unit.MILLISECONDS,
    )
    OLDEST_UNFINISHED_EVENT_AGE = (
        "OldestUnfinishedEventAge",
        "age of the oldest pending event since its receipt; 0 without one",
        Unit.SECONDS,
    )
    SWEEP_AGE = (
        "SweepAge",
        "time since the last complete sweep of Stripe's list began",
        Unit.SECONDS,
    )
    ACCOUNT_DIFFERENCES = (
        "AccountDifferences",
        "differences between Stripe and the table that a verification found",
    )


class _Formatter(logging.Formatter):
    """Makes a line of JSON of a record, with the ids of the invocation.

    Only our own fields are in it: no traceback, whose messages may quote a payload.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "level": record.levelname,
            "message": record.getMessage(),
            "timestamp": _iso(record.created),
            **_invocation.ids,
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        present = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(present, default=str, separators=(",", ":"))


_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message"}


def _iso(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def configure_logging() -> None:
    """Print log lines as JSON, from the level that LOG_LEVEL has."""
    handler.setFormatter(_Formatter())
    logger.addHandler(handler)
    logger.setLevel(os.environ.get("LOG_LEVEL", "INFO"))
    logger.propagate = False  # the root's handler is Lambda's


class _Invocation:
    """The log line of the current invocation, until it is printed."""

    def __init__(self, **ids: str | None) -> None:
        self.ids = ids
        self.level = logging.ERROR
        self.message = "interrupted"
        self.clear()

    def clear(self) -> None:
        """Begin the next line, after one was printed."""
        self.fields: Json = {}
        self.lists: dict[str, list[Mapping[str, Any] | str]] = {}
        self.calls = 0
        self.milliseconds = 0
        self.metrics: dict[Metric, list[float]] = {}

    def as_fields(self) -> Json:
        """Everything but the message and the ids."""
        summary = {"calls": self.calls, "milliseconds": self.milliseconds}
        return {
            **self.fields,
            **({"stripe": summary} if self.calls else {}),
            **self.lists,
            **_metric_fields(self.metrics),
        }


_invocation = _Invocation()


def begin_invocation(request_id: str) -> None:
    """Begin the log line of an invocation, whose ids every line of it has.

    Parameters
    ----------
    request_id : str
        Lambda's id of the invocation.
    """
    global _invocation  # noqa: PLW0603 - a process of Lambda runs one invocation at a time
    trace = os.environ.get("_X_AMZN_TRACE_ID", "")
    _invocation = _Invocation(
        function_request_id=request_id,
        xray_trace_id=trace.partition(";")[0].removeprefix("Root=") or None,
    )


def set_correlation_id(correlation_id: str | None) -> None:
    """Add the id of the request, which its sender knows, to the lines of this invocation."""
    _invocation.ids["correlation_id"] = correlation_id


def set_outcome(level: int, message: str, **fields: object) -> None:
    """Set how the invocation ended, for its line."""
    _invocation.level, _invocation.message = level, message
    add_fields(**fields)


def add_fields(**fields: object) -> None:
    """Add fields to the line of this invocation: ids and numbers."""
    _invocation.fields.update(fields)


def add_item(name: str, item: Mapping[str, Any] | str) -> None:
    """Add an item to a list in the line of this invocation.

    What an invocation did is printed in several lines if it is more than one line can have.
    """
    items = _invocation.lists.setdefault(name, [])
    items.append(item)
    if len(items) == MAX_ITEMS:
        print_line("continues")


def add_stripe_call(milliseconds: int, request_id: str | None) -> None:
    """Count a call to Stripe in the line of this invocation."""
    _invocation.calls += 1
    _invocation.milliseconds += milliseconds
    if request_id is not None:
        add_item("stripe_request_ids", request_id)


def measure(metric: Metric, value: float) -> None:
    """Add a value to the metrics of this invocation."""
    values = _invocation.metrics.setdefault(metric, [])
    values.append(value)
    if metric.unit is Unit.COUNT:
        values[:] = [sum(values)]
    if len(values) == MAX_ITEMS:
        print_line("continues")


def print_line(message: str, level: int = logging.INFO) -> None:
    """Print what the invocation has done since its last line.

    A line that has metrics is printed whatever the log level is.
    """
    has_metrics = bool(_invocation.metrics)
    fields = _invocation.as_fields()
    _invocation.clear()
    if has_metrics or logger.isEnabledFor(level):
        logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None, extra=fields))


def end_invocation() -> None:
    """Print the line of this invocation."""
    print_line(_invocation.message, _invocation.level)


def _metric_fields(metrics: dict[Metric, list[float]]) -> Json:
    """Metrics in the embedded metric format, by stack; internal errors also by version."""
    if not metrics:
        return {}
    dimensions = {"service": os.environ.get("DEPLOYMENT_NAME", "")}
    directives = [_directive(dimensions, metrics)]
    if Metric.INTERNAL_ERRORS in metrics:
        dimensions |= {
            "function_name": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", ""),
            "function_version": os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
        }
        if all(dimensions.values()):
            directives.append(_directive(dimensions, [Metric.INTERNAL_ERRORS]))
    return {
        "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": directives},
        **dimensions,
        **{metric.title: values for metric, values in metrics.items()},
    }


def _directive(dimensions: Iterable[str], metrics: Iterable[Metric]) -> Json:
    return {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": metric.title, "Unit": metric.unit} for metric in metrics],
    }


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
