"""What the key condition of a query selects."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulation.database.responses import Json

_CLAUSE = re.compile(r"([#\w]+) (=|<=|<|>=|>|BETWEEN) (:\w+)(?: AND (:\w+))?")


@dataclass(frozen=True)
class KeyCondition:
    """One hash key, and an interval of its range keys.

    Parameters
    ----------
    hash_value : object
        The value of the hash key.
    low, high : object
        The bounds of the range key, as items are sorted by it; None for no bound.
    has_low, has_high : bool
        Whether the bounds belong to the interval.
    """

    hash_value: Any
    low: Any = None
    high: Any = None
    has_low: bool = True
    has_high: bool = True

    def selects(self, value: Any) -> bool:
        """Return whether a range key is in the interval."""
        if self.low is not None and not (value > self.low or (self.has_low and value == self.low)):
            return False
        return self.high is None or value < self.high or (self.has_high and value == self.high)


def parse(
    query: Json, hash_name: str, range_name: str | None, sort_value: Callable[[str, Json], Any]
) -> KeyCondition | None:
    """Read the key condition of a query.

    Parameters
    ----------
    query : dict
        The body of the request.
    hash_name, range_name : str
        The keys of what it reads.
    sort_value : callable
        Takes a key's name and its value in DynamoDB's JSON; returns what items are sorted by.

    Returns
    -------
    KeyCondition or None
        None for a condition that it can't read: a function, or one that DynamoDB refuses.
    """
    text = query.get("KeyConditionExpression", "").strip("()")
    names = query.get("ExpressionAttributeNames", {})
    values = query.get("ExpressionAttributeValues", {})
    clauses = list(_CLAUSE.finditer(text))
    if " AND ".join(clause.group() for clause in clauses) != text:
        return None
    found: dict[str, Any] = {}
    for clause in clauses:
        name, operator, *operands = clause.groups()
        name = names.get(name, name)
        given = [values.get(operand) for operand in operands if operand]
        if None in given:
            return None
        first, *second = [sort_value(name, value) for value in given]
        match operator:
            case "=" if name == hash_name:
                found["hash_value"] = first
            case _ if name != range_name:
                return None
            case "=":
                found.update(low=first, high=first)
            case "BETWEEN":
                found.update(low=first, high=second[0])
            case "<" | "<=":
                found.update(high=first, has_high=operator == "<=")
            case _:
                found.update(low=first, has_low=operator == ">=")
    return KeyCondition(**found) if "hash_value" in found else None
