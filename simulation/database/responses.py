"""The responses of the database."""

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
        The JSON body; of an error, `__type`, `message` and further members.
    """

    status: int
    body: Json


def consumed_units(body: Json) -> float:
    """Return the units that a response says were consumed, those of indexes included.

    It does if the request has `ReturnConsumedCapacity`.
    """
    return float(sum(entry["CapacityUnits"] for entry in _consumed(body)))


def written_units(body: Json) -> float:
    """Return the units of a write that a run compares with its budget.

    Of a transaction, those of its indexes do not count.
    """
    name = "WriteCapacityUnits"
    return float(sum(entry.get(name) or entry["CapacityUnits"] for entry in _consumed(body)))


def _consumed(body: Json) -> list[Json]:
    consumed = body.get("ConsumedCapacity") or []
    entries: list[Json] = consumed if isinstance(consumed, list) else [consumed]
    return entries


def error_response(kind: str, message: str = "", *, status: int = 400, **members: Any) -> Response:
    """Return an error response of DynamoDB; also for injected faults.

    Parameters
    ----------
    kind : str
        The error's name, such as ``InternalServerError``.
    message : str
        The error message.
    status : int
        The HTTP status: 400, or at least 500 for a server error.
    **members
        Further members of the body.
    """
    return Response(status, {"__type": kind, "message": message, **members})
