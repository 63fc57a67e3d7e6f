"""Counts write units inside a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from simulation.database import consumed_units
from tests.world import database_client, hooked


@dataclass
class WriteUnits:
    """The write units that DynamoDB reports, indexes included.

    Parameters
    ----------
    key : str
        Only requests that contain this text are counted.
    """

    key: str = ""
    total: float = 0.0
    _is_counted: bool = False

    def request(self, params: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "INDEXES"
        self._is_counted = self.key in str(params)

    def count(self, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        if self._is_counted and model.name in (
            "PutItem",
            "UpdateItem",
            "DeleteItem",
            "TransactWriteItems",
        ):
            self.total += consumed_units(parsed) - _counted_twice(parsed)


def _counted_twice(parsed: dict[str, Any]) -> float:
    """Units of indexes that only DynamoDB Local counts.

    It doubles the writes of a transaction in the indexes too; AWS doubles them in the table alone.
    """
    consumed = parsed["ConsumedCapacity"]
    if not isinstance(consumed, list) or "WriteCapacityUnits" in consumed[0]:
        return 0.0
    indexes = (entry.get("GlobalSecondaryIndexes", {}).values() for entry in consumed)
    return float(sum(index["CapacityUnits"] for index in chain.from_iterable(indexes))) / 2


@contextmanager
def counting_write_units(key: str = "") -> Iterator[WriteUnits]:
    """Count the write units inside the block, of all requests or of those that contain a key."""
    units = WriteUnits(key)
    client = database_client()
    with (
        hooked(client, "provide-client-params.dynamodb", units.request),
        hooked(client, "after-call.dynamodb", units.count),
    ):
        yield units
