"""The user of a request: in the path if its id is safe there, or in the query, which stays encoded.

On the routes `/me` it is the user of the caller's token, and no id is accepted anywhere.

API Gateway's HTTP API decodes a path before the function gets it, and cuts it at a decoded question
mark: another user's id could arrive. So only ids whose characters mean nothing in a URL are
accepted there. The raw query string arrives as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models.fields import value_at

PATH_PATTERN = "^[A-Za-z0-9_~@:-][A-Za-z0-9._~@:-]*$"
"""The ids that are accepted in a path; none begins with a dot, since clients resolve `..`."""
_ME_ROUTES = ("POST /me", "GET /me", "PATCH /me", "POST /me/sync")
"""Their whole keys: a soft delete is the backend's, and has no such route."""
_NOT_ENCODED = re.compile("%(?![0-9A-Fa-f]{2})")
_IN_PATH = re.compile(PATH_PATTERN.strip("^$"))


def is_me_route(event: Mapping[str, object]) -> bool:
    """Return whether the route of an event of the API is one for the user of a token."""
    return event.get("routeKey") in _ME_ROUTES


def user_id_in_url(event: Mapping[str, object]) -> str:
    """Read the user's id from an event of the API.

    Parameters
    ----------
    event : mapping
        The Lambda event, payload format 2.0.

    Raises
    ------
    InvalidFieldError
        The path's id is not safe, or does not match the raw path; or the query is not exactly one
        `user_id`.
    """
    path, query = (event.get(name) or "" for name in ("rawPath", "rawQueryString"))
    if not isinstance(path, str) or not isinstance(query, str):
        raise InvalidFieldError("user_id", "can't be read from the URL")
    in_path = value_at(event, "pathParameters", "user_id")
    if in_path is None:
        _require_path(path, "/customers", "/customers/sync")
        return _in_query(query)
    if not isinstance(in_path, str) or not _IN_PATH.fullmatch(in_path):
        raise InvalidFieldError(
            "user_id", "has characters that a path can't have: pass it in the query, as ?user_id="
        )
    if query:
        raise InvalidFieldError("user_id", "is in the path, so the query must be empty")
    _require_path(path, f"/customers/{in_path}", f"/customers/{in_path}/sync")
    return in_path


def _require_path(path: str, *endings: str) -> None:
    # A custom domain may add a prefix.
    if not unquote(path).endswith(endings):
        raise InvalidFieldError("user_id", "does not match the request path")


def _in_query(query: str) -> str:
    if "+" in query:
        raise InvalidFieldError("user_id", "is ambiguous: write %2B for a plus, %20 for a space")
    if _NOT_ENCODED.search(query):
        raise InvalidFieldError("user_id", "has a % that must be written as %25")
    try:
        parameters = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise InvalidFieldError("user_id", "is not UTF-8, or not of the form user_id=…") from None
    if [name for name, _ in parameters] != ["user_id"]:
        raise InvalidFieldError("user_id", "must be in the path, or be the only query parameter")
    return parameters[0][1]
