"""Rate budgets: how many calls, or write units, the workers of a run use together in a second."""

from __future__ import annotations

from pynamodb.attributes import NumberAttribute, VersionAttribute
from pynamodb.exceptions import PutError

from stripe_integrations.context import current
from stripe_integrations.errors import ConflictError
from stripe_integrations.models.keys import run_key
from stripe_integrations.models.retry import attempts
from stripe_integrations.models.table import CONDITION_FAILED, Record, error_code, unavailable

_RECOVERY_SECONDS = 60
"""How long a rate takes to grow back from nothing to the ceiling, linearly."""
_FEWEST = 64
"""The lowest rate is this part of the ceiling."""
_ATTEMPTS = 20


class RateBudget(Record, discriminator="RateBudget"):
    """A rate that a run's workers share.

    `next_at` is when the next unit is free, and `rate` was the rate, in units a second, at
    `changed_at`; Unix seconds.
    """

    ceiling = NumberAttribute()
    rate = NumberAttribute()
    changed_at = NumberAttribute()
    next_at = NumberAttribute()
    version = VersionAttribute()

    @classmethod
    def reserve(cls, run_id: str, name: str, ceiling: float, units: float) -> float:
        """Reserve units, and return the Unix time from which they may be used.

        Parameters
        ----------
        run_id, name : str
            The run, and what is limited.
        ceiling : float
            Units a second, at most.
        units : float
            How many are reserved.

        Raises
        ------
        ConflictError
            Concurrent workers changed it every time.
        """
        for _ in attempts(_ATTEMPTS):
            budget = cls._read(run_id, name, ceiling)
            start = max(current().clock(), budget.next_at)
            budget.next_at = start + units / budget.rate_at(start)
            if budget._is_saved():
                return start
        raise ConflictError(f"concurrent workers changed the budget every time: {name}")

    @classmethod
    def halve(cls, run_id: str, name: str, ceiling: float) -> None:
        """Halve the rate, after a refusal. Several within a second count as one."""
        for _ in attempts(_ATTEMPTS):
            now = current().clock()
            budget = cls._read(run_id, name, ceiling)
            if budget.rate < budget.ceiling and now - budget.changed_at < 1:
                return
            budget.rate = max(budget.rate_at(now) / 2, budget.ceiling / _FEWEST)
            budget.changed_at = now
            if budget._is_saved():
                return

    def rate_at(self, moment: float) -> float:
        """The rate at a time, which has grown since it was halved."""
        grown = self.ceiling * max(moment - self.changed_at, 0) / _RECOVERY_SECONDS
        return float(min(self.ceiling, self.rate + grown))

    @classmethod
    def _read(cls, run_id: str, name: str, ceiling: float) -> RateBudget:
        key = (run_key(run_id), f"BUDGET#{name}")
        budget = cls.read_one(*key)
        if budget is None:
            return cls(*key, ceiling=ceiling, rate=ceiling, changed_at=0, next_at=0)
        budget.ceiling = ceiling  # the setting may have changed since
        return budget

    def _is_saved(self) -> bool:
        """Write it, and return whether no other worker has changed it since it was read."""
        try:
            self.save()
        except PutError as error:
            if error_code(error) != CONDITION_FAILED:
                raise unavailable(error) from error
            return False
        return True
