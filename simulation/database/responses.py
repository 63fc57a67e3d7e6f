"""What the database returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Response:
    """One response of the JSON protocol.

    Parameters
    ----------
    status : int
        The HTTP status.
    body : dict
        What the JSON body holds; of an error, `__type` and what comes with it.
    """

    status: int
    body: Json


def error_response(kind: str, message: str = "", *, status: int = 400, **members: Any) -> Response:
    """An error as DynamoDB gives it; for faults that a simulation injects, too.

    Parameters
    ----------
    kind : str
        The error's name, such as ``InternalServerError``.
    message : str
        The message for people.
    status : int
        The HTTP status: 400, or 500 and above where the server is at fault.
    **members
        What else the body holds.
    """
    return Response(status, {"__type": kind, "message": message, **members})
