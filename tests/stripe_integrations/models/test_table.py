"""What the records do when DynamoDB refuses, and when somebody else was faster."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.errors import DatabaseRefusedError, DatabaseUnavailableError
from stripe_integrations.models import (
    CustomerClaim,
    Event,
    EventState,
    Pointer,
    UserRecords,
    event_queue,
)
from tests.stripe_integrations.actions.test_events import event
from tests.world import World

USER = User("u-1")
EMAIL = "jane@example.com"
CONFLICT = {"code": "TransactionCanceledException", "operation": "TransactWriteItems"}


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
def test_a_transaction_that_meets_another_is_repeated(world: World, reason: str) -> None:
    with world.failing_database(times=3, reasons=["None", reason, "None"], **CONFLICT):
        assert StripeCustomer.create(USER, EMAIL).is_new
    assert len(world.stripe_customers()) == 1


def test_a_transaction_that_always_meets_another_is_given_up(world: World) -> None:
    before = world.time
    with (
        world.failing_database(reasons=["TransactionConflict"], **CONFLICT),
        pytest.raises(DatabaseUnavailableError),
    ):
        StripeCustomer.create(USER, EMAIL)
    assert 1 < world.time - before < 5
    assert world.items() == []


def test_a_transaction_that_is_refused_for_good_is_not_repeated(world: World) -> None:
    with (
        world.counting() as counts,
        world.failing_database("ValidationException", operation="TransactWriteItems"),
        pytest.raises(DatabaseRefusedError, match="Validation"),
    ):
        StripeCustomer.create(USER, EMAIL)
    assert counts.operations == ["TransactWriteItems"]


USES_OF_THE_DATABASE = pytest.mark.parametrize(
    "use_the_database",
    [
        lambda: UserRecords.read("u-1"),
        lambda: CustomerClaim.read("u-1"),
        lambda: Pointer.find("cus_1"),
        lambda: Event.find("evt_1"),
        lambda: Event.claim("evt_1"),
        lambda: list(event_queue.ids_of_customer("cus_1")),
        lambda: StripeEvent.receive(event("price.created", data={})),
        lambda: Event("EVENT#evt_1", "EVENT").finish(EventState.APPLIED),
        lambda: CustomerClaim.acquire("u-1", {}),
    ],
)


@USES_OF_THE_DATABASE
def test_a_database_that_does_not_answer_is_told_as_unavailable(
    world: World, use_the_database: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time", Mock())  # it would sleep between its tries
    with (
        world.failing_database("ReadTimeout"),
        pytest.raises(DatabaseUnavailableError, match=r"^DynamoDB: ReadTimeoutError$"),
    ):
        use_the_database()


@USES_OF_THE_DATABASE
def test_a_database_that_refuses_is_told_as_unavailable_without_its_message(
    world: World, use_the_database: Callable[[], object]
) -> None:
    with (
        world.failing_database("AccessDeniedException"),
        pytest.raises(DatabaseUnavailableError, match=r"^DynamoDB: AccessDeniedException$"),
    ):
        use_the_database()


def test_every_function_answers_503_where_the_database_refuses(world: World) -> None:
    world.create()
    with world.failing_database("AccessDeniedException"):
        answers = [world.create(), world.get(), world.sync(), world.delete()]
        answers += world.deliver()
    assert [answer["statusCode"] for answer in answers] == [503] * 5


def test_a_claim_says_whose_it_is(world: World) -> None:
    mine, is_mine = CustomerClaim.acquire("u-1", {"a": 1})
    standing, is_theirs = CustomerClaim.acquire("u-1", {"a": 2})
    assert (is_mine, is_theirs) == (True, False)
    assert (standing.token, standing.parameters) == (mine.token, {"a": 1})


def test_a_claim_is_released_and_renewed_by_its_token_only(world: World) -> None:
    claim, _ = CustomerClaim.acquire("u-1", {})
    renewed = claim.renew_token()
    assert renewed.tokens == [claim.token, renewed.token]
    assert claim.renew_token() is None
    claim.release()
    assert CustomerClaim.read("u-1").token == renewed.token
    renewed.release()
    assert CustomerClaim.read("u-1") is None


def test_a_claim_that_is_gone_when_it_is_looked_at_is_put_up_again(world: World) -> None:
    with world.failing_database(
        "TransactionCanceledException",
        1,
        "TransactWriteItems",
        reasons=["ConditionalCheckFailed"],
    ):
        _, is_mine = CustomerClaim.acquire("u-1", {})
    assert is_mine


def test_a_pointer_whose_customer_the_query_did_not_see_is_read_again(world: World) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    Event.connection().delete_item(world.settings.table_name, customer.pk, customer.sk)
    with world.counting() as counts:
        assert StripeCustomer.get(USER) is None
    assert counts.operations == ["Query"] * 3


def test_children_without_their_customer_are_nobodys(world: World) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    world.ask("POST", f"/v1/customers/{customer.stripe_id}/sources", {"source": "tok_visa"})
    StripeCustomer.sync(customer)
    Event.connection().delete_item(world.settings.table_name, customer.pk, customer.sk)
    assert UserRecords.read("u-1").customers == {}


def test_all_records_share_one_connection(world: World) -> None:
    StripeCustomer.create(USER, EMAIL)
    StripeEvent.receive(event())
    connections = {model._get_connection() for model in (CustomerClaim, Event, Pointer)}
    assert len(connections) == 1


def test_what_decides_is_read_strongly_consistent(world: World) -> None:
    StripeCustomer.create(USER, EMAIL)
    StripeEvent.receive(event())
    with world.counting() as counts:
        UserRecords.read("u-1")
        CustomerClaim.read("u-1")
        Pointer.find("cus_1")
        Event.find("evt_1")
    assert counts.operations == ["Query", "GetItem", "GetItem", "GetItem"]
    assert [body["ConsistentRead"] for body in counts.bodies] == [True] * 4
