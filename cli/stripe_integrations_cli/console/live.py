"""The changes of events, for all open pages: a stream has room for few readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any

from stripe_integrations_cli.session import explained
from stripe_integrations_cli.stack import Stack
from stripe_integrations_cli.tail import changed_events

Row = dict[str, Any]

_MAX_ROWS = 1000
"""How many rows wait for a page that does not read them; later ones are lost to it."""


class LiveEvents:
    """Reads the stream while a page is open, and sends each change to all of them.

    Parameters
    ----------
    stack : Stack
        The stack whose table's stream is read.
    row : callable
        What a page gets of an event.
    """

    def __init__(self, stack: Stack, row: Callable[[Any], Row]) -> None:
        self._stack = stack
        self._row = row
        self._pages: list[Queue[Row]] = []
        self._lock = Lock()
        self._reader: Thread | None = None

    @contextmanager
    def subscribed(self) -> Iterator[Queue[Row]]:
        """Yield a queue that gets the changes from now on; an error, with this key, is the last."""
        page = Queue[Row](_MAX_ROWS)
        with self._lock:
            self._pages.append(page)
            if self._reader is None:
                self._reader = Thread(target=self._read, daemon=True)
                self._reader.start()
        try:
            yield page
        finally:
            with self._lock:
                self._pages.remove(page)

    def _read(self) -> None:
        try:
            with self._stack.in_process():
                for event in changed_events(self._stack, is_wanted=self._is_wanted):
                    row = self._row(event)
                    with self._lock:
                        self._send(row)
        except Exception as error:
            with self._lock:  # a page that is opened now has to start the next reader
                self._send({"error": explained(error) or type(error).__name__})
                self._reader = None

    def _is_wanted(self) -> bool:
        """Whether a page is open; the reader ends with the last one."""
        with self._lock:
            if not self._pages:
                self._reader = None
            return self._reader is not None

    def _send(self, row: Row) -> None:
        for page in self._pages:
            with suppress(Full):
                page.put_nowait(row)
