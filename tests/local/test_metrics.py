"""The metrics that the local cloud makes of log lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.metrics import metric_data


def line(**metrics: Any) -> str:
    directive = {
        "Namespace": "N",
        "Dimensions": [["service"]],
        "Metrics": [{"Name": name, "Unit": "Seconds"} for name in metrics],
    }
    aws = {"Timestamp": 1_800_000_000_500, "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": aws, "service": "stack", **metrics})


def test_has_each_value_and_its_dimensions() -> None:
    ((namespace, datum),) = metric_data(line(Age=[1.5, 2]))
    assert namespace == "N"
    assert datum == {
        "MetricName": "Age",
        "Dimensions": [{"Name": "service", "Value": "stack"}],
        "Timestamp": 1_800_000_000.5,
        "Values": [1.5, 2],
        "Unit": "Seconds",
    }


def of_aws(*directives: Any) -> str:
    return json.dumps({"_aws": {"Timestamp": 1, "CloudWatchMetrics": directives}, "N": "a"})


@pytest.mark.parametrize(
    "printed",
    [
        *("", "text", "[]", "1", "{}", '{"_aws": 1}', '{"_aws": {}}'),
        of_aws(1),
        of_aws({"Namespace": "N"}),
        of_aws({"Namespace": "N", "Dimensions": [["none"]], "Metrics": [{"Name": "N"}]}),
        of_aws({"Namespace": "N", "Dimensions": [[]], "Metrics": ["N"]}),
        of_aws({"Namespace": "N", "Dimensions": [[]], "Metrics": [{"Name": "none"}]}),
        of_aws({"Namespace": "N", "Dimensions": [[]], "Metrics": [{"Name": "N"}]}),
    ],
)
def test_ignores_what_has_none(printed: str) -> None:
    assert list(metric_data(printed)) == []
