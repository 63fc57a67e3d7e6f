"""A table: its items, its indexes and its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from simulation.database.errors import Json, RefusedError, invalid
from simulation.database.own_stream import Stream
from simulation.database.schema import IndexSchema, KeySchema, read_kinds
from simulation.database.storage import Partitions, Place, Stored
from simulation.database.values import SCALARS, Item, Token, item_size, kind_of

LARGEST_ITEM_BYTES = 400 * 1024


@dataclass(frozen=True, slots=True, order=True)
class _Pending:
    """A change that an index does not show yet."""

    visible_at: float
    number: int
    old: Item | None
    new: Stored | None


class Index:
    """A global secondary index.

    Parameters
    ----------
    schema : IndexSchema
        Its key and its projection.
    """

    def __init__(self, schema: IndexSchema) -> None:
        self.schema = schema
        self.items = Partitions()

    def apply(self, old: Item | None, new: Stored | None) -> None:
        """Bring the index from one version of an item to the next."""
        schema = self.schema
        before = schema.tokens(old) if old is not None and schema.holds(old) else None
        after = schema.tokens(new.item) if new is not None and schema.holds(new.item) else None
        if before is not None and before != after:
            self.items.remove(*before)
        if after is not None and new is not None:
            item = schema.project(new.item)
            size = new.size if item is new.item else item_size(item)
            self.items.put(*after, Stored(item, size))


class Table:
    """A table.

    Parameters
    ----------
    description : dict
        The request that created it.
    clock : callable
        Gives the time in Unix seconds.
    index_delay : callable, optional
        Gives the seconds after which a change shows in the indexes; at once where left out.
    stream : Stream, optional
        Takes note of every change.
    """

    def __init__(
        self,
        description: Json,
        *,
        clock: Callable[[], float],
        index_delay: Callable[[], float] | None = None,
        stream: Stream | None = None,
    ) -> None:
        self.description = description
        self.stream = stream
        self.time_to_live: str | None = None
        self.schema = KeySchema.read(
            description["KeySchema"], kinds := read_kinds(description["AttributeDefinitions"])
        )
        self.indexes: dict[str, Index] = {}
        for index in description.get("GlobalSecondaryIndexes") or ():
            key = KeySchema.read(index["KeySchema"], kinds)
            projection = index.get("Projection") or {}
            schema = IndexSchema(index["IndexName"], key, self.schema, projection)
            self.indexes[index["IndexName"]] = Index(schema)
        self.items = Partitions()
        self._clock = clock
        self._index_delay = index_delay
        self._pending: list[_Pending] = []
        self._pending_count = 0
        self._visible_at: dict[tuple[Token, Place], float] = {}

    @property
    def name(self) -> str:
        """The table's name."""
        name: str = self.description["TableName"]
        return name

    def get(self, key: Item) -> Item | None:
        """The item of a key. To be read only."""
        stored = self.items.get(*self.schema.tokens(key))
        return None if stored is None else stored.item

    def check_indexes(self, item: Item) -> None:
        """Refuse an item that an index of the table can't hold."""
        for index in self.indexes.values():
            index.schema.check(item)

    def check_index_kinds(self, item: Item) -> None:
        """Refuse an item that has a set or a document for an index's key."""
        for index in self.indexes.values():
            for name in index.schema.key.names & item.keys():
                if kind_of(item[name]) not in SCALARS:
                    raise invalid("Invalid attribute value type")

    def check_size(self, item: Item) -> int:
        """Refuse an item that is too large; its size in bytes otherwise."""
        size = item_size(item)
        if size > LARGEST_ITEM_BYTES:
            raise invalid("Item size has exceeded the maximum allowed size")
        return size

    def replace(self, key: Item, old: Item | None, new: Item | None, size: int) -> None:
        """Write one item, everywhere it stands.

        Parameters
        ----------
        key : dict
            Its key.
        old, new : dict or None
            What stands there, and what is to stand there.
        size : int
            The size of the new one in bytes.
        """
        if old == new:
            return
        partition, place = self.schema.tokens(key)
        stored = None if new is None else Stored(new, size)
        if stored is None:
            self.items.remove(partition, place)
        else:
            self.items.put(partition, place, stored)
        if self.indexes:
            self._index((partition, place), old, stored)
        if self.stream is not None:
            self.stream.append(partition, key, old, new, self._clock())

    def _index(self, where: tuple[Token, Place], old: Item | None, new: Stored | None) -> None:
        if self._index_delay is None:
            for index in self.indexes.values():
                index.apply(old, new)
            return
        visible_at = self._clock() + self._index_delay()
        # An index may be late, but it never shows an item's older version after a newer one.
        visible_at = max(visible_at, self._visible_at.get(where, visible_at))
        self._visible_at[where] = visible_at
        self._pending_count += 1
        heappush(self._pending, _Pending(visible_at, self._pending_count, old, new))

    def index(self, name: str) -> Index:
        """An index as it shows now.

        Raises
        ------
        RefusedError
            The table has no such index.
        """
        if name not in self.indexes:
            raise invalid(f"The table does not have the specified index: {name}")
        if self._pending:
            self._show_pending()
        return self.indexes[name]

    def _show_pending(self) -> None:
        now = self._clock()
        while self._pending and self._pending[0].visible_at <= now:
            change = heappop(self._pending)
            for index in self.indexes.values():
                index.apply(change.old, change.new)
        if not self._pending:
            self._visible_at.clear()

    def expired(self) -> Iterator[Item]:
        """The items whose time to live is over. To be read only."""
        name = self.time_to_live
        now = self._clock()
        for stored in self.items:
            value = stored.item.get(name or "")
            if value is not None and "N" in value and float(value["N"]) < now:
                yield stored.item

    def describe(self) -> Json:
        """What DescribeTable gives."""
        stored = list(self.items)
        described = {
            **self.description,
            "TableStatus": "ACTIVE",
            "ItemCount": len(stored),
            "TableSizeBytes": sum(each.size for each in stored),
        }
        if self.indexes:
            described["GlobalSecondaryIndexes"] = [
                {**index, "IndexStatus": "ACTIVE"}
                for index in self.description["GlobalSecondaryIndexes"]
            ]
        if self.stream is not None:
            described["LatestStreamArn"] = self.stream.arn
        return described


def missing_table() -> RefusedError:
    """The refusal of a request to a table that is not there."""
    return RefusedError("ResourceNotFoundException", "Cannot do operations on a non-existent table")
