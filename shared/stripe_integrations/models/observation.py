"""When what a record shows was true, in the whole seconds in which Stripe stamps its events.

The order rule compares events with this: what surely came later may be written without a fetch,
what surely came earlier is dropped, and whatever is in doubt is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

CLOCKS_DIFFER_SECONDS = 5
"""How far any two clocks may be apart, Stripe's among them."""


class Order(Enum):
    """How an event stands to what a record shows."""

    NEWER = "newer"
    SHOWN = "shown"
    """Nothing comes before it: whatever the record shows came with it, or after it."""
    OLDER = "older"
    IN_DOUBT = "in doubt"


@dataclass(frozen=True, order=True, kw_only=True)
class Validity:
    """An interval within which what is shown was true, both ends included.

    Parameters
    ----------
    until, since : int
        Unix seconds by Stripe's clock. What is shown was true at some instant between them; what
        was true before and after is not known.
    """

    until: int
    since: int

    @classmethod
    def of_event(cls, created: int) -> Self:
        """What an event shows was true in the second of its stamp."""
        return cls(since=created, until=created)

    @classmethod
    def of_fetch(cls, sent: float, received: float) -> Self:
        """What a fetch shows was true between its request and its answer, by our clock."""
        return cls(
            since=int(sent - CLOCKS_DIFFER_SECONDS), until=int(received + CLOCKS_DIFFER_SECONDS)
        )

    def order(self, created: int) -> Order:
        """How an event of this second stands to it; a second that touches it is in doubt."""
        if created > self.until:
            return Order.NEWER
        return Order.OLDER if created < self.since else Order.IN_DOUBT

    def as_fields(self) -> dict[str, Any]:
        """The fields in which a record keeps it."""
        return {"true_since": self.since, "true_until": self.until}


def validity_of(since: int | None, until: int | None) -> Validity | None:
    """The validity that a record keeps in two fields; None where it keeps none."""
    return None if since is None or until is None else Validity(since=since, until=until)
