"""What all records share: transactions, translated errors, consistent reads, one connection."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.errors import DatabaseRefusedError, DatabaseUnavailableError
from stripe_integrations.models import (
    Customer,
    CustomerClaim,
    Event,
    EventState,
    Pointer,
    UserRecords,
    event_queue,
)
from tests.world import EMAIL, USER, World, stripe_event


class TestTransact:
    @pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
    def test_retries_after_conflict(self, world: World, reason: str) -> None:
        with world.canceling_transactions("None", reason, "None", times=3):
            assert StripeCustomer.create(USER, EMAIL).is_new
        assert len(world.stripe_customers()) == 1

    def test_fails_when_conflict_persists(self, world: World) -> None:
        before = world.time
        with (
            world.canceling_transactions("TransactionConflict"),
            pytest.raises(DatabaseUnavailableError),
        ):
            StripeCustomer.create(USER, EMAIL)
        assert 1 < world.time - before < 5
        assert world.items() == []

    def test_does_not_retry_permanent_error(self, world: World) -> None:
        with (
            world.counting() as counts,
            world.failing_database("ValidationException", operation="TransactWriteItems"),
            pytest.raises(DatabaseRefusedError, match="Validation"),
        ):
            StripeCustomer.create(USER, EMAIL)
        assert counts.operations == ["GetItem", "TransactWriteItems"]


class TestUnavailable:
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("ReadTimeout", "DynamoDB: ReadTimeoutError"),
            ("AccessDeniedException", "DynamoDB: AccessDeniedException"),
        ],
    )
    @pytest.mark.parametrize(
        "use_database",
        [
            lambda: UserRecords.read("u-1"),
            lambda: CustomerClaim.read("u-1"),
            lambda: Pointer.find("cus_1"),
            lambda: Event.find("evt_1"),
            lambda: Event.claim("evt_1"),
            lambda: list(event_queue.ids_of_customer("cus_1")),
            lambda: StripeEvent.receive(stripe_event("price.created", data={})),
            lambda: Event("EVENT#evt_1", "EVENT").finish(EventState.APPLIED),
            lambda: CustomerClaim.acquire("u-1", {}),
        ],
    )
    def test_error_has_code_without_message(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        use_database: Callable[[], object],
        code: str,
        message: str,
    ) -> None:
        monkeypatch.setattr("botocore.endpoint.time", Mock())  # it would sleep between its attempts
        with (
            world.failing_database(code),
            pytest.raises(DatabaseUnavailableError, match=f"^{message}$"),
        ):
            use_database()

    def test_functions_return_503(self, world: World, customer: Customer) -> None:
        with world.failing_database("AccessDeniedException"):
            responses = [world.create(), world.get(), world.sync(), world.delete()]
            responses += world.deliver()
        assert [response["statusCode"] for response in responses] == [503] * 5


class TestRecord:
    def test_models_share_one_connection(self, world: World) -> None:
        assert len({model._get_connection() for model in (CustomerClaim, Event, Pointer)}) == 1

    def test_reads_are_strongly_consistent(self, world: World, customer: Customer) -> None:
        StripeEvent.receive(stripe_event())
        with world.counting() as counts:
            UserRecords.read("u-1")
            CustomerClaim.read("u-1")
            Pointer.find("cus_1")
            Event.find("evt_1")
        assert counts.operations == ["Query", "GetItem", "GetItem", "GetItem"]
        assert [body["ConsistentRead"] for body in counts.bodies] == [True] * 4
