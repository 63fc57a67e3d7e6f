"""``make bench``: measure, and write benchmarks/results.json and the tables of docs/benchmarks.md.

::

    python -m benchmarks --parts cost size --base HEAD~20
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks import bundles, parts, report, rig
from benchmarks.dollars import per_million
from local.cloud import printed_step
from tools.template import ROOT

Json = dict[str, Any]

_CUSTOMERS = ("100", "10000", "100000")
_EVENTS = ("1", "100", "10000")
_BURST = "10000"


def main() -> int:
    """Run the parts, write the results, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--base", help="a commit whose functions are measured beside these")
    options = parser.parse_args()
    results: Json = json.loads(parts.RESULTS.read_text()) if parts.RESULTS.exists() else {}
    if {"size", "imports", "profile", "cold", "warm"}.intersection(options.parts):
        with printed_step("building the functions"):
            bundles.build(ROOT, bundles.BUNDLES)
    if {"profile", "cold", "warm"}.intersection(options.parts):
        with printed_step("building the comparisons"):
            rig.build_comparisons()
            if options.base:
                rig.build_base(options.base)
    for part in options.parts:
        with printed_step(f"measuring {part}"):
            results |= _PARTS[part](options.base)
        results[part]["machine"] = _machine()
    if results.keys() >= {"cost", "warm"}:
        results["dollars"] = _dollars(results)
    parts.RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    tables = report.tables(results)
    report.write(tables)
    print(tables)
    return 0


def _measure_cost(_: str | None) -> Json:
    return {"cost": {"operations": parts.run("cost")}}


def _measure_size(_: str | None) -> Json:
    return {"size": parts.run("size", "--twice")}


def _measure_imports(_: str | None) -> Json:
    return {"imports": {"functions": parts.run("cold", "--imports")}}


def _measure_profile(_: str | None) -> Json:
    return {"profile": {"starts": parts.run("cold", "--profile")}}


def _measure_cold(_: str | None) -> Json:
    return {"cold": {"starts": parts.run("cold")}}


def _measure_warm(base: str | None) -> Json:
    return {"warm": {"functions": parts.run("warm", *(["--base"] if base else []))}}


def _measure_growth(_: str | None) -> Json:
    return {
        "growth": {
            "customers": {n: parts.run("growth", "--customers", n) for n in _CUSTOMERS},
            "events": {n: parts.run("growth", "--events", n) for n in _EVENTS},
            "burst": parts.run("growth", "--burst", _BURST),
        }
    }


def _measure_stream(_: str | None) -> Json:
    return {"stream": {"bursts": parts.run("stream")}}


_PARTS: dict[str, Callable[[str | None], Json]] = {
    "cost": _measure_cost,
    "size": _measure_size,
    "imports": _measure_imports,
    "profile": _measure_profile,
    "cold": _measure_cold,
    "warm": _measure_warm,
    "growth": _measure_growth,
    "stream": _measure_stream,
}


def _machine() -> Json:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def _dollars(results: Json) -> Json:
    warm = results["warm"]["functions"]
    cpu_ms = {name: each["cpu_ms"]["median"] for name, each in warm.items()}
    return {
        name: {kind: round(dollars, 3) for kind, dollars in per_million(usage, cpu_ms).items()}
        for name, usage in results["cost"]["operations"].items()
    }


if __name__ == "__main__":
    sys.exit(main())
