"""Items in partitions, in order, so that queries are slices."""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simulation.database.values import Item, Token

Place = tuple[Token, ...]


class Stored(NamedTuple):
    """An item and its size in bytes. Neither is ever changed in place."""

    item: Item
    size: int


class _Last:
    """Sorts behind every token."""

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True


LAST: Any = _Last()


@dataclass(slots=True)
class Partition:
    """The items of one hash key, by their places."""

    places: list[Place] = field(default_factory=list)
    items: dict[Place, Stored] = field(default_factory=dict)


class Partitions:
    """The items of a table or of an index."""

    def __init__(self) -> None:
        self._partitions: dict[Token, Partition] = {}
        self._scan_order: list[tuple[int, Token]] | None = None

    def get(self, partition: Token, place: Place) -> Stored | None:
        """The item at a place; None where there is none."""
        found = self._partitions.get(partition)
        return None if found is None else found.items.get(place)

    def put(self, partition: Token, place: Place, stored: Stored) -> None:
        """Put an item at a place, instead of the one that stands there."""
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Partition()
            self._scan_order = None
        if place not in found.items:
            insort(found.places, place)
        found.items[place] = stored

    def remove(self, partition: Token, place: Place) -> None:
        """Take the item at a place away, if there is one."""
        found = self._partitions.get(partition)
        if found is None or place not in found.items:
            return
        del found.items[place]
        del found.places[bisect_left(found.places, place)]
        if not found.items:
            del self._partitions[partition]
            self._scan_order = None

    def partition(self, partition: Token) -> Partition:
        """The items of one hash key."""
        return self._partitions.get(partition) or Partition()

    def scan(self, after: tuple[Token, Place] | None) -> Iterator[Stored]:
        """All items, partitions in the order of their hashes, from behind a place on."""
        if self._scan_order is None:
            self._scan_order = sorted((stable_hash(each), each) for each in self._partitions)
        order = self._scan_order
        start = 0 if after is None else bisect_left(order, (stable_hash(after[0]), after[0]))
        for _, name in order[start:]:
            found = self._partitions[name]
            low = 0
            if after is not None and name == after[0]:
                low = bisect_right(found.places, after[1])
            for place in found.places[low:]:
                yield found.items[place]

    def __iter__(self) -> Iterator[Stored]:
        return self.scan(None)


def stable_hash(partition: Token) -> int:
    """A hash that is the same in every process, unlike Python's own."""
    text = partition if isinstance(partition, bytes) else str(partition).encode("utf-8", "replace")
    return zlib.crc32(text)
