"""How CloudWatch evaluates the alarms of template.yaml, missing data included.

An alarm looks at more periods than `EvaluationPeriods`, its evaluation range; AWS does not say how
many more. The data points that exist in the range are used first; missing ones are only filled in
if these are too few. Each minute is evaluated with the periods that end at it.

Metric math has a result for each period in which one of its metrics has a value, and takes a
missing value as 0; a division by zero has no result.

Follows https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html and
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html.
"""

from __future__ import annotations

import ast
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from tools.template import template

MINUTE = 60
EXTRA_PERIODS = (0, 2, 4)
"""How many more periods an evaluation range may have: 2 in AWS's examples."""


class AlarmState(StrEnum):
    """The state of an alarm."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class Measurement(NamedTuple):
    """A value of a metric.

    Parameters
    ----------
    seconds : float
        Since the alarm was created.
    name : str
        The metric.
    value : float
        In the metric's unit.
    route : str
        The route of the API whose metric it is, such as `GET /me`; empty for other metrics.
    """

    seconds: float
    name: str
    value: float = 1
    route: str = ""


class Transition(NamedTuple):
    """A change of an alarm's state, in minutes since the alarm was created."""

    minute: int
    state: AlarmState


def transitions(
    alarm: Mapping[str, Any],
    measurements: Sequence[Measurement],
    minutes: int,
    extra_periods: int = 2,
) -> list[Transition]:
    """Return the changes of an alarm's state.

    Parameters
    ----------
    alarm : mapping
        Its properties in the template.
    measurements : sequence of Measurement
        The values of its metrics.
    minutes : int
        How long it is evaluated.
    extra_periods : int
        By how many periods the evaluation range is longer than `EvaluationPeriods`.
    """
    found: list[Transition] = []
    state = AlarmState.INSUFFICIENT_DATA
    measurements = sorted(measurements)
    for minute in range(1, minutes + 1):
        points = list(_data_points(alarm, measurements, minute * MINUTE, extra_periods))
        new = evaluate(alarm, points, state)
        if new is not state:
            found.append(Transition(minute, new))
        state = new
    return found


def evaluate(
    alarm: Mapping[str, Any], points: Sequence[float | None], state: AlarmState
) -> AlarmState:
    """Evaluate the data points of the evaluation range, newest first.

    Parameters
    ----------
    alarm : mapping
        The alarm's properties.
    points : sequence of float or None
        A value for each period of the range; None where it has no data.
    state : AlarmState
        The alarm's state so far.
    """
    periods = int(alarm["EvaluationPeriods"])
    to_alarm = int(alarm.get("DatapointsToAlarm", periods))
    existing = [point for point in points if point is not None][:periods]
    breaching = sum(_is_breaching(alarm, point) for point in existing)
    missing = periods - len(existing)
    if breaching >= to_alarm:
        return AlarmState.ALARM
    match alarm["TreatMissingData"]:
        case "breaching" if breaching + missing >= to_alarm:
            return AlarmState.ALARM
        case "ignore" if missing and breaching == len(existing):
            return state
        case "breaching" | "notBreaching" | "ignore":
            return AlarmState.OK
    raise NotImplementedError(alarm["TreatMissingData"])


def _is_breaching(alarm: Mapping[str, Any], point: float) -> bool:
    compare: Mapping[str, Callable[[float, float], bool]] = {
        "GreaterThanThreshold": operator.gt,
        "GreaterThanOrEqualToThreshold": operator.ge,
        "LessThanThreshold": operator.lt,
    }
    threshold = alarm["Threshold"]
    if isinstance(threshold, dict):
        threshold = template()["Parameters"][threshold["Ref"]]["Default"]
    return compare[alarm["ComparisonOperator"]](point, float(threshold))


def _data_points(
    alarm: Mapping[str, Any], measurements: Sequence[Measurement], now: float, extra_periods: int
) -> Iterator[float | None]:
    """The data points of the evaluation range, newest first."""
    period = metrics_of(alarm)[0]["Period"]
    until = _count_until(measurements, now)
    for number in range(1, int(alarm["EvaluationPeriods"]) + extra_periods + 1):
        since = _count_until(measurements, now - number * period)
        yield _data_point(alarm, measurements[since:until]) if since < until else None
        until = since


