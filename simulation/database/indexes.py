"""The order of a table's secondary indexes: a query takes time for what it returns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from simulation.database.key_condition import KeyCondition
from simulation.database.responses import Json

Key = tuple[str, str]
"""The hash key and the range key of an item in its table."""
_Entry = tuple[Any, str, str]


class Indexes:
    """The keys of a table's items by secondary index, each partition in the order of its queries.

    Parameters
    ----------
    key_names : mapping
        The names of the hash key and the range key of each index; no range key: None.
    key_of : callable
        Takes an item; returns its key in the table.
    sort_value : callable
        Takes a key's name and its value in DynamoDB's JSON; returns what items are sorted by.
    """

    def __init__(
        self,
        key_names: Mapping[str, tuple[str, str | None]],
        key_of: Callable[[Json], Key],
        sort_value: Callable[[str, Json], Any],
    ) -> None:
        self._key_names = key_names
        self._key_of = key_of
        self._sort_value = sort_value
        self._partitions: dict[str, defaultdict[Any, list[_Entry]]] = {
            name: defaultdict(list) for name in key_names
        }

    def update(self, old: Json | None, new: Json | None) -> None:
        """Replace an item that the indexes have by its next version; None where there is none."""
        for name, partitions in self._partitions.items():
            before, after = self._place(name, old), self._place(name, new)
            if before == after:
                continue
            if before:
                hash_value, entry = before
                entries = partitions[hash_value]
                del entries[bisect_left(entries, entry)]
            if after:
                hash_value, entry = after
                insort(partitions[hash_value], entry)

    def find(self, name: str, condition: KeyCondition, query: Json) -> Iterator[Key]:
        """Return the keys that a query of an index reads, at most as many as its limit.

        Parameters
        ----------
        name : str
            The index.
        condition : KeyCondition
            What the query selects.
        query : dict
            The body of its request.
        """
        entries = self._partitions[name].get(condition.hash_value, [])
        first, end = _range(entries, condition)
        start = query.get("ExclusiveStartKey")
        forward = query.get("ScanIndexForward", True)
        if start:
            cursor = self._entry(name, start)
            if forward:
                first = max(first, bisect_right(entries, cursor))
            else:
                end = min(end, bisect_left(entries, cursor))
        places = range(first, end) if forward else range(end - 1, first - 1, -1)
        return (entries[place][1:] for place in islice(places, query.get("Limit")))

    def _place(self, name: str, item: Json | None) -> tuple[Any, _Entry] | None:
        """The partition and the entry of an item; None if the index has none of it."""
        hash_name, range_name = self._key_names[name]
        if item is None or hash_name not in item or (range_name and range_name not in item):
            return None
        return self._sort_value(hash_name, item[hash_name]), self._entry(name, item)

    def _entry(self, name: str, item: Json) -> _Entry:
        _, range_name = self._key_names[name]
        value = self._sort_value(range_name, item[range_name]) if range_name else ""
        return (value, *self._key_of(item))


def _range(entries: list[_Entry], condition: KeyCondition) -> tuple[int, int]:
    """The place of the first entry of an interval, and the one after its last."""
    first, end = 0, len(entries)
    if condition.low is not None:
        find_low = bisect_left if condition.has_low else bisect_right
        first = find_low(entries, condition.low, key=_value)
    if condition.high is not None:
        find_high = bisect_right if condition.has_high else bisect_left
        end = find_high(entries, condition.high, key=_value)
    return first, end


def _value(entry: _Entry) -> Any:
    return entry[0]
