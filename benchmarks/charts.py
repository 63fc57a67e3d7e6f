"""The charts of docs/benchmarks.md, drawn by pygal in an environment of its own.

::

    .tools/bench/bin/python -m benchmarks.charts
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pygal
from pygal.style import CleanStyle

Json = dict[str, Any]

_FOLDER = Path(__file__).resolve().parent
_CHARTS = _FOLDER.parent / "docs" / "charts"


def main() -> None:
    """Draw all charts."""
    results: Json = json.loads((_FOLDER / "results.json").read_text())
    _CHARTS.mkdir(exist_ok=True)
    starts = results["cold"]["starts"]
    columns = {"init_cpu_ms": "INIT", "first_cpu_ms": "first call"}
    _draw(
        "cold-starts",
        "Processor time of a cold start, ms",
        {
            title: {name: start[column]["median"] for name, start in starts.items()}
            for column, title in columns.items()
        },
    )
    dollars = results["dollars"]
    _draw(
        "dollars",
        "Dollars per million operations",
        _columns(dollars, {kind: kind for kind in next(iter(dollars.values()))}),
    )
    _draw(
        "units",
        "DynamoDB's units of an operation",
        _columns(results["cost"]["operations"], {"write_units": "write", "read_units": "read"}),
    )
    _draw("sizes", "Bytes of a zip", _columns(results["size"]["functions"], {"zipped": "zipped"}))


def _columns(rows: Json, columns: dict[str, str]) -> dict[str, dict[str, float]]:
    """The series of a chart: by their titles, a number of each row."""
    return {
        title: {name: row[column] for name, row in rows.items()}
        for column, title in columns.items()
    }


def _draw(name: str, title: str, series: dict[str, dict[str, float]]) -> None:
    """Draw stacked horizontal bars, one for each name, the first one on top."""
    labels = list(next(iter(series.values())))
    chart = pygal.HorizontalStackedBar(
        title=title,
        style=CleanStyle,
        width=900,
        height=120 + 26 * len(labels),
        js=[],  # pygal would refer to a script on another host
        disable_xml_declaration=True,
        legend_at_bottom=True,
        uuid=name,
        formatter=lambda value: f"{value:,g}",
    )
    chart.no_prefix = True
    chart.x_labels = labels[::-1]
    for kind, values in series.items():
        chart.add(kind, [values[label] for label in labels[::-1]])
    text = chart.render(is_unicode=True)
    (_CHARTS / f"{name}.svg").write_text(text + "\n")


if __name__ == "__main__":
    main()
