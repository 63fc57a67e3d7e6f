"""The tables of the results, in Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.cold import BARE, MODELED
from benchmarks.rig import Variant
from tools.template import ROOT

Json = dict[str, Any]

DOCUMENT = ROOT / "docs" / "benchmarks.md"
_PACKAGES = 12
_MARKED = re.compile(r"(?<=<!-- results -->\n).*(?=<!-- end of results -->)", re.DOTALL)


def write(tables_of_results: str) -> None:
    """Replace the tables in docs/benchmarks.md."""
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(_MARKED.sub(lambda _: f"\n{tables_of_results}\n", text))


def tables(results: Json) -> str:
    """Return the tables of the parts that were measured."""
    written: dict[str, Callable[[Json], list[str]]] = {
        "imports": _imports,
        "profile": _profile,
        "cold": _cold,
        "warm": _warm,
        "cost": _cost,
        "dollars": _dollars,
        "growth": _growth,
        "stream": _stream,
        "size": _size,
    }
    return "\n".join(
        line
        for part, write_part in written.items()
        if part in results
        for line in write_part(results[part])
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    lines += [" | ".join(map(str, row)) for row in rows]
    return [*(f"| {line} |" for line in lines), ""]


def _heading(title: str, part: Json) -> list[str]:
    machine = part["machine"]
    where = f"{machine['machine']}, {machine['cores']} cores, Python {machine['python']}"
    return [f"### {title}", "", f"Measured on {machine['date']}: {where}.", ""]


def _spread(given: Json, digits: int = 2) -> str:
    low, high = (f"{given[name]:.{digits}f}" for name in ("low", "high"))
    return f"{given['median']:.{digits}f} ({low} to {high})"


def _imports(part: Json) -> list[str]:
    rows = [
        [name, counted["init"], counted["first"], counted["log_lines"]]
        for name, counted in part["functions"].items()
    ]
    head = ["function", "modules, INIT", "modules, first call", "log lines, warm"]
    return [*_heading("Imports and log lines", part), *_table(head, rows)]


def _profile(part: Json) -> list[str]:
    starts: dict[str, dict[str, float]] = part["starts"]
    most = Counter[str]()
    for used in starts.values():
        most |= Counter(used)
    shown = [package for package, _ in most.most_common(_PACKAGES)]
    rows = [
        [package, *(f"{used.get(package, 0):.0f}" for used in starts.values())] for package in shown
    ]
    others = (
        sum(milliseconds for package, milliseconds in used.items() if package not in shown)
        for used in starts.values()
    )
    rows.append(["all others", *(f"{milliseconds:.0f}" for milliseconds in others)])
    rows.append(["sum", *(f"{sum(used.values()):.0f}" for used in starts.values())])
    head = ["imports of, ms", *starts]
    return [*_heading("Where the time of an INIT goes", part), *_table(head, rows)]


def _cold(part: Json) -> list[str]:
    starts = part["starts"]
    base = starts[BARE.name]
    rows = []
    for name, start in starts.items():
        as_sam_builds = starts.get(Variant(name, "usual, sam build").name)
        latencies = (start["latency_ms"][str(memory)]["median"] for memory in MODELED)
        rows.append(
            [
                name,
                _spread(start["init_cpu_ms"], 0),
                _spread(start["first_cpu_ms"], 0),
                _spread(start["cpu_by_bare"]),
                _spread(start["first_cpu_by_bare"], 1),
                f"{_cpu(start) / _cpu(as_sam_builds):.2f}" if as_sam_builds else "",
                *(f"{latency:.0f}" for latency in latencies),
                f"{start['init_wall_ms']['median']:.0f} + {start['first_wall_ms']['median']:.0f}",
                f"{start['memory_mb']['median']:.0f}",
            ]
        )
    head = ["function", "INIT, CPU ms", "first call, CPU ms", "both ÷ bare", "first call ÷ bare"]
    head.append("both ÷ usual, sam build")
    head += [f"model, {memory:,} MB, ms" for memory in MODELED]
    head += ["wall ms", "memory, MB"]
    return [
        *_heading("Cold starts", part),
        f"The bare handler of a get takes {_cpu(base):.0f} ms of CPU, "
        f"{base['first_cpu_ms']['median']:.0f} of them in the first call.",
        "",
        *_table(head, rows),
    ]


def _cpu(start: Json) -> float:
    """The medians of both phases, added."""
    return float(start["init_cpu_ms"]["median"] + start["first_cpu_ms"]["median"])


def _warm(part: Json) -> list[str]:
    rows = []
    for name, measured in part["functions"].items():
        compared = {other: ratio for other, ratio in measured.items() if other != "cpu_ms"}
        words = (f"{_spread(ratio)} of {other[3:]}" for other, ratio in compared.items())
        rows.append([name, _spread(measured["cpu_ms"]), ", ".join(words)])
    head = ["function", "CPU ms", "compared with"]
    return [*_heading("Warm invocations", part), *_table(head, rows)]


def _cost(part: Json) -> list[str]:
    columns = {
        "invocations": "invocations",
        "database_calls": "DynamoDB calls",
        "write_units": "write units",
        "read_units": "read units",
        "stripe_calls": "Stripe calls",
        "log_lines": "log lines",
        "log_bytes": "log bytes",
        "stored_bytes": "stored bytes",
    }
    rows = [
        [name, *(_number(usage[column]) for column in columns)]
        for name, usage in part["operations"].items()
    ]
    return [
        *_heading("Cost of an operation", part),
        *_table(["operation", *columns.values()], rows),
    ]


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return f"{sum(value.values()):g}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def _dollars(part: Json) -> list[str]:
    kinds = list(next(iter(part.values())))
    rows = [
        [name, *(f"{dollars[kind]:.2f}" for kind in kinds), f"{sum(dollars.values()):.2f}"]
        for name, dollars in part.items()
    ]
    return ["### Dollars per million", "", *_table(["operation", *kinds, "sum"], rows)]


def _growth(part: Json) -> list[str]:
    rows = [
        [f"{int(number):,} {kind}", operation, *(_number(used[name]) for name in _GROWING)]
        for kind in ("customers", "events")
        for number, measured in part[kind].items()
        for operation, used in measured.items()
    ]
    burst = part["burst"]
    head = ["in the table", "operation", "DynamoDB calls", "write units", "read units", "CPU ms"]
    return [
        *_heading("Growth", part),
        *_table(head, rows),
        f"A burst of {burst['events']:,} events is applied after {burst['seconds']:,} s, "
        f"{burst['events_per_second']} events a second, in {burst['invocations']:,} invocations "
        f"with {burst['calls']:,} calls, {burst['stripe_calls']} of them to Stripe.",
        "",
    ]


def _stream(part: Json) -> list[str]:
    head = ["batch size, factor, window", "events a second", "last applied after, s"]
    head += ["invocations", "Stripe calls", "429s", "fetches a customer", "most fetches"]
    head += ["delay, s: p50", "p99"]
    lines = _heading("Throughput of the stream", part)
    for name, rows in part["bursts"].items():
        first = rows[0]
        lines += [
            f"**{name.capitalize()}**: {first['events']} events of {first['customers']} customers.",
            "",
            *_table(head, map(_stream_row, rows)),
        ]
    return lines


def _stream_row(row: Json) -> list[str]:
    window = f", {row['batch_window']:g} s" if row["batch_window"] else ""
    numbers = [_number(row[column]) for column in _OF_A_BURST]
    return [f"{row['batch_size']}, {row['parallelization_factor']}{window}", *numbers]


_OF_A_BURST = (
    "events_per_second",
    "seconds",
    "invocations",
    "stripe_calls",
    "refused",
    "fetches_per_customer",
    "most_fetches",
    "delay_p50",
    "delay_p99",
)
_GROWING = ("database_calls", "write_units", "read_units", "cpu_ms")


def _size(part: Json) -> list[str]:
    rows = [
        [
            name,
            f"{size['zipped'] / 1e6:.2f}",
            f"{size['unzipped'] / 1e6:.1f}",
            ", ".join(f"{part} {size_ / 1e6:.2f}" for part, size_ in size["parts"].items()),
        ]
        for name, size in part["functions"].items()
    ]
    differing = ", ".join(part["differing"]) or "none"
    return [
        *_heading("Size", part),
        *_table(["function", "zipped, MB", "unzipped, MB", "largest parts, zipped MB"], rows),
        f"Functions that differ between two builds: {differing}.",
        "",
    ]
