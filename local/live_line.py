"""The lines of an invocation in the live log of ``make serve``."""

import os
import sys
from collections import Counter
from typing import TextIO

from rich.console import Console
from rich.text import Text

from local.invocations import EventOutcome, Invocation

STYLES = {
    "ok": "green",
    "applied": "green",
    "ignored": "dim",
    "pending": "cyan",
    "waiting": "cyan",
    "warn": "yellow",
    "retry": "yellow",
    "failed": "bold red",
    "error": "bold red",
    "2": "green",
    "4": "yellow",
    "5": "bold red",
}
"""How states are shown on a terminal, and HTTP statuses by their first digit."""

INDENT = " " * 10
"""Below the function of the first line."""


def live_console(file: TextIO | None = None) -> Console:
    """Return the console of the live log: in colours on a terminal, unless NO_COLOR is set."""
    return Console(
        file=file or sys.stdout,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        soft_wrap=True,
    )


def is_verbose() -> bool:
    """Return whether VERBOSE asks for the whole log of each invocation."""
    return os.environ.get("VERBOSE", "0") not in ("", "0")


def live_lines(seen: Invocation, time: str) -> list[Text]:
    """Return the lines of an invocation.

    Parameters
    ----------
    seen : Invocation
    time : str
        When it ended.

    Returns
    -------
    list of Text
        Its line, and those of its events if there are several; then what is not in them, or with
        VERBOSE its whole log.
    """
    single = seen.events[0] if len(seen.events) == 1 else None
    parts = [Text(seen.cause)]
    if seen.outcome:
        parts.append(Text(seen.outcome, style=_style(seen.status)))
    if single:
        parts.append(_event(single))
    elif seen.events:
        parts.append(_summary(seen.events))
    first = Text.assemble(
        (f"{time}  ", "dim"),
        (f"{seen.function:<21} ", "bold"),
        (f"{seen.status:<6}", _style(seen.status)),
        (f" {seen.milliseconds:>6.0f} ms  ", "dim"),
        Text("  ").join(parts),
    )
    events = [] if single else [Text.assemble(INDENT, _event(event)) for event in seen.events]
    printed = [
        Text.assemble((f"{INDENT}| {entry}", "dim"))
        for entry in (seen.log if is_verbose() else seen.notes)
    ]
    return [_printable(line) for line in (first, *events, *printed)]


def _event(event: EventOutcome) -> Text:
    """Return type, id and user of an event, and what became of it."""
    outcome = event.state
    if event.state == "retry" and event.stored.retry_seconds is not None:
        outcome = f"retry in {event.stored.retry_seconds} s"
    named = (event.stored.kind, event.stripe_id, event.stored.owner)
    return Text.assemble(
        " ".join(filter(None, named)),
        " ",
        (outcome, _style(event.state)),
        f": {event.reason}" if event.reason else "",
    )


def _summary(events: tuple[EventOutcome, ...]) -> Text:
    counts = Counter(event.state for event in events)
    numbers = [Text(f"{count} {state}", _style(state)) for state, count in counts.items()]
    return Text.assemble(f"{len(events)} events: ", Text(", ").join(numbers))


def _style(state: str) -> str:
    return STYLES.get(state) or STYLES.get(state[:1], "")


def _printable(line: Text) -> Text:
    """Replace characters that act on a terminal, which a path or a custom handler may have."""
    shown = "".join(c if c.isprintable() else " " for c in line.plain)
    return Text(shown, style=line.style, spans=line.spans, end=line.end)
