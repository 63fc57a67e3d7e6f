"""Stripe's list objects: newest first, cut by cursors and a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from .errors import Json, no_such

_DEFAULT_LIMIT = 10
NESTED = 10
"""How many entries a list shows that is nested in another object."""


def first_page(entries: list[Json], url: str, limit: int = NESTED) -> Json:
    """Return the list object that shows the first entries."""
    return {
        "object": "list",
        "data": entries[:limit],
        "has_more": len(entries) > limit,
        "url": url,
    }


def page(
    entries: Iterable[Json],
    given: Json,
    url: str,
    kind: str,
    is_listed: Callable[[Json], bool] = lambda _: True,
) -> Json:
    """Return the page that ``limit``, ``starting_after`` and ``ending_before`` ask for.

    Parameters
    ----------
    entries
        All objects in the order of the list, those included which ``is_listed`` leaves out: a cursor
        may name one of them.
    given
        The parameters of the request.
    url
        Where further pages are found.
    kind
        What the objects are called in an error.
    is_listed
        Tells which entries are listed.

    Raises
    ------
    ApiError
        400 ``resource_missing``, for a cursor that names nothing.
    """
    limit = given.get("limit", _DEFAULT_LIMIT)
    before = given.get("ending_before")
    if before is not None:
        found = _before(entries, before, kind, is_listed)
        data = found[-limit:]
        return {"object": "list", "data": data, "has_more": len(found) > limit, "url": url}
    remaining = iter(entries)
    after = given.get("starting_after")
    if after is not None and not any(entry["id"] == after for entry in remaining):
        raise no_such(kind, after, "starting_after")
    found = list(islice((entry for entry in remaining if is_listed(entry)), limit + 1))
    return first_page(found, url, limit)


def _before(
    entries: Iterable[Json], before: str, kind: str, is_listed: Callable[[Json], bool]
) -> list[Json]:
    found: list[Json] = []
    for entry in entries:
        if entry["id"] == before:
            return found
        if is_listed(entry):
            found.append(entry)
    raise no_such(kind, before, "ending_before")
