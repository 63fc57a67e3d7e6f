"""What an invocation of a function did, according to its log and the table."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import dropwhile, takewhile
from typing import Any

from local.cloud import ROOT
from local.function_logs import InvocationLog
from local.stored_events import StoredEvent, StoredEvents

Fields = dict[str, Any]

ENDS = ("responded", "refused", "completed", "failed", "interrupted")
"""The messages of an invocation's own line, the last one that the product logs."""
ATTEMPTS = {"event failed": "failed", "event retry scheduled": "retry"}
"""The messages about failed attempts of events, and what became of the event."""
DETAILS = ("continues", "called Stripe")
"""The messages of lines that only `VERBOSE=1` shows."""
WORST_FIRST = ("failed", "retry", "warn")
DIED = re.compile(
    r"Worker process died|Worker returned no response|Task timed out after [\d.]+ seconds"
)
"""What the local AWS logs in place of the outcome of an invocation."""
TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'^  File "(?:[^"]*/)?(?P<file>[^"/]+)", line (?P<line>\d+), in (?P<name>\S+)')

NOT_SHOWN = {
    # Lambda, and the logger of Powertools
    "level", "message", "timestamp", "service", "location", "cold_start", "xray_trace_id",
    "function_name", "function_memory_size", "function_arn", "function_request_id",
    "correlation_id",
    # shown in a place of their own, or details
    "status", "error", "where", "detail", "stripe_status", "stripe_code", "stripe_request_id",
    "events", "stripe_event_id", "state", "stripe", "stripe_request_ids", "_aws",
}  # fmt: skip
"""The fields of a log line that are not shown as they are."""


@dataclass(frozen=True)
class EventOutcome:
    """What became of an event in an invocation.

    `state` is the one in which it ended, or "retry"; `reason` is why.
    """

    stripe_id: str
    state: str
    reason: str = ""
    stored: StoredEvent = field(default_factory=StoredEvent)


@dataclass(frozen=True)
class Invocation:
    """One invocation of a function, or a request that reached none.

    Parameters
    ----------
    function : str
        Its name, or a dash.
    status : str
        The HTTP status; of other invocations ok, warn, retry, failed or error.
    milliseconds : float
    cause : str
        The request, or what else invoked it.
    outcome : str
        How it ended, besides its events.
    events : tuple of EventOutcome
    notes : tuple of str
        What custom handlers have printed, and warnings.
    log : tuple of str
        All of its log.
    """

    function: str
    status: str
    milliseconds: float
    cause: str
    outcome: str = ""
    events: tuple[EventOutcome, ...] = ()
    notes: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


def http_status(log: InvocationLog) -> str | None:
    """Return the HTTP status that an invocation has logged."""
    status = _end([logged_line(entry) for entry in log.entries]).get("status")
    return None if status is None else str(status)


def described(log: InvocationLog, cause: str, stored: StoredEvents) -> Invocation:
    """Return what an invocation did.

    Parameters
    ----------
    log : InvocationLog
    cause : str
        What invoked it.
    stored : StoredEvents
        Where the types, users and next attempts of its events are read.
    """
    own, raised = _without_traceback(log.entries)
    lines = [logged_line(entry) for entry in own]
    end = _end(lines)
    events = list(_events(lines))
    found = stored.find(event.stripe_id for event in events)
    died = _died(own, end)
    outcome = died or _failure(end, raised) or shown_fields(end)
    if not outcome and not events and "status" not in end:
        outcome = end.get("message", "")
    return Invocation(
        log.function,
        str(end.get("status") or _status(end, died, events, lines)),
        log.milliseconds,
        cause,
        outcome,
        tuple(replace(e, stored=found.get(e.stripe_id, e.stored)) for e in events),
        tuple(_notes(own, end)),
        log.entries,
    )


def logged_line(entry: str) -> Fields:
    """Return the fields of a line of the functions' logger; empty for any other line."""
    if not entry.startswith('{"level"'):
        return {}
    with suppress(ValueError):
        line: Fields = json.loads(entry)
        is_logged = "function_request_id" in line and isinstance(line.get("message"), str)
        return line if is_logged else {}
    return {}  # a custom handler may print anything


def shown_fields(line: Fields) -> str:
    """Return the fields of a line that have no place of their own."""
    metrics = {
        metric["Name"]
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", ())
        for metric in directive["Metrics"]
    }
    return " ".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in line.items()
        if name not in NOT_SHOWN | metrics
    )


