"""What commands print: tables on a terminal, plain lines in a pipe, JSON on request."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import islice
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

_TABLE_ROWS = 500
"""A longer list is several tables, so that its beginning is printed soon."""
_TEXTS = ("user", "reason", "problem", "found", "to_do")
"""The columns whose values are wrapped; anything else is to be copied."""
_TEXT_WIDTH = 24
_PADDING = 3
"""Of two columns: rich puts a space before and after each, and one is shared."""

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
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                # What the terminal's encoding lacks is escaped rather than an error.
                stream.reconfigure(errors="backslashreplace")
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
        left = iter(rows)
        while shown := list(islice(left, _TABLE_ROWS)):
            self._table(columns, shown)

    def limited(self, columns: Sequence[str], rows: Iterable[Row], limit: int) -> None:
        """Print the beginning of a list, and say so if there is more.

        Parameters
        ----------
        columns, rows
            As for `rows`.
        limit : int
            How many are printed.
        """
        left = iter(rows)
        self.rows(columns, islice(left, limit))
        if next(left, None) is not None:
            self.say(f"there are more than these {limit}: --limit shows more")

    def _table(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Print a table, wider than a narrow terminal rather than with an id that is cut."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        width = 2 * len(columns)
        for name in columns:
            is_text = name in _TEXTS
            table.add_column(name, overflow="fold", no_wrap=not is_text)
            longest = max(len(name), *(cell(row.get(name)).cell_len for row in rows))
            width += min(longest, _TEXT_WIDTH) if is_text else longest
        for row in rows:
            table.add_row(*(cell(row.get(name)) for name in columns))
        self._print_wide(table, width)

    def _print_wide(self, table: Table, width: int) -> None:
        """Print a table that is at least as wide, also on a narrower terminal."""
        wide = Console(
            file=self.console.file,
            highlight=False,
            force_terminal=True,
            width=max(width, self.console.width),
        )
        wide.print(table)

    def row(self, columns: Sequence[str], row: Row) -> None:
        """Print one line of a list that never ends, or that a program reads."""
        if self.as_json:
            self.json(row)
        elif self.is_terminal:
            self.console.print(Text("  ").join(cell(row.get(name)) for name in columns))
        else:
            self.line("\t".join(plain(row.get(name)) for name in columns))

    def fields(self, values: Row) -> None:
        """Print one object: its names and values; as JSON with those that are empty."""
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
            words = (word for value in values.values() for word in plain(value).split())
            longest = max((Text(word).cell_len for word in words), default=0)
            # An address or an id is to be copied: it is not cut.
            self._print_wide(table, max(map(len, values), default=0) + longest + _PADDING)
        else:
            for name, value in values.items():
                self.line(f"{name}\t{plain(value)}")

    def json(self, value: object) -> None:
        """Print one JSON value on a line, in ASCII: no character acts on a terminal."""
        self.line(json.dumps(value, default=str))

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
            return str(timestamp(value))
        case list() | dict() | tuple():
            return printable(json.dumps(value, default=str, ensure_ascii=False))
    return printable(str(value))


def printable(text: str) -> str:
    """Return a text without control characters, which a customer's name may have."""
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in text)


def timestamp(moment: datetime | int | float | None) -> str | None:
    """Return a time in UTC, to the second; None for none."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
