"""The list price of a million operations, from what one of them uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bundles import functions
from benchmarks.cold import vcpus

Json = dict[str, Any]

PRICES: Json = json.loads((Path(__file__).parent / "prices.json").read_text())

_MILLION = 1_000_000
_GIGABYTE = 2**30
_BEHIND_API = ("create_customer", "get_customer", "update_customer")


def per_million(usage: Mapping[str, Any], cpu_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the price of a million operations in dollars, by what is billed.

    Parameters
    ----------
    usage : mapping
        What one operation uses, as `benchmarks.usage.Usage.as_json` has it.
    cpu_ms : mapping
        Processor time of a warm invocation by function, in milliseconds on one vCPU. A function
        that it lacks is not billed for its duration.
    """
    price, assumed = PRICES["dollars"], PRICES["assumed"]
    invocations: Mapping[str, float] = usage["invocations"]
    calls = sum(invocations.values())
    through_api = sum(invocations.get(name, 0.0) for name in _BEHIND_API)
    log_bytes = usage["log_bytes"] + calls * assumed["lambda_log_bytes"]
    month = price["gigabyte_month_of_table"] + price["gigabyte_month_of_backups"]
    gigabytes_stored = usage["stored_bytes"] * _MILLION / _GIGABYTE
    return {
        "database": usage["write_units"] * price["million_write_units"]
        + usage["read_units"] * price["million_read_units"],
        "requests": calls * price["million_invocations"]
        + through_api * price["million_http_api_requests"],
        "duration": _gigabyte_seconds(usage, cpu_ms) * price["gigabyte_second"] * _MILLION,
        "logs": log_bytes * _MILLION / _GIGABYTE * price["gigabyte_of_logs"],
        "storage": gigabytes_stored * assumed["months_stored"] * month,
    }


def _gigabyte_seconds(usage: Mapping[str, Any], cpu_ms: Mapping[str, float]) -> float:
    """The billed duration: processor time at the function's memory, and waits, in GB-seconds.

    The waits are billed at the memory of the largest function.
    """
    assumed = PRICES["assumed"]
    memory = {function.name: function.memory for function in functions()}
    invocations = {name: n for name, n in usage["invocations"].items() if name in cpu_ms}
    if not invocations:
        return 0.0
    busy = sum(
        count * cpu_ms[name] / vcpus(memory[name]) * memory[name]
        for name, count in invocations.items()
    )
    waits = (
        usage["database_calls"] * assumed["database_call_ms"]
        + usage["stripe_calls"] * assumed["stripe_call_ms"]
    )
    largest = max(memory[name] for name in invocations)
    return float((busy + waits * largest) / 1024 / 1000)
