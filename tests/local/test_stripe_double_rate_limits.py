"""Stripe's rate limits on the double's clock, and locked objects."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from local.stripe_double import StripeDouble
from tests.local.conftest import Clock

REASON = "Stripe-Rate-Limited-Reason"


def reason(call: Any, *arguments: Any) -> str | None:
    """The reason with which a request is refused, if it is."""
    try:
        call(*arguments)
    except stripe.RateLimitError as error:
        assert error.http_status == 429
        assert error.error is not None
        assert (error.error.type, error.error.code) == ("invalid_request_error", "rate_limit")
        return str((error.headers or {})[REASON])
    return None


class TestRateLimits:
    def test_without_limits_nothing_is_refused(self, api: Any, double: StripeDouble) -> None:
        for _ in range(200):
            api.customers.list()
        assert double.rate_limits.made == {"GET /v1/customers": 200}
        assert double.rate_limits.refused == {}

    def test_endpoint_has_limit_of_its_own(self, api: Any, double: StripeDouble) -> None:
        customers = [api.customers.create().id for _ in range(3)]
        double.rate_limits.enforce(endpoint=2)
        retrieved = [reason(api.customers.retrieve, customer) for customer in customers]
        assert retrieved == [None, None, "endpoint-rate"]
        assert reason(api.customers.list) is None
        assert double.rate_limits.made["GET /v1/customers/{customer}"] == 3
        assert double.rate_limits.refused == {"GET /v1/customers/{customer}": 1}

    def test_account_has_limit(self, api: Any, double: StripeDouble) -> None:
        double.rate_limits.enforce(account=3)
        calls = (api.customers.list, api.products.list, api.prices.list, api.customers.list)
        assert [reason(call) for call in calls] == [None, None, None, "global-rate"]

    def test_accepts_as_many_in_any_second(
        self, api: Any, double: StripeDouble, clock: Clock
    ) -> None:
        double.rate_limits.enforce(account=25)
        accepted = []
        for _ in range(400):
            if reason(api.customers.list) is None:
                accepted.append(clock.time)
            clock.move(0.013)
        for time in accepted:
            assert sum(time <= other < time + 0.999 for other in accepted) <= 25
        assert len(accepted) >= 25 * int(400 * 0.013)

    def test_requests_at_exactly_the_limit_are_accepted(
        self, api: Any, double: StripeDouble, clock: Clock
    ) -> None:
        double.rate_limits.enforce(account=25)
        for _ in range(200):
            assert reason(api.customers.list) is None
            clock.move(1 / 25)

    def test_refused_request_counts_towards_no_limit(
        self, api: Any, double: StripeDouble, clock: Clock
    ) -> None:
        double.rate_limits.enforce(account=2, endpoint=1)
        assert [reason(api.customers.list) for _ in range(9)] == [None, *["endpoint-rate"] * 8]
        assert reason(api.products.list) is None
        clock.move(1)
        assert reason(api.customers.list) is None

    def test_clock_that_was_set_back_refuses_nothing(
        self, api: Any, double: StripeDouble, clock: Clock
    ) -> None:
        double.rate_limits.enforce(account=1)
        api.customers.list()
        clock.move(-3600)
        assert reason(api.customers.list) is None

    def test_refused_request_has_no_effect_and_stores_no_key(
        self, api: Any, double: StripeDouble, clock: Clock
    ) -> None:
        double.rate_limits.enforce(account=1)
        api.customers.list()
        with pytest.raises(stripe.RateLimitError):
            api.customers.create({}, {"idempotency_key": "key-1"})
        assert double.account.customers == {}
        clock.move(1)
        assert api.customers.create({}, {"idempotency_key": "key-1"}).id

    def test_lifted_limits_refuse_nothing(self, api: Any, double: StripeDouble) -> None:
        double.rate_limits.enforce(account=1)
        double.rate_limits.lift()
        assert [reason(api.customers.list) for _ in range(30)] == [None] * 30


class TestLock:
    def test_locked_object_alone_is_refused(self, api: Any, double: StripeDouble) -> None:
        locked, other = api.customers.create().id, api.customers.create().id
        double.faults.lock(locked, 2)
        for call in (api.customers.retrieve, api.customers.payment_methods.list):
            with pytest.raises(stripe.RateLimitError) as caught:
                call(locked)
            assert caught.value.error is not None
            assert caught.value.error.code == "lock_timeout"
            assert REASON not in (caught.value.headers or {})
            assert api.customers.retrieve(other).id == other
        assert api.customers.retrieve(locked).id == locked
