"""The order in which Stripe lists the objects of an account: by the time of their creation."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

_Entry = tuple[int, int, str]

Bounds = Mapping[str, int]
"""Unix seconds by ``gt``, ``gte``, ``lt`` and ``lte``, as `params.interval` reads them."""


class CreationIndex:
    """The ids of an account's objects of one type by creation, then by position.

    The position of an object is the order in which it was added. A listing takes time for what it
    returns and not for the objects before it, however many there are.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._entry_of: dict[str, _Entry] = {}
        self._position = 0

    def __contains__(self, identifier: object) -> bool:
        """Return whether an object is in the index."""
        return identifier in self._entry_of

    def add(self, identifier: str, created: int) -> None:
        """Add an object, or move one that has another time now.

        Parameters
        ----------
        identifier
            Its id.
        created
            Unix seconds.
        """
        self.discard(identifier)
        self._position += 1
        entry = (created, self._position, identifier)
        self._entry_of[identifier] = entry
        if self._entries and entry < self._entries[-1]:
            self._entries.insert(bisect_left(self._entries, entry), entry)
        else:
            self._entries.append(entry)

    def discard(self, identifier: str) -> None:
        """Remove an object, if it is in the index."""
        entry = self._entry_of.pop(identifier, None)
        if entry is not None:
            del self._entries[bisect_left(self._entries, entry)]

    def newest_first(
        self,
        created: Bounds | None,
        starting_after: str | None,
        among: Iterable[str] | None = None,
    ) -> Iterator[str]:
        """Return the ids of an interval that are older than an object, newest first.

        Parameters
        ----------
        created
            The interval; None for all.
        starting_after
            The id of an object of the index; None to begin with the newest.
        among
            The ids to choose from; by default all.
        """
        entries = self._among(among)
        first, end = _range(entries, created)
        if starting_after is not None:
            end = min(end, bisect_left(entries, self._entry_of[starting_after]))
        return (entries[place][-1] for place in range(end - 1, first - 1, -1))

    def oldest_first(
        self, created: Bounds | None, ending_before: str, among: Iterable[str] | None = None
    ) -> Iterator[str]:
        """Return the ids of an interval that are newer than an object, oldest first."""
        entries = self._among(among)
        first, end = _range(entries, created)
        first = max(first, bisect_right(entries, self._entry_of[ending_before]))
        return (entries[place][-1] for place in range(first, end))

    def _among(self, identifiers: Iterable[str] | None) -> list[_Entry]:
        if identifiers is None:
            return self._entries
        return sorted(self._entry_of[name] for name in identifiers if name in self._entry_of)


def _range(entries: list[_Entry], created: Bounds | None) -> tuple[int, int]:
    """Return the place of the first entry of an interval, and the one after its last."""
    bounds = created or {}
    lower = [bounds[name] + more for name, more in (("gte", 0), ("gt", 1)) if name in bounds]
    upper = [bounds[name] + more for name, more in (("lt", 0), ("lte", 1)) if name in bounds]
    first = bisect_left(entries, max(lower), key=_created) if lower else 0
    end = bisect_left(entries, min(upper), key=_created) if upper else len(entries)
    return first, end


def _created(entry: _Entry) -> int:
    return entry[0]
