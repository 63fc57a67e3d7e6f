"""The pace of a run: its calls to Stripe and its writes stay below the budgets of its workers.

A run shares Stripe's limits with the deployment's other calls, which never wait for it. So it uses
half of each limit by default, and less for a while after Stripe has refused a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from stripe_integrations.adapters.stripe_gateway import StripeCall
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, current, use
from stripe_integrations.models.rate_budget import RateBudget
from stripe_integrations.models.table import Record

_ID = re.compile(r"\b[a-z]+_[A-Za-z0-9]+")
_ACCOUNT = "stripe"
_WRITES = "writes"
_ENDPOINT_CALLS = 25
"""Stripe's limit for the calls a second to one endpoint, in both modes."""
_LIVE_ACCOUNT_CALLS, _TEST_ACCOUNT_CALLS = 100, 25
"""Stripe's limits for the calls a second of an account."""


@dataclass(frozen=True)
class Limits:
    """What the workers of a run use together, at most.

    Parameters
    ----------
    endpoint_calls : float
        Calls a second to one endpoint of Stripe's API.
    account_calls : float
        Calls a second to all endpoints.
    write_units : float
        DynamoDB's write units a second. A new table with on-demand capacity takes about 4,000.
    """

    endpoint_calls: float
    account_calls: float
    write_units: float

    @classmethod
    def of_settings(cls, settings: Settings) -> Limits:
        """The limits that a deployment is configured with: a part of Stripe's own.

        https://docs.stripe.com/rate-limits
        """
        part = settings.walk_stripe_percent / 100
        account = _LIVE_ACCOUNT_CALLS if settings.livemode else _TEST_ACCOUNT_CALLS
        return cls(part * _ENDPOINT_CALLS, part * account, settings.walk_write_units)


@dataclass
class Pace:
    """Lets a worker's calls and writes wait for their turn.

    Parameters
    ----------
    run_id : str
        The run whose workers share the budgets.
    limits : Limits
        The budgets.
    """

    run_id: str
    limits: Limits
    calls: int = field(default=0, init=False)
    """The calls to Stripe so far."""
    units: float = field(default=0, init=False)
    """The write units so far, as DynamoDB counts them."""
    _unpaid: float = field(default=0, init=False)
    _context: Context | None = field(default=None, init=False, repr=False)

    def before_call(self, operation: str) -> None:
        """Wait until a call to Stripe is within the budgets of its endpoint and the account."""
        self.calls += 1
        limits = self.limits
        self._wait(_endpoint(operation), limits.endpoint_calls, 1)
        self._wait(_ACCOUNT, limits.account_calls, 1)

    def after_call(self, call: StripeCall) -> None:
        """Slow down after a refusal by Stripe's rate limit."""
        if call.is_rate_limited:
            RateBudget.halve(self.run_id, _endpoint(call.operation), self.limits.endpoint_calls)

    def pay_for_writes(self) -> None:
        """Wait until the writes so far are within the budget."""
        units, self._unpaid = self._unpaid, 0
        if units:
            self._wait(_WRITES, self.limits.write_units, units)

    def _wait(self, name: str, ceiling: float, units: float) -> None:
        start = RateBudget.reserve(self.run_id, name, ceiling, units)
        seconds = start - current().clock()
        if seconds > 0:
            current().sleep(seconds)

    def _count(self, parsed: dict[str, Any], **_: Any) -> None:
        if current() is not self._context:
            return  # another thread shares the client
        consumed = parsed.get("ConsumedCapacity") or []
        for entry in consumed if isinstance(consumed, list) else [consumed]:
            units = entry.get("WriteCapacityUnits", entry["CapacityUnits"])
            self.units += units
            self._unpaid += units

    @contextmanager
    def applied(self) -> Iterator[Context]:
        """Let every call to Stripe and every write inside the block be paced and counted."""
        if self._context is None:
            self._context = replace(
                current(), before_stripe_call=self.before_call, after_stripe_call=self.after_call
            )
        with use(self._context) as context:
            events = Record.connection().client.meta.events
            hooks = [
                hook
                for name in _WRITING
                for hook in (
                    (f"provide-client-params.dynamodb.{name}", _ask_for_units),
                    (f"after-call.dynamodb.{name}", self._count),
                )
            ]
            for hook in hooks:
                events.register(*hook)
            try:
                yield context
            finally:
                for hook in hooks:
                    events.unregister(*hook)


_WRITING = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")


def _ask_for_units(params: dict[str, Any], **_: Any) -> None:
    params["ReturnConsumedCapacity"] = "TOTAL"


def _endpoint(operation: str) -> str:
    """What the calls of one endpoint have in common: their operation without its ids."""
    return _ID.sub("", operation).strip()