def _count_until(measurements: Sequence[Measurement], seconds: float) -> int:
    return bisect_right(measurements, seconds, key=lambda measurement: measurement.seconds)


def _data_point(alarm: Mapping[str, Any], measurements: Sequence[Measurement]) -> float | None:
    queries: dict[str, str | float | None] = {}
    for metric in metrics_of(alarm):
        watched = (metric["MetricName"], route_of(metric))
        own = [m.value for m in measurements if (m.name, m.route) == watched]
        queries[metric["Id"]] = _STATISTICS[metric["Stat"]](own) if own else None
    if "Metrics" not in alarm:
        (only,) = queries
        return result(only, queries)
    queries |= {m["Id"]: m["Expression"] for m in alarm["Metrics"] if "Expression" in m}
    (returned,) = (m["Id"] for m in alarm["Metrics"] if m.get("ReturnData", True))
    return result(returned, queries)


def chosen(value: Any, holds: Callable[[str], bool]) -> Any:
    """Return a part of the template with one branch of each ``If``.

    Parameters
    ----------
    value : object
        The part, such as the properties of an alarm.
    holds : callable
        Whether a condition holds.
    """
    match value:
        case {"If": [condition, then, otherwise]}:
            return chosen(then if holds(condition) else otherwise, holds)
        case dict():
            return {name: chosen(inner, holds) for name, inner in value.items()}
        case list():
            return [chosen(inner, holds) for inner in value]
    return value


def metrics_of(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return id, namespace, name, dimensions, period in seconds and statistic of each metric."""
    if "Metrics" not in alarm:
        names = ("Namespace", "MetricName", "Dimensions", "Period")
        stat = alarm.get("Statistic", alarm.get("ExtendedStatistic"))
        return [{"Id": "m", **{name: alarm[name] for name in names}, "Stat": stat}]
    return [
        {
            "Id": metric["Id"],
            **metric["MetricStat"]["Metric"],
            "Period": metric["MetricStat"]["Period"],
            "Stat": metric["MetricStat"]["Stat"],
        }
        for metric in alarm["Metrics"]
        if "MetricStat" in metric
    ]


def route_of(metric: Mapping[str, Any]) -> str:
    """Return the route of the API whose metric it is, such as `GET /me`; empty for others."""
    values = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
    return f"{values['Method']} {values['Resource']}" if "Method" in values else ""


_STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "SampleCount": len,
}
_OPERATORS: Mapping[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Eq: operator.eq,
    ast.GtE: operator.ge,
    ast.Or: lambda left, right: left or right,
}


def result(expression: str, queries: Mapping[str, str | float | None]) -> float | None:
    """Return the result of metric math for one period, or None if it has none.

    Parameters
    ----------
    expression : str
        It may use what the template's expressions use.
    queries : mapping
        By id, an expression, or the value of a metric in the period; None where it has no data.

    Raises
    ------
    NotImplementedError
        The expression uses something else.
    """
    return _result(ast.parse(expression.replace(" OR ", " or "), mode="eval").body, queries)


def _result(node: ast.expr, queries: Mapping[str, str | float | None]) -> float | None:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            query = queries[name]
            return result(query, queries) if isinstance(query, str) else query
        case (
            ast.BinOp(left=left, op=op, right=right)
            | ast.Compare(left=left, ops=[op], comparators=[right])
            | ast.BoolOp(op=op, values=[left, right])
        ):
            return _combined(_OPERATORS[type(op)], (left, right), queries)
        case ast.Call(func=ast.Name(id="IF"), args=[condition, yes, no]):
            match _result(condition, queries):
                case None:
                    return None
                case 0:
                    return _result(no, queries)
            return _result(yes, queries) or 0
    raise NotImplementedError(ast.unparse(node))


def _combined(
    combine: Callable[[float, float], float],
    nodes: Sequence[ast.expr],
    queries: Mapping[str, str | float | None],
) -> float | None:
    """Combine two values: a missing one is 0, unless no metric of the two has a value."""
    left, right = operands = [_result(node, queries) for node in nodes]
    of_metrics = [
        operand
        for node, operand in zip(nodes, operands, strict=True)
        if not isinstance(node, ast.Constant)
    ]
    if all(operand is None for operand in of_metrics):
        return None
    try:
        return combine(left or 0, right or 0)
    except ZeroDivisionError:
        return None
