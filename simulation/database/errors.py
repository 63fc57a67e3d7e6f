"""What the database answers: a body, or a refusal in DynamoDB's own terms."""

from __future__ import annotations

from typing import Any

from simulation.database.answers import Answer, Json, error_answer

__all__ = ["Answer", "Json", "RefusedError", "error_answer", "invalid"]


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


def invalid(message: str) -> RefusedError:
    """The refusal of a request that breaks DynamoDB's rules."""
    return RefusedError("ValidationException", message)
