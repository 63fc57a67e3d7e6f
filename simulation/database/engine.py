"""ministack's DynamoDB in this process, on a clock of the caller's, with a stream and late indexes.

https://github.com/ministackorg/ministack, `services/dynamodb.py`: its handlers are functions from a
request to an answer. It keeps its tables in globals of its module, which are a database's own here.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from heapq import heappop, heappush
from types import SimpleNamespace
from unittest import mock

from botocore import xform_name
from ministack.core.responses import AccountRegionScopedDict

from simulation.database.answers import Answer, Json, error_answer
from simulation.database.stream import Stream

# At import it starts a thread that deletes what has expired, by the wall clock.
with mock.patch.object(threading.Thread, "start"):
    from ministack.services import dynamodb


# What ministack spends most time on: it copies JSON only, and reads the same expressions for ever.
dynamodb.copy = SimpleNamespace(deepcopy=lambda value: json.loads(json.dumps(value)))
dynamodb._tokenize = cache(dynamodb._tokenize)
dynamodb._condition_syntax_error = cache(dynamodb._condition_syntax_error)


class Database:
    """Tables in memory, and the answers that DynamoDB gives about them.

    Everything it does depends on the requests, the clock and the delays alone. Answers share
    nothing with what is stored. One thread at a time.

    Parameters
    ----------
    clock : callable
        Gives the time in Unix seconds.
    index_delay : callable, optional
        Gives the seconds after which the next change shows in the indexes; where it is left out,
        indexes are as consistent as the table.

    Examples
    --------
    >>> database = Database(clock=lambda: 1_800_000_000.0)
    >>> database.request("ListTables", {}).body
    {'TableNames': []}
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        index_delay: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._index_delay = index_delay
        self._tables = AccountRegionScopedDict()
        self._shown_by_indexes = AccountRegionScopedDict()
        self._late_indexes: dict[str, _LateIndexes] = {}
        self._streams: dict[str, Stream] = {}
        self._globals = {
            "time": SimpleNamespace(time=clock),
            "_tables": self._tables,
            "_txn_idempotency": AccountRegionScopedDict(),
            "_emit_stream_event": self._note,
        }

    def request(self, operation: str, body: Json) -> Answer:
        """Answer one request.

        Parameters
        ----------
        operation : str
            The operation's name, such as ``PutItem``.
        body : dict
            The request, as the JSON protocol has it. It belongs to the database from then on.

        Returns
        -------
        Answer
            The answer, an error too.
        """
        handle = getattr(dynamodb, f"_{xform_name(operation)}", None)
        if handle is None:
            return error_answer("UnknownOperationException", f"{operation} is not simulated")
        vars(dynamodb).update(self._globals)
        if "IndexName" in body and body.get("TableName") in self._late_indexes:
            self._late_indexes[body["TableName"]].show(self._clock())
            dynamodb._tables = self._shown_by_indexes
        status, _, text = handle(body)
        if operation == "CreateTable" and status == 200:
            self._add_table(body)
        return Answer(status, json.loads(text))

    def load(self, table_name: str, items: Iterable[Json]) -> None:
        """Put items into an empty table without checking them, as from a backup."""
        table = self._tables[table_name]
        for item in items:
            dynamodb._set_item(table, *_where(_key(table, item)), item)
            self._note(table_name, "INSERT", None, item)

    def stream(self, table_name: str) -> Stream:
        """The change log of a table.

        Raises
        ------
        LookupError
            There is no such table, or it has no stream.
        """
        return self._streams[table_name]

    def _add_table(self, body: Json) -> None:
        name = body["TableName"]
        self._streams.pop(name, None)
        if "StreamSpecification" in body:
            view_type = body["StreamSpecification"]["StreamViewType"]
            self._streams[name] = Stream(name, view_type)
        if self._index_delay is not None:
            shown = {**self._tables[name], "items": defaultdict(dict)}
            self._shown_by_indexes[name] = shown
            self._late_indexes[name] = _LateIndexes(shown, self._index_delay)

    def _note(self, table_name: str, event_name: str, old: Json | None, new: Json | None) -> None:
        """Take note of a change of one item, as ministack reports each of them."""
        if old == new:
            return
        key = _key(self._tables[table_name], new or old or {})
        moment = self._clock()
        if table_name in self._late_indexes:
            self._late_indexes[table_name].note(key, new, moment)
        if table_name in self._streams:
            self._streams[table_name].append(event_name, key, old, new, moment)


def _key(table: Json, item: Json) -> Json:
    return {name: item[name] for name in (table["pk_name"], table["sk_name"])}


def _where(key: Json) -> tuple[str, ...]:
    """A key as ministack's tables are indexed by it."""
    return tuple(dynamodb._extract_key_val(value) for value in key.values())


class _LateIndexes:
    """A table as its indexes show it: each change after a delay, those of an item in order.

    Parameters
    ----------
    table : dict
        The table in ministack's form, to be brought up to date.
    delay : callable
        Gives the seconds after which the next change shows.
    """

    def __init__(self, table: Json, delay: Callable[[], float]) -> None:
        self._table = table
        self._delay = delay
        self._numbers = itertools.count()
        self._pending: list[tuple[float, int, tuple[str, ...], Json | None]] = []
        self._visible_at: dict[tuple[str, ...], float] = {}

    def note(self, key: Json, new: Json | None, moment: float) -> None:
        """Let a change show some time from now on."""
        where = _where(key)
        visible_at = moment + self._delay()
        # An index may be late, but it never shows an item's older version after a newer one.
        visible_at = max(visible_at, self._visible_at.get(where, visible_at))
        self._visible_at[where] = visible_at
        heappush(self._pending, (visible_at, next(self._numbers), where, new))

    def show(self, moment: float) -> None:
        """Show what is to be seen by now."""
        while self._pending and self._pending[0][0] <= moment:
            _, _, where, new = heappop(self._pending)
            if new is None:
                dynamodb._remove_item(self._table, *where)
            else:
                dynamodb._set_item(self._table, *where, new)
