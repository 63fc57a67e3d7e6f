"""ministack's DynamoDB in process, with the caller's clock, a stream, and indexes with a lag.

The handlers in ministack's `services/dynamodb.py` (https://github.com/ministackorg/ministack) are
functions from a request to a response that share module globals. Here each database has its own.
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

from simulation.database.responses import Json, Response, error_response
from simulation.database.stream import Stream

# The import starts a thread that deletes expired items by the wall clock.
with mock.patch.object(threading.Thread, "start"):
    from ministack.services import dynamodb

# ministack spends most of its time on copies of JSON and on parsing expressions, and there are few
# distinct expressions.
dynamodb.copy = SimpleNamespace(deepcopy=lambda value: json.loads(json.dumps(value)))
dynamodb._tokenize = cache(dynamodb._tokenize)
dynamodb._condition_syntax_error = cache(dynamodb._condition_syntax_error)


class Database:
    """Tables in memory behind DynamoDB's JSON protocol; each has a hash key and a range key.

    Responses depend on the requests, the clock and the delays alone, and share no object with the
    stored items. Not thread-safe.

    Parameters
    ----------
    clock : callable
        Returns the time in Unix seconds.
    index_delay : callable, optional
        Returns the seconds until the next change is visible in the indexes; by default, changes
        are visible at once.

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
        self._index_tables = AccountRegionScopedDict()
        self._lagging_indexes: dict[str, _LaggingIndexes] = {}
        self._streams: dict[str, Stream] = {}
        self._globals = {
            "time": SimpleNamespace(time=clock),
            "_tables": self._tables,
            "_txn_idempotency": AccountRegionScopedDict(),
            "_emit_stream_event": self._record_change,
        }

    def request(self, operation: str, body: Json) -> Response:
        """Handle one request.

        Parameters
        ----------
        operation : str
            The operation's name, such as ``PutItem``.
        body : dict
            The request in DynamoDB's JSON. The caller must not change it afterwards.

        Returns
        -------
        Response
            The response or the error.
        """
        handle = getattr(dynamodb, f"_{xform_name(operation)}", None)
        if handle is None:
            return error_response("UnknownOperationException", f"unknown operation: {operation}")
        vars(dynamodb).update(self._globals)
        if "IndexName" in body and body.get("TableName") in self._lagging_indexes:
            self._lagging_indexes[body["TableName"]].apply_until(self._clock())
            dynamodb._tables = self._index_tables
        status, _, text = handle(body)
        if operation == "CreateTable" and status == 200:
            self._add_table(body)
        return Response(status, json.loads(text))

    def load(self, table_name: str, items: Iterable[Json]) -> None:
        """Store items in an empty table without validation, like a restore."""
        table = self._tables[table_name]
        for item in items:
            dynamodb._set_item(table, *_where(_key(table, item)), item)
            self._record_change(table_name, "INSERT", None, item)

    def items(self, table_name: str) -> list[Json]:
        """Return all items of a table, which the caller must not change."""
        partitions = self._tables[table_name]["items"].values()
        return [item for items in partitions for item in items.values()]

    def stored_bytes(self, table_name: str) -> int:
        """Return the size of all items of a table, without its indexes, as DynamoDB counts it."""
        return sum(map(dynamodb._item_size_bytes, self.items(table_name)))

    def start_stream(self, table_name: str, view_type: str) -> Stream:
        """Let a table have a stream of its changes from now on."""
        return self._streams.setdefault(table_name, Stream(table_name, view_type))

    def stream(self, table_name: str) -> Stream:
        """Return the change log of a table.

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
            self.start_stream(name, body["StreamSpecification"]["StreamViewType"])
        if self._index_delay is not None:
            table = {**self._tables[name], "items": defaultdict(dict)}
            self._index_tables[name] = table
            self._lagging_indexes[name] = _LaggingIndexes(table, self._index_delay)

    def _record_change(
        self, table_name: str, event_name: str, old: Json | None, new: Json | None
    ) -> None:
        """Record the change of one item; ministack calls this after each change."""
        if old == new:
            return
        key = _key(self._tables[table_name], new or old or {})
        moment = self._clock()
        if table_name in self._lagging_indexes:
            self._lagging_indexes[table_name].record(key, new, moment)
        if table_name in self._streams:
            self._streams[table_name].append(event_name, key, old, new, moment)


def _key(table: Json, item: Json) -> Json:
    return {name: item[name] for name in (table["pk_name"], table["sk_name"])}


def _where(key: Json) -> tuple[str, ...]:
    """The keys of ministack's dictionaries under which an item is stored."""
    return tuple(dynamodb._extract_key_val(value) for value in key.values())


class _LaggingIndexes:
    """The table that index queries read: changes are visible after a delay, per item in order.

    Parameters
    ----------
    table : dict
        An empty copy of the table, in ministack's form.
    delay : callable
        Returns the seconds until the next change is visible.
    """

    def __init__(self, table: Json, delay: Callable[[], float]) -> None:
        self._table = table
        self._delay = delay
        self._numbers = itertools.count()
        self._pending: list[tuple[float, int, tuple[str, ...], Json | None]] = []
        self._visible_at: dict[tuple[str, ...], float] = {}

    def record(self, key: Json, new: Json | None, moment: float) -> None:
        """Make a change of one item visible after a delay."""
        where = _where(key)
        visible_at = moment + self._delay()
        # An index lags, but it never returns an item's older version after a newer one.
        visible_at = max(visible_at, self._visible_at.get(where, visible_at))
        self._visible_at[where] = visible_at
        heappush(self._pending, (visible_at, next(self._numbers), where, new))

    def apply_until(self, moment: float) -> None:
        """Apply the changes that are visible at a moment."""
        while self._pending and self._pending[0][0] <= moment:
            _, _, where, new = heappop(self._pending)
            if new is None:
                dynamodb._remove_item(self._table, *where)
            else:
                dynamodb._set_item(self._table, *where, new)
