"""The lines of the live log, on a terminal and in a pipe."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.text import Text

from local.invocations import EventOutcome, Invocation
from local.live_line import live_console, live_lines
from local.stored_events import StoredEvent

TIME = "10:31:07"
APPLIED = EventOutcome("evt_1", "applied", stored=StoredEvent("customer.updated", "u-1"))
IGNORED = EventOutcome(
    "evt_2", "ignored", "the customer is unknown", StoredEvent("invoice.paid", "cus_1")
)
RETRIED = EventOutcome(
    "evt_3", "retry", "KeyError at billing.py:12 total", StoredEvent("invoice.voided", "u-1", 58)
)


def lines(*events: EventOutcome, **fields: Any) -> list[str]:
    """The text of an invocation's lines."""
    seen = Invocation("apply_event", "ok", 12.3, "stream", events=events)
    changed = Invocation(**{**vars(seen), **fields})
    return [line.plain for line in live_lines(changed, TIME)]


@pytest.fixture(autouse=True)
def not_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERBOSE", raising=False)


class TestLines:
    def test_one_event_is_in_the_line(self) -> None:
        start = "10:31:07  apply_event           ok         12 ms  stream  "
        assert lines(APPLIED) == [f"{start}customer.updated evt_1 u-1 applied"]
        assert lines(IGNORED) == [
            f"{start}invoice.paid evt_2 cus_1 ignored: the customer is unknown"
        ]

    def test_retry_has_its_time_and_error(self) -> None:
        (line,) = lines(RETRIED, status="retry")
        assert line == (
            "10:31:07  apply_event           retry      12 ms  stream  invoice.voided evt_3 u-1 "
            "retry in 58 s: KeyError at billing.py:12 total"
        )

    def test_event_that_is_not_stored_has_its_id(self) -> None:
        assert lines(EventOutcome("evt_9", "retry", "KeyError"))[0].endswith(
            "stream  evt_9 retry: KeyError"
        )

    def test_several_events_are_below_the_line(self) -> None:
        first, *others = lines(APPLIED, RETRIED, APPLIED, status="retry")
        assert first.endswith("stream  3 events: 2 applied, 1 retry")
        assert [line.strip().split()[1] for line in others] == ["evt_1", "evt_3", "evt_1"]
        assert all(line.startswith(" " * 10) for line in others)

    def test_outcome_is_in_the_line(self) -> None:
        (line,) = lines(
            function="get_customer", status="404", cause="GET /customers/u-1", outcome="Not Found"
        )
        assert line == (
            "10:31:07  get_customer          404        12 ms  GET /customers/u-1  Not Found"
        )

    @pytest.mark.parametrize("verbose", ["", "0", "1"])
    def test_output_of_handler_is_below_and_verbose_has_the_whole_log(
        self, monkeypatch: pytest.MonkeyPatch, verbose: str
    ) -> None:
        monkeypatch.setenv("VERBOSE", verbose)
        logged = {"notes": ("invoice of u-1",), "log": ("invoice of u-1", '{"level":"INFO"}')}
        shown = logged["log" if verbose == "1" else "notes"]
        assert lines(APPLIED, **logged)[1:] == [f"          | {entry}" for entry in shown]

    def test_nothing_acts_on_the_terminal(self) -> None:
        shown = lines(APPLIED, cause="GET /\x1b[2J", notes=("\x1b]0;title\x07\tx",))
        assert "\x1b" not in "".join(shown)
        assert shown[1].endswith("x")


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


class TestColours:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)

    def printed(self, file: io.StringIO, line: Text | None = None) -> str:
        seen = Invocation("apply_event", "retry", 1, "stream", events=(RETRIED,))
        live_console(file).print(line or live_lines(seen, TIME)[0])
        return file.getvalue()

    def test_are_on_a_terminal(self) -> None:
        shown = self.printed(Terminal())
        assert "\x1b[33mretry" in shown
        assert Text.from_ansi(shown).plain.strip().endswith("billing.py:12 total")

    def test_are_not_in_a_pipe(self) -> None:
        assert "\x1b" not in self.printed(io.StringIO())

    def test_are_not_where_no_color_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in self.printed(Terminal())

    @pytest.mark.parametrize("file", [Terminal(), io.StringIO()])
    def test_long_line_is_neither_cut_nor_wrapped(self, file: io.StringIO) -> None:
        assert self.printed(file, Text("x" * 500 + " [b]y[/b]")) == "x" * 500 + " [b]y[/b]\n"
