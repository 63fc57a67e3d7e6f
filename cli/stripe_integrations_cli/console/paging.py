"""Pages of long lists, newest first; the address of the next one has a time and an id."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

PAGE_ROWS = 50
MAX_READ = 1000
"""How many rows are read for a page that shows few of them."""
MAX_ID = 255
"""The characters that an id may have: Stripe's limit."""
ID = f"<string(maxlength={MAX_ID}):{{}}>"
"""The part of a route that is an id, for `str.format` with its name."""
_PLACE = re.compile(rf"([0-9]{{1,12}})-(.{{1,{MAX_ID}}})", re.DOTALL)


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
        What it shows; none where too many others had to be read.
    before : Place or None
        Where the next page begins; None at the end of the list.
    """

    rows: list[T]
    before: Place | None


def place_in(text: str | None) -> Place | None:
    """Return the place in an address; None for the beginning, and for what is no place."""
    found = _PLACE.fullmatch(text or "")
    return Place(int(found[1]), found[2]) if found else None


def page_of(
    rows: Iterable[T],
    place_of: Callable[[T], Place],
    before: Place | None,
    *,
    is_shown: Callable[[T], bool] = lambda _: True,
) -> Page[T]:
    """Return the rows after a place.

    Parameters
    ----------
    rows : iterable
        Newest first; no more of it is read than the page needs.
    place_of : callable
        The place of a row.
    before : Place or None
        The last row that was read for the page before.
    is_shown : callable
        Whether the page has a row; `MAX_READ` rows are read in any case.
    """
    shown: list[T] = []
    last: Place | None = None
    for read, row in enumerate(_in_order(rows, place_of, before)):
        if len(shown) == PAGE_ROWS or read == MAX_READ:
            return Page(shown, last)
        last = place_of(row)
        if is_shown(row):
            shown.append(row)
    return Page(shown, None)


def _in_order(
    rows: Iterable[T], place_of: Callable[[T], Place], before: Place | None
) -> Iterator[T]:
    """Rows after a place, with a fixed order of those of the same second."""
    for _, group in groupby(rows, lambda row: place_of(row).created):
        for row in sorted(group, key=place_of, reverse=True):
            if before is None or place_of(row) < before:
                yield row
