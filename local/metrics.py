"""Metrics of the local cloud, extracted from the functions' logs as CloudWatch does.

Follows https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.background import repeated
from local.cloud import Cloud
from local.function_logs import FunctionLogs
from local.running import FUNCTIONS

Json = dict[str, Any]

POLL_SECONDS = 2.0
MAX_DATA = 1000
"""The most metrics in a request of PutMetricData."""


@contextmanager
def extracted_metrics(cloud: Cloud) -> Iterator[None]:
    """Keep the metrics up to date for the duration of the block."""
    extraction = Extraction(cloud)

    def extract() -> None:
        with suppress(BotoCoreError, ClientError):  # the cloud may be stopping
            extraction.run()

    with repeated(extract, repeat(POLL_SECONDS)):
        yield


class Extraction:
    """Reads the logs of the functions from now on, and puts their metrics."""

    def __init__(self, cloud: Cloud) -> None:
        self._logs = FunctionLogs(cloud.client("logs"), time.time)
        self._metrics = cloud.client("cloudwatch")

    def run(self) -> None:
        """Put the metrics that were logged since the last call."""
        data: dict[str, list[Json]] = {}
        for line in self._new_lines():
            for namespace, datum in metric_data(line):
                data.setdefault(namespace, []).append(datum)
        for namespace, found in data.items():
            for first in range(0, len(found), MAX_DATA):
                part = found[first : first + MAX_DATA]
                self._metrics.put_metric_data(Namespace=namespace, MetricData=part)

    def _new_lines(self) -> Iterator[str]:
        for function in FUNCTIONS:
            for log in self._logs.new(function):
                yield from log.entries


def metric_data(line: str) -> Iterator[tuple[str, Json]]:
    """Yield the namespaces and the values of the metrics in a line of a log."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        # A custom handler may print anything: nothing of a line that can't be read is put.
        yield from list(_metric_data(json.loads(line)))


def _metric_data(logged: Json) -> Iterator[tuple[str, Json]]:
    seconds = logged["_aws"]["Timestamp"] / 1000
    for directive in logged["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = [{"Name": name, "Value": str(logged[name])} for name in names]
            for metric in directive["Metrics"]:
                value = logged[metric["Name"]]
                values = value if isinstance(value, list) else [value]
                yield (
                    directive["Namespace"],
                    {
                        "MetricName": metric["Name"],
                        "Dimensions": dimensions,
                        "Timestamp": seconds,
                        "Values": [float(each) for each in values],
                        "Unit": metric.get("Unit", "None"),
                    },
                )
