"""How a run reserves its calls, and slows down after DynamoDB has throttled its writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from simulation.database.transport import Raw
from stripe_integrations.actions.account.rate_limiter import Limits, RateLimiter
from stripe_integrations.context import current
from stripe_integrations.errors import DatabaseUnavailableError
from stripe_integrations.models.rate_budget import RateBudget
from stripe_integrations.models.table import transact
from tests.world import World, database_client, hooked

UNITS = 100.0
THROTTLING: list[dict[str, Any]] = [
    {"__type": "ProvisionedThroughputExceededException"},
    {"__type": "ThrottlingException"},
    {"__type": "RequestLimitExceeded"},
    {
        "__type": "TransactionCanceledException",
        "CancellationReasons": [{"Code": "None"}, {"Code": "ThrottlingError"}],
    },
    {
        "__type": "TransactionCanceledException",
        "CancellationReasons": [{"Code": "ProvisionedThroughputExceeded"}],
    },
]
CONFLICT = {
    "__type": "TransactionCanceledException",
    "CancellationReasons": [{"Code": "TransactionConflict"}],
}


@contextmanager
def refused(body: dict[str, Any], times: int) -> Iterator[None]:
    """Let DynamoDB refuse the next transactions."""
    left = iter(range(times))

    def refuse(request: Any, **_: Any) -> AWSResponse | None:
        if next(left, None) is None:
            return None
        return AWSResponse(request.url, 400, {}, Raw(body))

    with hooked(database_client(), "before-send.dynamodb.TransactWriteItems", refuse):
        yield


def rate() -> float:
    return RateBudget.of("run", "writes", UNITS).rate_at(current().clock())


def write() -> None:
    budget = RateBudget("a", "b", ceiling=1, rate=1, changed_at=0, next_at=0)
    budget.expires_at = current().now()
    transact(lambda t: t.save(budget))


@pytest.fixture
def rate_limiter(world: World) -> RateLimiter:
    return RateLimiter("run", Limits(25, 25, UNITS))


@pytest.mark.parametrize("body", THROTTLING)
def test_throttled_write_halves_the_rate(rate_limiter: RateLimiter, body: dict[str, Any]) -> None:
    with refused(body, 1), rate_limiter.applied():
        write()
    assert rate() == pytest.approx(UNITS / 2)


def test_conflict_does_not(rate_limiter: RateLimiter) -> None:
    with refused(CONFLICT, 1), rate_limiter.applied():
        write()
    assert rate() == UNITS


def test_rate_is_halved_where_the_write_fails_in_the_end(rate_limiter: RateLimiter) -> None:
    write_fails = pytest.raises(DatabaseUnavailableError, match="ProvisionedThroughputExceeded")
    with refused(THROTTLING[0], 1000), write_fails, rate_limiter.applied():
        write()
    assert rate() == pytest.approx(UNITS / 2)


def test_error_remains_where_the_rate_can_not_be_stored(
    world: World, rate_limiter: RateLimiter
) -> None:
    write_fails = pytest.raises(DatabaseUnavailableError, match="ProvisionedThroughputExceeded")
    others_fail = world.failing_database("ThrottlingException", operation="UpdateItem")
    with others_fail, refused(THROTTLING[0], 1000), write_fails, rate_limiter.applied():
        write()


def test_rate_recovers(world: World, rate_limiter: RateLimiter) -> None:
    with refused(THROTTLING[0], 1), rate_limiter.applied():
        write()
    world.time += 60
    assert rate() == UNITS


@pytest.mark.parametrize(
    ("operation", "calls"),
    [("list a page of customers", 1), ("list the payment methods of cus_1", 4)],
)
def test_calls_reserved_at_a_time(
    world: World, rate_limiter: RateLimiter, operation: str, calls: int
) -> None:
    """The other workers do not wait for calls that this one makes after it has written a page."""
    with rate_limiter.applied():
        rate_limiter.before_call(operation)
    for budget in (operation.removesuffix(" cus_1"), "stripe"):
        reserved_until = RateBudget.of("run", budget, 25).next_at
        assert reserved_until - world.time == pytest.approx(calls / 25)


def test_calls_of_one_endpoint_share_its_budget(world: World, rate_limiter: RateLimiter) -> None:
    """`GET /v1/subscriptions` lists those of one customer, and those of all."""
    began = world.time
    with rate_limiter.applied():
        rate_limiter.before_call("list a page of subscriptions")
        rate_limiter.before_call("list the subscriptions of cus_1")
    reserved_until = RateBudget.of("run", "list the subscriptions of", 25).next_at
    assert reserved_until - began == pytest.approx((1 + 4) / 25)
