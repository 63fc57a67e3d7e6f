"""What the functions' logs lack about events, read from the local cloud's table."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

BATCH = 100
"""The most items that DynamoDB returns at once."""


@dataclass(frozen=True)
class StoredEvent:
    """A stored event; attributes that the table lacks are empty."""

    kind: str = ""
    owner: str = ""
    """Its user, or the Stripe customer that it names if no user is known."""
    retry_seconds: int | None = None
    """How long it is until the next attempt."""


class StoredEvents:
    """Reads events from the table.

    Parameters
    ----------
    client
        A client of DynamoDB.
    table_name : str
    clock : callable
        Returns the Unix time in seconds.
    """

    def __init__(self, client: Any, table_name: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._table_name = table_name
        self._clock = clock

    def find(self, stripe_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """Return the events that are stored, by id."""
        left = iter(dict.fromkeys(stripe_ids))
        found: dict[str, StoredEvent] = {}
        while ids := list(islice(left, BATCH)):
            found |= self._read(ids)
        return found

    def _read(self, stripe_ids: list[str]) -> Iterator[tuple[str, StoredEvent]]:
        keys = [{"pk": {"S": f"EVENT#{each}"}, "sk": {"S": "EVENT"}} for each in stripe_ids]
        wanted = {
            "Keys": keys,
            "ProjectionExpression": "pk, kind, user_id, customer_id, next_attempt",
            "ConsistentRead": True,
        }
        response = self._client.batch_get_item(RequestItems={self._table_name: wanted})
        for item in response["Responses"][self._table_name]:
            yield item["pk"]["S"].removeprefix("EVENT#"), self._event(item)

    def _event(self, item: dict[str, Any]) -> StoredEvent:
        texts = {name: value["S"] for name, value in item.items() if "S" in value}
        owner = texts.get("user_id") or texts.get("customer_id") or ""
        due = item.get("next_attempt")
        seconds = max(0, round(int(due["N"]) - self._clock())) if due else None
        return StoredEvent(texts.get("kind", ""), owner, seconds)
