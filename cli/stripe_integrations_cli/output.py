"""What commands print: tables on a terminal, plain lines in a pipe, JSON on request."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "active": "green",
    "applied": "green",
    "failed": "bold red",
    "finished": "green",
    "ignored": "dim",
    "ok": "green",
    "pending": "yellow",
    "problem": "bold red",
    "running": "yellow",
    "stopped": "yellow",
    "waiting": "yellow",
}
"""How states are shown on a terminal."""

Row = Mapping[str, Any]

_EMPTY: tuple[Any, ...] = (None, "", [], {})


class Output:
    """The output of one command.

    Parameters
    ----------
    as_json : bool
        Whether results are printed as JSON, one object a line.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(file=sys.stdout, highlight=False)
        self.messages = Console(file=sys.stderr, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the results, rather than a program."""
        return self.console.is_terminal and not self.as_json

    def rows(self, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Print a list: a table, lines with a tab between the columns, or objects.

        Parameters
        ----------
        columns : sequence of str
            The names that tables and lines have; objects have everything.
        rows : iterable of mapping
            The values by name.
        """
        if not self.is_terminal:
            for row in rows:
                self.row(columns, row)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            # An id that is cut, or wrapped, can't be copied.
            table.add_column(name, overflow="fold", no_wrap=name in ("event", "customer"))
        for row in rows:
            table.add_row(*(cell(row.get(name)) for name in columns))
        self.console.print(table)

    def row(self, columns: Sequence[str], row: Row) -> None:
        """Print one line of a list that never ends, or is read by a program."""
        if self.as_json:
            self.json(row)
        elif self.is_terminal:
            self.console.print(Text("  ").join(cell(row.get(name)) for name in columns))
        else:
            self.line("\t".join(plain(row.get(name)) for name in columns))

    def fields(self, values: Row) -> None:
        """Print one thing: its names and values; as JSON with those that are empty."""
        if self.as_json:
            self.json(values)
            return
        values = {name: value for name, value in values.items() if value not in _EMPTY}
        if self.is_terminal:
            table = Table(box=None, pad_edge=False, show_header=False)
            table.add_column(style="bold", no_wrap=True)
            table.add_column(overflow="fold")
            for name, value in values.items():
                table.add_row(name, cell(value))
            self.console.print(table)
        else:
            for name, value in values.items():
                self.line(f"{name}\t{plain(value)}")

    def json(self, value: object) -> None:
        """Print one JSON value on a line."""
        self.line(json.dumps(value, default=str, ensure_ascii=False))

    def say(self, message: str) -> None:
        """Print a message for the operator, apart from the results."""
        self.messages.print(Text(printable(message)), soft_wrap=True)

    def fail(self, message: str) -> None:
        """Print why a command failed."""
        self.messages.print(
            Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True
        )

    def line(self, line: str) -> None:
        """Print one line as it is."""
        self.console.file.write(f"{line}\n")
        self.console.file.flush()


def cell(value: object) -> Text:
    """Return a value as a table shows it."""
    shown = plain(value)
    return Text(shown, style=STYLES.get(shown, ""))


def plain(value: object) -> str:
    """Return a value as text on one line, without characters that act on a terminal."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return timestamp(value)
        case list() | dict() | tuple():
            return printable(json.dumps(value, default=str, ensure_ascii=False))
    return printable(str(value))


def printable(text: str) -> str:
    """Return a text in which control characters, which a customer's name may have, do nothing."""
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in text)


def timestamp(moment: datetime | int | float | None) -> str:
    """Return a time in UTC, to the second."""
    if moment is None:
        return ""
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
