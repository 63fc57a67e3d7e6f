"""Stripe's list objects: newest first, paged by cursors and a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from .creation import CreationIndex
from .errors import Json, no_such

_DEFAULT_LIMIT = 10
NESTED = 10
"""Number of entries in a list that is nested in another object."""


def first_page(entries: list[Json], url: str, limit: int = NESTED) -> Json:
    """Return the list object of the first entries."""
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
    """Return the page of ``limit``, ``starting_after`` and ``ending_before``.

    Parameters
    ----------
    entries
        All objects in the order of the list, including those that are not listed: a cursor may
        name one of them.
    given
        The parameters of the request.
    url
        The URL of the list.
    kind
        The name of the objects in an error.
    is_listed
        Returns whether an entry is listed.

    Raises
    ------
    ApiError
        400 ``resource_missing``, for a cursor that names no object.
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


def account_page(
    index: CreationIndex,
    objects: Mapping[str, Json],
    given: Json,
    *,
    url: str,
    kind: str,
    is_listed: Callable[[Json], bool],
    among: Iterable[str] | None = None,
) -> Json:
    """Return a page of the objects of an account, of which there may be a million.

    Parameters
    ----------
    index
        Their order. It may have objects that are gone.
    objects
        The objects by id.
    given
        The parameters of the request, ``created`` among them.
    url, kind, is_listed
        As in `page`.
    among
        The ids to choose from; by default all.

    Raises
    ------
    ApiError
        400 ``resource_missing``, for a cursor that names no object, or one that was removed from
        the index.
    """
    for param in ("starting_after", "ending_before"):
        cursor = given.get(param)
        if cursor is not None and (cursor not in index or cursor not in objects):
            raise no_such(kind, cursor, param)
    limit = given.get("limit", _DEFAULT_LIMIT)
    created, before = given.get("created"), given.get("ending_before")
    if before is None:
        ids = index.newest_first(created, given.get("starting_after"), among)
    else:
        ids = index.oldest_first(created, before, among)
    known = (objects[identifier] for identifier in ids if identifier in objects)
    found = list(islice(filter(is_listed, known), limit + 1))
    result = first_page(found, url, limit)
    if before is not None:
        result["data"].reverse()
    return result


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