def failure(line: Fields) -> str:
    """Return the error in a line: its type, where it was raised, and what is known of it."""
    text = str(line.get("error", ""))
    frames = line.get("where")
    if isinstance(frames, list) and frames:
        text += f" at {place_of(frames)}"
    if "stripe_status" in line:
        known = (line.get(name) for name in ("stripe_status", "stripe_code", "stripe_request_id"))
        text += f" (Stripe: {' '.join(str(each) for each in known if each) or 'no response'})"
    return f"{text}: {line['detail']}" if "detail" in line else text


def place_of(frames: Sequence[str]) -> str:
    """Return where an error was raised, or where our code or a handler's has called a library.

    Parameters
    ----------
    frames : sequence of str
        Locations such as "billing.py:12 paid", the outermost first; at least one.
    """
    own = own_files(os.environ.get("EVENT_HANDLERS", ""))

    def is_own(frame: str) -> bool:
        return frame.partition(":")[0] in own

    # Libraries have files of the same names, so that only the frames before theirs count.
    before = list(takewhile(is_own, dropwhile(lambda frame: not is_own(frame), frames)))
    return before[-1] if before else frames[-1]


@cache
def own_files(handlers: str) -> frozenset[str]:
    """Return the file names of the package, the functions and a folder of custom handlers."""
    folders = [ROOT / "shared", ROOT / "functions", *([ROOT / handlers] if handlers else [])]
    names = {path.name for folder in folders for path in folder.rglob("*.py")}
    return frozenset(names - {"__init__.py"})


def _end(lines: Iterable[Fields]) -> Fields:
    """Return the line with the outcome of the invocation; empty if it was not printed."""
    *_, last = [{}, *filter(None, lines)]
    is_end = last.get("message") in ENDS
    # The failures that an invocation survives are warnings.
    is_note = (last.get("level"), last.get("message")) == ("WARNING", "failed")
    return last if is_end and not is_note else {}


def _without_traceback(entries: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Split off the traceback of the error that ended the invocation, which the runtime prints."""
    ends = [n for n, entry in enumerate(entries) if _end([logged_line(entry)])]
    if not ends or TRACEBACK not in entries[ends[-1] :]:
        return entries, ()
    begin = entries.index(TRACEBACK, ends[-1])
    return entries[:begin], entries[begin:]


def _died(entries: Sequence[str], end: Fields) -> str:
    """Return why the process could not log an outcome; empty if it has ended by itself."""
    if not end and TRACEBACK in entries:
        return entries[-1]  # it could not be started
    return next((entry for entry in entries if DIED.fullmatch(entry)), "")


def _status(end: Fields, died: str, events: Iterable[EventOutcome], lines: list[Fields]) -> str:
    if died or end.get("level") == "ERROR":
        return "error"
    states = {event.state for event in events}
    if any(line.get("level") in ("WARNING", "ERROR") for line in lines):
        states.add("warn")
    return next((state for state in WORST_FIRST if state in states), "ok")


def _failure(end: Fields, raised: Sequence[str]) -> str:
    """Return the error with which an invocation ended; the traceback has what the line lacks."""
    if "error" not in end:
        return str(end["message"]) if end.get("level") == "ERROR" else ""
    frames = [
        f"{f['file']}:{f['line']} {f['name']}" for f in filter(None, map(FRAME.match, raised))
    ]
    _, _, detail = raised[-1].partition(": ") if raised else ("", "", "")
    known = {name: value for name, value in (("where", frames), ("detail", detail)) if value}
    return failure({**known, **end})


def _events(lines: Iterable[Fields]) -> Iterator[EventOutcome]:
    for line in lines:
        message = line.get("message")
        if message in ATTEMPTS:
            reason = line.get("event_reason") or failure(line)
            yield EventOutcome(line["stripe_event_id"], ATTEMPTS[message], reason)
        elif message in (*ENDS, "continues"):
            received = [line] if "stripe_event_id" in line else []
            for event in (*line.get("events", ()), *received):
                yield EventOutcome(
                    event["stripe_event_id"], event["state"], event.get("event_reason", "")
                )


def _notes(entries: Iterable[str], end: Fields) -> Iterator[str]:
    """Yield what is neither in the outcome nor a detail."""
    folded = (*ATTEMPTS, *DETAILS)
    for entry in entries:
        line = logged_line(entry)
        if not line:
            if not DIED.fullmatch(entry) and not entry.startswith('{"_aws"'):
                yield entry
        elif line != end and line["message"] not in folded:
            shown = (str(line["level"]), line["message"], failure(line), shown_fields(line))
            yield " ".join(filter(None, shown))
