"""A request's expressions, with the names and values that it brings for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from simulation.database.conditions import Bindings, Condition
from simulation.database.documents import Place, refuse_overlaps
from simulation.database.errors import RefusedError, invalid
from simulation.database.parser import Parsed, parse_condition, parse_projection, parse_update
from simulation.database.updates import Update
from simulation.database.values import read_value

T = TypeVar("T")
Body = Mapping[str, Any]

_LEGACY = {
    "AttributesToGet",
    "AttributeUpdates",
    "ConditionalOperator",
    "Expected",
    "KeyConditions",
    "QueryFilter",
    "ScanFilter",
}


class Expressions:
    """The expressions of one request, or of one action of a transaction.

    Parameters
    ----------
    body : mapping
        The request.

    Raises
    ------
    RefusedError
        Its names or values are not valid by themselves.
    """

    def __init__(self, body: Body) -> None:
        if not _LEGACY.isdisjoint(body):
            raise invalid("Parameters from before expressions are not simulated")
        names = body.get("ExpressionAttributeNames")
        values = body.get("ExpressionAttributeValues")
        self._body = body
        self._used_names: set[str] = set()
        self._used_values: set[str] = set()
        self.bound = Bindings(_read_names(names), _read_values(values))

    def condition(self, parameter: str) -> Condition | None:
        """The condition in a parameter, checked; None where there is none."""
        text = self._body.get(parameter)
        if text is None:
            return None
        condition = self._use(parse_condition(text, parameter), parameter)
        condition.check(self.bound)
        return condition

    def update(self) -> Update:
        """The update expression, checked; one that does nothing where there is none."""
        text = self._body.get("UpdateExpression")
        if text is None:
            return Update()
        return self._use(parse_update(text), "UpdateExpression")

    def projection(self) -> list[Place] | None:
        """The places that are asked for; None where it is the whole item."""
        text = self._body.get("ProjectionExpression")
        if text is None:
            return None
        paths = self._use(parse_projection(text), "ProjectionExpression")
        places = [path.place(self.bound) for path in paths]
        refuse_overlaps(places)
        return places

    def refuse_unused(self) -> None:
        """Refuse names and values that no expression uses."""
        if self.bound.names.keys() != self._used_names:
            raise invalid("Value provided in ExpressionAttributeNames unused in expressions")
        if self.bound.values.keys() != self._used_values:
            raise invalid("Value provided in ExpressionAttributeValues unused in expressions")

    def _use(self, parsed: Parsed[T], parameter: str) -> T:
        if not parsed.names <= self.bound.names.keys():
            raise invalid(f"Invalid {parameter}: An attribute name used is not defined")
        if not parsed.values <= self.bound.values.keys():
            raise invalid(f"Invalid {parameter}: An attribute value used is not defined")
        self._used_names |= parsed.names
        self._used_values |= parsed.values
        return parsed.tree


def _read_names(names: object) -> dict[str, str]:
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        raise RefusedError("SerializationException", "names are a map")
    if not names:
        raise invalid("ExpressionAttributeNames must not be empty")
    for placeholder, name in names.items():
        if not placeholder.startswith("#") or not name:
            raise invalid(f"ExpressionAttributeNames contains invalid key: {placeholder}")
    return dict(names)


def _read_values(values: object) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise RefusedError("SerializationException", "values are a map")
    if not values:
        raise invalid("ExpressionAttributeValues must not be empty")
    for placeholder in values:
        if not placeholder.startswith(":"):
            raise invalid(f"ExpressionAttributeValues contains invalid key: {placeholder}")
    return {placeholder: read_value(value) for placeholder, value in values.items()}
