"""Rate budgets: how many calls, or write units, the workers of a run use together in a second."""

from __future__ import annotations

from datetime import timedelta

from pynamodb.attributes import NumberAttribute, TTLAttribute
from pynamodb.exceptions import PutError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from stripe_integrations.context import current
from stripe_integrations.errors import ConflictError
from stripe_integrations.models.keys import run_key
from stripe_integrations.models.table import CONDITION_FAILED, Record, error_code, unavailable

_RECOVERY_SECONDS = 60
"""How long a rate takes to grow back from nothing to the ceiling, linearly."""
_FEWEST = 64
"""The lowest rate is this part of the ceiling."""
_ATTEMPTS = 20
_RETENTION = timedelta(days=365)


class RateBudget(Record, discriminator="RateBudget"):
    """A rate that a run's workers share.

    `next_at` is when the next unit is free, and `rate` was the rate, in units a second, at
    `changed_at`; Unix seconds. Each worker adds what it reserves, in one write that needs no
    version: workers don't conflict.
    """

    ceiling = NumberAttribute()
    rate = NumberAttribute()
    changed_at = NumberAttribute()
    next_at = NumberAttribute()
    expires_at = TTLAttribute()

    @classmethod
    def of(cls, run_id: str, name: str, ceiling: float) -> RateBudget:
        """Read a budget of a run, and store it if it is new.

        Parameters
        ----------
        run_id, name : str
            The run, and what is limited.
        ceiling : float
            Units a second, at most. It may have changed since the budget was stored.
        """
        key = (run_key(run_id), f"BUDGET#{name}")
        budget = cls.read_one(*key)
        if budget is None:
            budget = cls(*key, ceiling=ceiling, rate=ceiling, changed_at=0, next_at=0)
            budget.expires_at = current().now() + _RETENTION
            try:
                budget.save(cls.pk.does_not_exist())
            except PutError as error:
                if error_code(error) != CONDITION_FAILED:
                    raise unavailable(error) from error
                budget = cls.read_one(*key) or budget
        budget.ceiling = ceiling
        return budget

    def reserve(self, units: float) -> float:
        """Reserve units, and return the Unix time from which they may be used.

        Raises
        ------
        ConflictError
            Concurrent workers changed it every time.
        """
        for _ in range(_ATTEMPTS):
            now = current().clock()
            seconds = units / self.rate_at(max(now, self.next_at))
            if self._update([RateBudget.next_at.add(seconds)], RateBudget.next_at >= now):
                return float(self.next_at) - seconds
            if self._update([RateBudget.next_at.set(now + seconds)], RateBudget.next_at < now):
                return now
        raise ConflictError("concurrent workers changed the budget every time")

    def halve(self) -> None:
        """Halve the rate, after a refusal. Several within a second count as one."""
        now = current().clock()
        is_first: Condition = (RateBudget.changed_at < now - 1) | (RateBudget.changed_at > now)
        rate = max(self.rate_at(now) / 2, self.ceiling / _FEWEST)
        self._update([RateBudget.rate.set(rate), RateBudget.changed_at.set(now)], is_first)

    def rate_at(self, moment: float) -> float:
        """The rate at a time, which has grown since it was halved."""
        grown = self.ceiling * max(moment - self.changed_at, 0) / _RECOVERY_SECONDS
        return float(min(self.ceiling, self.rate + grown))

    def _update(self, actions: list[Action], condition: Condition) -> bool:
        """Write it under a condition, and return whether that held; then all fields are current."""
        ceiling = self.ceiling
        has_held = self.update_if(actions, condition)
        self.ceiling = ceiling
        return has_held
