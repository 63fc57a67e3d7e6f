"""What the database answers: a body, or a refusal in DynamoDB's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_NAMESPACES = {
    "ValidationException": "com.amazon.coral.validate",
    "SerializationException": "com.amazon.coral.service",
    "ThrottlingException": "com.amazon.coral.availability",
}
_USUAL_NAMESPACE = "com.amazonaws.dynamodb.v20120810"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the JSON protocol.

    Parameters
    ----------
    status : int
        The HTTP status.
    body : dict
        What the JSON body holds; of an error, `__type` and what comes with it.
    """

    status: int
    body: Json


class RefusedError(Exception):
    """A request was refused.

    Parameters
    ----------
    kind : str
        The error's name, such as ``ConditionalCheckFailedException``.
    message : str
        The message for people.
    **members
        What else the error's body holds, such as ``CancellationReasons``.
    """

    def __init__(self, kind: str, message: str, **members: Any) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.members = members


def error_answer(kind: str, message: str = "", *, status: int = 400, **members: Any) -> Answer:
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
    # DynamoDB itself writes this one's text with a capital letter.
    text = "Message" if kind == "TransactionCanceledException" else "message"
    namespace = _NAMESPACES.get(kind, _USUAL_NAMESPACE)
    return Answer(status, {"__type": f"{namespace}#{kind}", text: message, **members})


def invalid(message: str) -> RefusedError:
    """The refusal of a request that breaks DynamoDB's rules."""
    return RefusedError("ValidationException", message)
