"""What all records share: transactions, translated errors, consistent reads, one connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
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
from stripe_integrations.models.customer import created_between
from stripe_integrations.models.difference import Difference, DifferenceKind, Suspicion
from stripe_integrations.models.window import WalkedList
from tests.world import EMAIL, USER, World, stripe_event

BUSY = (503, "database-unavailable", "The database is busy.")
UNREACHABLE = (503, "database-unavailable", "The database can't be reached now.")
MISCONFIGURED = (500, "misconfigured", "The deployment is not set up correctly.")
NO_AWS = {
    "TABLE_NAME": "customers",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/none",
    "AWS_SHARED_CREDENTIALS_FILE": "/none",
}
REGION = {"AWS_DEFAULT_REGION": "eu-west-1"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
USE_DATABASE = """
from stripe_integrations.actions import StripeCustomer, User
StripeCustomer.get(User("u-1"))
"""


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


def store_suspicion() -> None:
    suspicion = Suspicion.new("1-a", "customers", "cus_1", "cus_1")
    suspicion.observe(DifferenceKind.MISSING, "", None)
    suspicion.store()


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
            lambda: event_queue.has_event_in("cus_1", [EventState.PENDING]),
            lambda: list(created_between(None, 1)),
            lambda: list(Difference.in_list("1-a", WalkedList.CUSTOMERS)),
            lambda: list(Suspicion.of_window("1-a", "customers")),
            store_suspicion,
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

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("ProvisionedThroughputExceededException", BUSY),
            ("ReadTimeout", UNREACHABLE),
            ("AccessDeniedException", MISCONFIGURED),
            ("ResourceNotFoundException", MISCONFIGURED),
            ("UnrecognizedClientException", MISCONFIGURED),
        ],
    )
    def test_functions_say_whether_to_retry(
        self,
        world: World,
        customer: Customer,
        monkeypatch: pytest.MonkeyPatch,
        code: str,
        expected: tuple[int, str, str],
    ) -> None:
        monkeypatch.setattr("botocore.endpoint.time", Mock())
        with world.failing_database(code):
            responses = [world.create(), world.get(), world.sync(), world.delete()]
            responses += world.deliver()
        for response in responses:
            problem = json.loads(response["body"])
            slug = problem["type"].rpartition(":")[2]
            assert (problem["status"], slug, problem["detail"]) == expected
            assert ("retry-after" in response["headers"]) is (expected[0] == 503)
        assert len(responses) == 5

    @pytest.mark.parametrize(
        ("environment", "error"),
        [
            ({}, "DatabaseMisconfiguredError: DynamoDB: NoRegionError"),
            (REGION, "DatabaseMisconfiguredError: DynamoDB: NoCredentialsError"),
            (
                {**REGION, **CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
                "DatabaseUnreachableError: DynamoDB: EndpointConnectionError",
            ),
        ],
    )
    def test_process_without_aws_is_not_busy(
        self, environment: Mapping[str, str], error: str
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if "AWS" not in name}
        ended = subprocess.run(
            [sys.executable, "-c", USE_DATABASE],
            env={**inherited, **NO_AWS, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stderr.splitlines()[-1] == f"stripe_integrations.errors.{error}"


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
