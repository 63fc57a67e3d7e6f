"""Pages of long lists, newest first; the address of the next one has a time and an id."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

PAGE_ROWS = 50
_PLACE = re.compile(r"(\d{1,12})-(\w{1,255})", re.ASCII)


class Place(NamedTuple):
    """The last row of a page.

    Parameters
    ----------
    created : int
        In Unix seconds.
    stripe_id : str
        Its id, among those of the same second.
    """

    created: int
    stripe_id: str

    def __str__(self) -> str:
        """Return it as part of an address."""
        return f"{self.created}-{self.stripe_id}"


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list.

    Parameters
    ----------
    rows : list
        What it shows.
    before : Place or None
        Where the next page begins; None at the end of the list.
    """

    rows: list[T]
    before: Place | None


def place_in(text: str | None) -> Place | None:
    """Return the place in an address; None for the beginning, and for what is no place."""
    found = _PLACE.fullmatch(text or "")
    return Place(int(found[1]), found[2]) if found else None


def page_of(rows: Iterable[T], place_of: Callable[[T], Place], before: Place | None) -> Page[T]:
    """Return the rows after a place.

    Parameters
    ----------
    rows : iterable
        Newest first; no more of it is read than the page needs.
    place_of : callable
        The place of a row.
    before : Place or None
        The last row of the page before.
    """
    found = list(islice(_in_order(rows, place_of, before), PAGE_ROWS + 1))
    shown = found[:PAGE_ROWS]
    return Page(shown, place_of(shown[-1]) if len(found) > PAGE_ROWS else None)


def _in_order(
    rows: Iterable[T], place_of: Callable[[T], Place], before: Place | None
) -> Iterator[T]:
    """Rows after a place, with a fixed order of those of the same second."""
    for _, group in groupby(rows, lambda row: place_of(row).created):
        for row in sorted(group, key=place_of, reverse=True):
            if before is None or place_of(row) < before:
                yield row
