"""What operations use: calls, units of the database, log lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Usage:
    """What one or several operations have used.

    Parameters
    ----------
    invocations : Counter
        Invocations by function.
    database_calls, stripe_calls : float
        Requests to DynamoDB and to Stripe.
    write_units, read_units : float
        As DynamoDB reports them, those of the indexes included.
    log_lines, log_bytes : float
        What the functions printed; Lambda's own lines are not included.
    stored_bytes : float
        By how much the items of the table have grown.
    """

    invocations: Counter[str] = field(default_factory=Counter)
    database_calls: float = 0.0
    stripe_calls: float = 0.0
    write_units: float = 0.0
    read_units: float = 0.0
    log_lines: float = 0.0
    log_bytes: float = 0.0
    stored_bytes: float = 0.0

    def since(self, before: Usage) -> Usage:
        """Return what was used after an earlier state."""
        numbers = {name: getattr(self, name) - getattr(before, name) for name in _NUMBERS}
        return Usage(self.invocations - before.invocations, **numbers)

    def copy(self) -> Usage:
        """Return the present state, for `since`."""
        return self.since(Usage())

    def as_json(self, operations: int = 1) -> dict[str, Any]:
        """Return the means of so many operations by name, rounded to two digits."""
        numbers = {name: round(getattr(self, name) / operations, 2) for name in _NUMBERS}
        invocations = {name: count / operations for name, count in self.invocations.items()}
        return {"invocations": invocations, **numbers}


_NUMBERS = (
    "database_calls",
    "stripe_calls",
    "write_units",
    "read_units",
    "log_lines",
    "log_bytes",
    "stored_bytes",
)
