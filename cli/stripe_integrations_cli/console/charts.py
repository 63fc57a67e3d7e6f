"""Charts of the stack's metrics, drawn by pygal."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pygal
from pygal.style import DarkStyle, LightStyle, Style

from stripe_integrations_cli.stack import Stack

_NAMESPACE = "StripeIntegrations"

RANGES = {"1h": (60, 60), "6h": (6 * 60, 300), "1d": (24 * 60, 900), "7d": (7 * 24 * 60, 3600)}
"""Minutes, and the seconds of a period."""


_COLORS: dict[type[Style], tuple[str, ...]] = {
    LightStyle: ("#3f38c9", "#0b6b3a", "#b86a00", "#b3122f"),
    DarkStyle: ("#a9a5ff", "#6fdba0", "#f3c26b", "#ff9aa8"),
}


class Series(NamedTuple):
    """A line or the bars of a chart: the metric, its statistic, and its title."""

    metric: str
    statistic: str
    title: str


@dataclass(frozen=True)
class Description:
    """A chart: its title, what it is made of, and whether it has stacked bars."""

    title: str
    series: tuple[Series, ...]
    has_bars: bool = False


CHARTS = (
    Description(
        "Events received",
        (
            Series("EventsReceived", "Sum", "received"),
            Series("EventsRecovered", "Sum", "recovered from Stripe's list"),
        ),
        has_bars=True,
    ),
    Description(
        "Outcomes",
        (
            Series("EventsApplied", "Sum", "applied"),
            Series("EventsIgnored", "Sum", "ignored"),
            Series("EventRetriesScheduled", "Sum", "retried"),
            Series("EventsDeadLettered", "Sum", "failed"),
        ),
        has_bars=True,
    ),
    Description(
        "Seconds from an event's creation on Stripe until it was applied",
        (Series("EventDelay", "Average", "average"), Series("EventDelay", "Maximum", "longest")),
    ),
    Description(
        "Seconds since the receipt of the oldest pending event",
        (Series("OldestUnfinishedEventAge", "Maximum", "age"),),
    ),
)


@dataclass(frozen=True)
class Chart:
    """A chart as a page shows it.

    Parameters
    ----------
    title : str
        What it shows.
    light, dark : str
        The image, as the address of its data.
    columns : list of str
        Of the table with the same values: the time, and the series.
    rows : list of list
        The periods that have a value, newest first.
    """

    title: str
    light: str
    dark: str
    columns: list[str]
    rows: list[list[Any]]


def charts(stack: Stack, name: str) -> list[Chart]:
    """Return the charts of the stack's metrics, by one call to CloudWatch.

    Parameters
    ----------
    stack : Stack
        The stack.
    name : str
        One of `RANGES`.
    """
    minutes, period = RANGES[name]
    now = int(datetime.now(UTC).timestamp())
    end = datetime.fromtimestamp(now - now % period + period, UTC)
    start = end - timedelta(minutes=minutes)
    series = list(dict.fromkeys(each for chart in CHARTS for each in chart.series))
    values = _values(stack, series, start, end, period)
    times = [start + timedelta(seconds=period * each) for each in range(minutes * 60 // period)]
    return [_chart(each, times, values) for each in CHARTS]


def _values(
    stack: Stack, series: Sequence[Series], start: datetime, end: datetime, period: int
) -> dict[Series, dict[datetime, float]]:
    queries = [
        {
            "Id": f"s{place}",
            "MetricStat": {
                "Metric": {
                    "Namespace": _NAMESPACE,
                    "MetricName": each.metric,
                    "Dimensions": [{"Name": "service", "Value": stack.name}],
                },
                "Period": period,
                "Stat": each.statistic,
            },
        }
        for place, each in enumerate(series)
    ]
    found: dict[Series, dict[datetime, float]] = {each: {} for each in series}
    pages = stack.client("cloudwatch").get_paginator("get_metric_data")
    for page in pages.paginate(MetricDataQueries=queries, StartTime=start, EndTime=end):
        for result in page["MetricDataResults"]:
            times = (moment.astimezone(UTC) for moment in result["Timestamps"])
            found[series[int(result["Id"][1:])]] |= dict(zip(times, result["Values"], strict=True))
    return found


def _chart(
    described: Description,
    times: Sequence[datetime],
    values: Mapping[Series, Mapping[datetime, float]],
) -> Chart:
    columns = {each.title: [values[each].get(time) for time in times] for each in described.series}
    labels = [time.strftime("%m-%d %H:%M") for time in times]
    rows = [
        [label, *(None if value is None else round(value, 1) for value in row)]
        for label, *row in zip(labels, *columns.values(), strict=True)
        if any(value is not None for value in row)
    ]
    return Chart(
        described.title,
        light=_image(described, labels, columns, LightStyle),
        dark=_image(described, labels, columns, DarkStyle),
        columns=["time", *columns],
        rows=rows[::-1],
    )


def _image(
    described: Description,
    labels: Sequence[str],
    columns: Mapping[str, Sequence[float | None]],
    style: type[Style],
) -> str:
    kind = pygal.StackedBar if described.has_bars else pygal.Line
    chart = kind(
        style=style(
            background="transparent",
            plot_background="transparent",
            colors=_COLORS[style],
            font_family="sans-serif",
            no_data_font_size=18,
        ),
        width=640,
        height=260,
        js=[],  # pygal would refer to a script on another host
        legend_at_bottom=True,
        x_labels_major_every=max(len(labels) // 6, 1),
        truncate_label=-1,
        show_minor_x_labels=False,
        show_dots=True,
        dots_size=2,
        no_data_text="no data in this period",
        max_scale=6,
        include_x_axis=True,
    )
    chart.x_labels = labels
    for title, points in columns.items():
        chart.add(title, list(points))
    return f"data:image/svg+xml;base64,{base64.b64encode(chart.render()).decode()}"
