"""``make bench-check``: compare what can be counted with the committed results; nothing is timed.

Calls, units, and log lines are equal; modules, bytes of logs and of items, and sizes are within
the bounds below, since versions of Python differ a little. After an intended change, measure again
with ``python -m benchmarks --parts cost size imports``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks import bundles, parts
from tools.template import ROOT

Json = dict[str, Any]

EXACT = ("database_calls", "stripe_calls", "write_units", "read_units", "log_lines")
NEAR = ("log_bytes", "stored_bytes")
BOUND = 0.03
"""The fraction by which a number may differ from the committed one."""
MODULES = 3
"""The number of modules by which it may differ in any case."""


def main() -> int:
    """Print what differs; returns the exit code."""
    committed: Json = json.loads(parts.RESULTS.read_text())
    bundles.build(ROOT, bundles.BUNDLES)
    found = [
        *cost_differences(committed["cost"]["operations"], parts.run("cost")),
        *import_differences(committed["imports"]["functions"], parts.run("cold", "--imports")),
        *size_differences(committed["size"]["functions"], parts.run("size")["functions"]),
    ]
    for difference in found:
        print(difference)
    if found:
        print("If this is intended: python -m benchmarks --parts cost size imports, and commit.")
    return 1 if found else 0


def cost_differences(committed: Json, measured: Json) -> Iterator[str]:
    """Yield the differences in what operations use."""
    yield from _missing("operation", committed, measured)
    for operation in committed.keys() & measured.keys():
        before, now = committed[operation], measured[operation]
        for name in EXACT:
            if before[name] != now[name]:
                yield _sentence(operation, name, before[name], now[name])
        for name in NEAR:
            if not _is_near(before[name], now[name]):
                yield _sentence(operation, name, before[name], now[name])


def import_differences(committed: Json, measured: Json) -> Iterator[str]:
    """Yield the differences in what functions import, and in the lines that they print."""
    yield from _missing("function", committed, measured)
    for function in committed.keys() & measured.keys():
        before, now = committed[function], measured[function]
        for name in ("init", "first"):
            if not _is_near(before[name], now[name], MODULES):
                yield _sentence(function, f"modules ({name})", before[name], now[name])
        if before["log_lines"] != now["log_lines"]:
            yield _sentence(function, "log lines", before["log_lines"], now["log_lines"])


def size_differences(committed: Json, measured: Json) -> Iterator[str]:
    """Yield the differences in the sizes of zips."""
    yield from _missing("function", committed, measured)
    for function in committed.keys() & measured.keys():
        before, now = committed[function]["zipped"], measured[function]["zipped"]
        if not _is_near(before, now):
            yield _sentence(function, "zipped bytes", before, now)


def _missing(kind: str, committed: Json, measured: Json) -> Iterator[str]:
    for name in sorted(committed.keys() ^ measured.keys()):
        where = "committed" if name in committed else "measured"
        yield f"{name}: this {kind} is {where} only"


def _is_near(before: float, now: float, least: float = 0.0) -> bool:
    return abs(now - before) <= max(BOUND * abs(before), least)


def _sentence(subject: str, name: str, before: object, now: object) -> str:
    return f"{subject}: {name.replace('_', ' ')} {now}, committed {before}"


if __name__ == "__main__":
    sys.exit(main())
