"""When what a record shows was true, in the whole seconds in which Stripe stamps its events.

The order rule compares events with this: what surely came later may be written without a fetch,
what surely came earlier is dropped, and whatever is in doubt is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

CLOCK_SKEW_SECONDS = 5
"""How far any two clocks may be apart, Stripe's among them."""


class Freshness(Enum):
    """How an event stands to what a record shows."""

    NEWER = "newer"
    CURRENT = "shown"
    """Nothing comes before it: whatever the record shows came with it, or after it."""
    OLDER = "older"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, order=True, kw_only=True)
class Observation:
    """An interval within which what is shown was true, both ends included.

    Parameters
    ----------
    observed_to, observed_from : int
        Unix seconds by Stripe's clock. What is shown was true at some instant between them; what
        was true before and after is not known.
    """

    observed_to: int
    observed_from: int

    @classmethod
    def of_event(cls, created: int) -> Self:
        """What an event shows was true in the second of its stamp."""
        return cls(observed_from=created, observed_to=created)

    @classmethod
    def of_fetch(cls, sent: float, received: float) -> Self:
        """What a fetch shows was true between its request and its answer, by our clock."""
        return cls(
            observed_from=int(sent - CLOCK_SKEW_SECONDS),
            observed_to=int(received + CLOCK_SKEW_SECONDS),
        )

    def order(self, created: int) -> Freshness:
        """How an event of this second stands to it; a second that touches it is in doubt."""
        if created > self.observed_to:
            return Freshness.NEWER
        return Freshness.OLDER if created < self.observed_from else Freshness.AMBIGUOUS

    def as_fields(self) -> dict[str, Any]:
        """The fields in which a record keeps it."""
        return {"observed_from": self.observed_from, "observed_to": self.observed_to}


def observation_of(observed_from: int | None, observed_to: int | None) -> Observation | None:
    """The observation that a record keeps in two fields; None where it keeps none."""
    return (
        None
        if observed_from is None or observed_to is None
        else Observation(observed_from=observed_from, observed_to=observed_to)
    )
