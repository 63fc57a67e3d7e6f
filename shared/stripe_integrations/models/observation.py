"""When a stored state was observed on Stripe, in whole seconds like the stamps of Stripe's events.

Events are compared with it: one that is certainly newer may be written without a fetch, one that
is certainly older is dropped, and an ambiguous one needs a fetch, unless it equals the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from stripe_integrations.limits import CLOCK_SKEW_SECONDS


class Freshness(Enum):
    """How an event, or an object of a page, compares to a stored state."""

    NEWER = "newer"
    CURRENT = "current"
    """The stored state includes it, or is later: no event precedes it, an update of ours caused it,
    or it equals the stored state."""
    OLDER = "older"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, order=True, kw_only=True)
class Observation:
    """An interval that contains the instant at which a state was Stripe's, both ends included.

    Parameters
    ----------
    observed_to, observed_from : int
        Unix seconds by Stripe's clock. Whether the state was Stripe's at the other instants of the
        interval is unknown.
    """

    observed_to: int
    observed_from: int

    @classmethod
    def of_event(cls, created: int) -> Self:
        """The payload of an event: observed in the second of its stamp."""
        return cls(observed_from=created, observed_to=created)

    @classmethod
    def of_fetch(cls, sent: float, received: float) -> Self:
        """The response to a fetch: observed between request and response, by our clock."""
        return cls(
            observed_from=int(sent - CLOCK_SKEW_SECONDS),
            observed_to=int(received + CLOCK_SKEW_SECONDS),
        )

    def compared_to(self, stored: Observation | None) -> Freshness:
        """Compare it to a stored state's: intervals that touch are ambiguous, as is none stored."""
        if stored is None:
            return Freshness.AMBIGUOUS
        if self.observed_from > stored.observed_to:
            return Freshness.NEWER
        return Freshness.OLDER if self.observed_to < stored.observed_from else Freshness.AMBIGUOUS

    def as_fields(self) -> dict[str, Any]:
        """The fields in which a record stores it."""
        return {"observed_from": self.observed_from, "observed_to": self.observed_to}


def observation_of(observed_from: int | None, observed_to: int | None) -> Observation | None:
    """The observation that a record stores in two fields; None without one."""
    if observed_from is None or observed_to is None:
        return None
    return Observation(observed_from=observed_from, observed_to=observed_to)
