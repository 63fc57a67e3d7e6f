"""ministack's DynamoDB in process, with the caller's clock, a stream, and indexes with a lag.

The handlers in ministack's `services/dynamodb.py` (https://github.com/ministackorg/ministack) are
functions from a request to a response that share module globals. Here each database has its own.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import cache, lru_cache, partial
from heapq import heappop, heappush
from types import SimpleNamespace
from typing import Any
from unittest import mock

from botocore import xform_name
from ministack.core.responses import AccountRegionScopedDict

from simulation.database import key_condition
from simulation.database.indexes import Indexes, Key
from simulation.database.packed import PackedItems, PackedValue, copy_packed
from simulation.database.responses import Json, Response, error_response
from simulation.database.stream import SHARDS, Stream

# The import starts a thread that deletes expired items by the wall clock.
with mock.patch.object(threading.Thread, "start"):
    from ministack.services import dynamodb

# ministack spends most of its time on copies of JSON and on parsing expressions and numbers, and
# there are few distinct ones.
dynamodb.copy = SimpleNamespace(deepcopy=copy_packed)
dynamodb._tokenize = cache(dynamodb._tokenize)
dynamodb._condition_syntax_error = cache(dynamodb._condition_syntax_error)
dynamodb._ddb_canonicalize_number = lru_cache(10_000)(dynamodb._ddb_canonicalize_number)
dynamodb._number_size_bytes = lru_cache(10_000)(dynamodb._number_size_bytes)


class Database:
    """Tables in memory behind DynamoDB's JSON protocol.

    Each has a hash key and a range key, both of them strings.
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
        self._indexes: dict[str, Indexes] = {}
        self._lagging_indexes: dict[str, _LaggingIndexes] = {}
        self._streams: dict[str, Stream] = {}
        self._globals = {
            "time": SimpleNamespace(time=clock),
            "_tables": self._tables,
            "_txn_idempotency": _Tokens(),
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
        if operation == "Query" and self._is_well_formed(body):
            dynamodb._tables = self._tables_for(body)
        status, _, text = handle(body)
        if operation == "CreateTable" and status == 200:
            self._add_table(body)
        return Response(status, json.loads(text))

    def load(self, table_name: str, items: Iterable[Json]) -> None:
        """Store items in an empty table without validation, like a restore."""
        table = self._tables[table_name]
        for item in items:
            dynamodb._set_item(table, *_key(item, table), item)
            self._record_change(table_name, "INSERT", None, item)

    def items(self, table_name: str) -> Iterator[Json]:
        """Return a copy of each item of a table."""
        for partition in self._tables[table_name]["items"].values():
            yield from partition.values()

    def stored_bytes(self, table_name: str) -> int:
        """Return the size of all items of a table, without its indexes, as DynamoDB counts it."""
        return sum(map(dynamodb._item_size_bytes, self.items(table_name)))

    def start_stream(self, table_name: str, view_type: str, shards: int = SHARDS) -> Stream:
        """Start a stream of a table's changes, with this number of shards."""
        return self._streams.setdefault(table_name, Stream(table_name, view_type, shards))

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
        table = self._tables[name]
        table["items"] = PackedItems()
        index_names = {name: keys for name, keys in _key_names(table).items() if name}
        key_of, sort_value = partial(_key, table=table), partial(_sort_value, table)
        self._indexes[name] = indexes = Indexes(index_names, key_of, sort_value)
        if self._index_delay is not None:
            self._lagging_indexes[name] = _LaggingIndexes(indexes, self._index_delay)

    def _is_well_formed(self, query: Json) -> bool:
        """Return whether there is what a query reads, and whether its pages are well-formed."""
        table = self._tables.get(query.get("TableName"))
        if not table or query.get("Limit", 1) < 1:
            return False
        names = _key_names(table)
        if query.get("IndexName") not in names:
            return False
        start = query.get("ExclusiveStartKey")
        needed = {*names[None], *names[query.get("IndexName")]} - {None}
        return not start or needed <= start.keys()

    def _tables_for(self, query: Json) -> AccountRegionScopedDict:
        """A table with the items that a query's key condition selects, where it can be read.

        ministack's handler reads and sorts the whole partition.
        """
        name, index_name = query["TableName"], query.get("IndexName")
        table = self._tables[name]
        items = table["items"]
        if index_name and name in self._lagging_indexes:
            items = self._lagging_indexes[name].items_at(self._clock())
        names = _key_names(table)[index_name]
        condition = key_condition.parse(query, *names, partial(_sort_value, table))
        tables = AccountRegionScopedDict()
        members = dynamodb._INDEX_MEMBERS
        tables[name] = {key: value for key, value in table.items() if key != members}
        tables[name]["items"] = items
        if condition:
            keys: Iterable[Key]
            if index_name:
                keys = self._indexes[name].find(index_name, condition, query)
            else:
                partition = items.get(condition.hash_value, ())
                keys = ((condition.hash_value, key) for key in partition if condition.selects(key))
            tables[name]["items"] = _select(items, keys)
        return tables

    def _record_change(
        self, table_name: str, event_name: str, old: Json | None, new: Json | None
    ) -> None:
        """Record the change of one item; ministack calls this after each change."""
        if old == new:
            return
        table = self._tables[table_name]
        item = new or old or {}
        moment = self._clock()
        if table_name in self._lagging_indexes:
            self._lagging_indexes[table_name].record(_key(item, table), new, moment)
        else:
            self._indexes[table_name].update(old, new)
        if table_name in self._streams:
            key = {name: item[name] for name in (table["pk_name"], table["sk_name"])}
            self._streams[table_name].append(event_name, key, old, new, moment)


def _key(item: Json, table: Json) -> Key:
    """The keys of the dictionaries under which an item is stored."""
    hash_key, range_key = (item[name]["S"] for name in (table["pk_name"], table["sk_name"]))
    return hash_key, range_key


def _key_names(table: Json) -> dict[str | None, tuple[str, str | None]]:
    """The names of the hash key and the range key of the table (None), and of each index."""
    names: dict[str | None, tuple[str, str | None]] = {None: (table["pk_name"], table["sk_name"])}
    for index in (*table["GlobalSecondaryIndexes"], *table["LocalSecondaryIndexes"]):
        (hash_name,), range_names = dynamodb._index_key_lists(index)
        names[index["IndexName"]] = (hash_name, next(iter(range_names), None))
    return names


def _sort_value(table: Json, name: str, value: Json) -> Any:
    """What ministack sorts items by; a whole number takes less memory than a decimal one."""
    found = dynamodb._sort_key_value(value, dynamodb._get_attr_type(table, name))
    return int(found) if isinstance(found, Decimal) and found == found.to_integral() else found


def _select(items: PackedItems, keys: Iterable[Key]) -> dict[str, dict[str, Json]]:
    """Copies of the items under some keys."""
    selected: dict[str, dict[str, Json]] = {}
    for hash_key, range_key in keys:
        selected.setdefault(hash_key, {})[range_key] = items[hash_key][range_key]
    return selected


class _Tokens(AccountRegionScopedDict):  # type: ignore[misc]
    """The transactions of the last ten minutes by their token, with their requests packed."""

    def __setitem__(self, token: str, transaction: Json) -> None:
        packed = PackedValue(transaction["signature"])
        super().__setitem__(token, {**transaction, "signature": packed})


class _LaggingIndexes:
    """The items that index queries read: changes are visible after a delay, per item in order.

    Parameters
    ----------
    indexes : Indexes
        The order of the items that are visible.
    delay : callable
        Returns the seconds until the next change is visible.
    """

    def __init__(self, indexes: Indexes, delay: Callable[[], float]) -> None:
        self._indexes = indexes
        self._items = PackedItems()
        self._delay = delay
        self._numbers = itertools.count()
        self._pending: list[tuple[float, int, Key, Json | None]] = []
        self._visible_at: dict[Key, float] = {}

    def record(self, key: Key, new: Json | None, moment: float) -> None:
        """Make a change of one item visible after a delay."""
        visible_at = moment + self._delay()
        # An index lags, but it never returns an item's older version after a newer one.
        visible_at = max(visible_at, self._visible_at.get(key, visible_at))
        self._visible_at[key] = visible_at
        heappush(self._pending, (visible_at, next(self._numbers), key, new))

    def items_at(self, moment: float) -> PackedItems:
        """Apply the changes that are visible at a moment, and return all items."""
        while self._pending and self._pending[0][0] <= moment:
            _, _, (hash_key, range_key), new = heappop(self._pending)
            partition = self._items.setdefault(hash_key)
            self._indexes.update(partition.get(range_key), new)
            if new is None:
                partition.pop(range_key, None)
            else:
                partition[range_key] = new
        return self._items
