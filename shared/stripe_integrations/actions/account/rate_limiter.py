"""The rates of a run: its calls to Stripe and its writes stay below the budgets of its workers.

A run shares Stripe's limits with the deployment's other calls, which never wait for it. So it uses
half of each limit by default, and less for a while after Stripe has refused a call, or DynamoDB a
write, because of its rate.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from stripe_integrations.adapters.stripe_gateway import StripeCall
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, current, use
from stripe_integrations.errors import DatabaseUnavailableError
from stripe_integrations.models.rate_budget import RateBudget
from stripe_integrations.models.table import Record

_ID = re.compile(r"\b[a-z]+_[A-Za-z0-9]+")
_ACCOUNT = "stripe"
_WRITES = "writes"
_METADATA_WRITE = "update"
"""The budget of updates: a run updates nothing else on Stripe."""
_ENDPOINTS = {"list a page of subscriptions": "list the subscriptions of"}
"""Operations that call the endpoint of another one, and share its budget."""
_RESERVED_CALLS = 4
"""How many calls a worker reserves at a time: each reservation is a write."""
_PAGE = "list a page of "
"""The prefix of the operations after whose call a worker writes for a while."""
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
    metadata_writes : float
        Writes of a customer's metadata a second. Each of them is an event, which Stripe delivers to
        all webhook endpoints of the account.
    """

    endpoint_calls: float
    account_calls: float
    write_units: float
    metadata_writes: float = 5

    @classmethod
    def of_settings(cls, settings: Settings) -> Limits:
        """The limits that a deployment is configured with: a share of Stripe's rate limits.

        https://docs.stripe.com/rate-limits
        """
        part = settings.walk_stripe_percent / 100
        account = _LIVE_ACCOUNT_CALLS if settings.livemode else _TEST_ACCOUNT_CALLS
        return cls(part * _ENDPOINT_CALLS, part * account, settings.walk_write_units)


@dataclass
class RateLimiter:
    """Delays a worker's calls and writes to keep within the budgets of the run.

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
    _unreserved: float = field(default=0, init=False)
    _was_throttled: bool = field(default=False, init=False)
    _budgets: dict[str, RateBudget] = field(default_factory=dict, init=False, repr=False)
    _reserved: defaultdict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(deque), init=False, repr=False
    )
    _context: Context | None = field(default=None, init=False, repr=False)

    def before_call(self, operation: str) -> None:
        """Wait until a call to Stripe is within the budgets of its endpoint and the account."""
        self.calls += 1
        endpoint = _endpoint(operation)
        calls = 1 if operation.startswith(_PAGE) else _RESERVED_CALLS
        if endpoint != _METADATA_WRITE:
            self._wait_for_call(endpoint, self.limits.endpoint_calls, calls)
        self._wait_for_call(_ACCOUNT, self.limits.account_calls, calls)

    def wait_for_metadata_write(self) -> None:
        """Wait until a write of a customer's metadata is within its budget.

        Call it before the metadata is claimed, so that other calls don't wait for the claim.
        """
        self._wait_for_call(_METADATA_WRITE, self.limits.metadata_writes, calls=1)

    def after_call(self, call: StripeCall) -> None:
        """Slow down after a refusal by Stripe's rate limit."""
        if call.is_rate_limited:
            endpoint, limits = _endpoint(call.operation), self.limits
            is_write = endpoint == _METADATA_WRITE
            ceiling = limits.metadata_writes if is_write else limits.endpoint_calls
            self._budget(endpoint, ceiling).halve()

    def wait_for_writes(self) -> None:
        """Wait until the writes so far are within the budget."""
        units, self._unreserved = self._unreserved, 0
        if units:
            _sleep_until(self._budget(_WRITES, self.limits.write_units).reserve(units))

    def _slow_down_writes(self) -> None:
        self._was_throttled = False
        # Its error must not replace that of the write; the next throttled write slows down too.
        with suppress(DatabaseUnavailableError):
            self._budget(_WRITES, self.limits.write_units).halve()

    def _wait_for_call(self, name: str, ceiling: float, calls: int) -> None:
        """Wait for the next call that this worker has reserved; it reserves some at a time."""
        reserved = self._reserved[name]
        if not reserved:
            budget = self._budget(name, ceiling)
            first = budget.reserve(calls)
            interval = 1 / budget.rate_at(first)
            reserved.extend(first + number * interval for number in range(calls))
        _sleep_until(reserved.popleft())

    def _budget(self, name: str, ceiling: float) -> RateBudget:
        if name not in self._budgets:
            self._budgets[name] = RateBudget.of(self.run_id, name, ceiling)
        return self._budgets[name]

    def _count(self, parsed: dict[str, Any], **_: Any) -> None:
        if current() is not self._context:
            return  # another thread shares the client
        consumed = parsed.get("ConsumedCapacity") or []
        for entry in consumed if isinstance(consumed, list) else [consumed]:
            units = entry.get("WriteCapacityUnits", entry["CapacityUnits"])
            self.units += units
            self._unreserved += units

    def _note_throttling(self, response: tuple[Any, dict[str, Any]] | None, **_: Any) -> None:
        """Note whether DynamoDB has throttled an attempt, which may be repeated."""
        if response is None or current() is not self._context:
            return
        parsed = response[1]
        reasons = parsed.get("CancellationReasons") or []
        codes = {reason.get("Code") for reason in [parsed.get("Error", {}), *reasons]}
        self._was_throttled |= bool(codes & _THROTTLING_CODES)

    @contextmanager
    def applied(self) -> Iterator[Context]:
        """Let every call to Stripe and every write inside the block be delayed and counted."""
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
                    (f"needs-retry.dynamodb.{name}", self._note_throttling),
                )
            ]
            for hook in hooks:
                events.register(*hook)
            try:
                yield context
            finally:
                for hook in hooks:
                    events.unregister(*hook)
                if self._was_throttled:
                    self._slow_down_writes()


_WRITING = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")
_THROTTLING_CODES = {
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingError",
    "ThrottlingException",
}
"""Of refused calls, and of the items of a cancelled transaction.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
"""


def _sleep_until(moment: float) -> None:
    seconds = moment - current().clock()
    if seconds > 0:
        current().sleep(seconds)


def _ask_for_units(params: dict[str, Any], **_: Any) -> None:
    params["ReturnConsumedCapacity"] = "TOTAL"


def _endpoint(operation: str) -> str:
    """The endpoint of a call: the operation that calls it, without ids."""
    name = _ID.sub("", operation).strip()
    return _ENDPOINTS.get(name, name)
