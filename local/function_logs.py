"""What the functions of the local cloud have logged, by invocation."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from local.cloud import STACK

PLATFORM = ("START RequestId: ", "END RequestId: ", "REPORT RequestId: ")
"""How the lines begin that Lambda adds to those of the function."""
DURATION = re.compile(r"^REPORT RequestId: \S+\tDuration: (?P<milliseconds>[\d.]+) ms")
OVERLAP_MILLISECONDS = 1000
"""How far before the newest entry the next ones are looked for: they are not quite in order."""


@dataclass(frozen=True)
class InvocationLog:
    """The log of one invocation, which has ended; `ended` is in Unix seconds."""

    function: str
    ended: float
    milliseconds: float
    entries: tuple[str, ...]


class FunctionLogs:
    """Reads the logs of the invocations that end from now on.

    Parameters
    ----------
    client
        A client of CloudWatch Logs. On the local cloud, a log stream has one invocation.
    clock : callable
        Returns the Unix time in seconds.
    """

    def __init__(self, client: Any, clock: Callable[[], float]) -> None:
        self._client = client
        now = int(clock() * 1000)
        self._since: defaultdict[str, int] = defaultdict(lambda: now)
        self._seen: defaultdict[str, set[str]] = defaultdict(set)

    def new(self, function: str) -> list[InvocationLog]:
        """Return the logs of a function's invocations since the last call."""
        since, seen = self._since[function], self._seen[function]
        pages = self._client.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{STACK}/{function.replace('_', '-')}", startTime=since
        )
        streams: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for page in pages:
            for entry in page["events"]:
                streams[entry["logStreamName"]].append(entry)
                since = max(since, entry["timestamp"] - OVERLAP_MILLISECONDS)
        self._since[function], self._seen[function] = since, set(streams)
        return [
            invocation_log(function, entries)
            for stream, entries in streams.items()
            if stream not in seen
        ]


def invocation_log(function: str, entries: Sequence[dict[str, Any]]) -> InvocationLog:
    """Return the log of an invocation, made of the entries of its stream."""
    messages = [entry["message"].rstrip("\n") for entry in entries]
    reports = filter(None, map(DURATION.match, messages))
    return InvocationLog(
        function,
        ended=entries[-1]["timestamp"] / 1000,
        milliseconds=next((float(report["milliseconds"]) for report in reports), 0),
        entries=tuple(text for text in messages if not text.startswith(PLATFORM)),
    )
