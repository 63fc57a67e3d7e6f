"""The stream wakes: events are applied by customer, and only what can't be noted comes again."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import Any

import pytest

import functions.apply_event.app as apply_event
from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.models import Customer, Event
from tests.world import World
from tools.lambda_events import lambda_context

USER = User("u-1")
EMAIL = "jane@example.com"
A_FETCH = 3
DONE = {"batchItemFailures": []}


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL)


def rename(world: World, customer: Customer, name: str) -> str:
    """Change a customer on Stripe, and receive the event of it; its id."""
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": name})
    payload = world.payload("customer.updated")
    StripeEvent.receive(payload)
    return str(payload["id"])


def batch(world: World, *stripe_ids: str) -> dict[str, Any]:
    """What the stream brings for new events, in this order, numbered from 100."""
    images = {image["pk"]["S"]: image for image in world.images() if image["sk"]["S"] == "EVENT"}
    return {
        "Records": [
            {
                "eventName": "INSERT",
                "dynamodb": {
                    "Keys": {"pk": {"S": f"EVENT#{stripe_id}"}, "sk": {"S": "EVENT"}},
                    "NewImage": images[f"EVENT#{stripe_id}"],
                    "SequenceNumber": str(100 + number),
                },
            }
            for number, stripe_id in enumerate(stripe_ids)
        ]
    }


def run_apply_event(
    world: World, *stripe_ids: str, remaining_milliseconds: int = 60_000
) -> dict[str, Any]:
    """Bring new events to the function; its answer."""
    answer: dict[str, Any] = apply_event.handler(
        batch(world, *stripe_ids), lambda_context(remaining_milliseconds)
    )
    return answer


def states(stripe_ids: list[str]) -> set[str | None]:
    return {Event.find(stripe_id).state for stripe_id in stripe_ids}


def test_several_events_of_one_customer_cost_one_fetch(world: World, customer: Customer) -> None:
    renamed = [rename(world, customer, f"Name {number}") for number in range(5)]
    with world.counting() as counts:
        assert run_apply_event(world, *renamed) == DONE
    assert counts.stripe == A_FETCH
    assert counts.operations.count("TransactWriteItems") == 1
    assert states(renamed) == {"applied"}
    assert StripeCustomer.get(USER).name == "Name 4"


def test_several_newer_events_of_one_customer_cost_one_write(
    world: World, customer: Customer
) -> None:
    renamed = []
    for number in range(5):
        world.time += 10
        renamed.append(rename(world, customer, f"Name {number}"))
    with world.counting() as counts:
        assert run_apply_event(world, *reversed(renamed)) == DONE
    assert counts.stripe == 0
    asked = [operation for operation in counts.operations if operation != "Scan"]
    assert asked == ["UpdateItem"] * 5 + ["Query", "TransactWriteItems"]
    assert states(renamed) == {"applied"}
    assert StripeCustomer.get(USER).name == "Name 4"


def test_more_events_of_one_customer_than_a_transaction_takes_are_all_applied(
    world: World, customer: Customer
) -> None:
    renamed = []
    for number in range(45):
        world.time += 2
        renamed.append(rename(world, customer, f"Name {number}"))
    world.random.shuffle(shuffled := list(renamed))
    assert run_apply_event(world, *shuffled) == DONE
    assert states(renamed) <= {"applied", "ignored"}
    assert StripeCustomer.get(USER).name == "Name 44"


def test_two_customers_of_one_batch_do_not_hold_each_other_up(
    world: World, customer: Customer
) -> None:
    other = StripeCustomer.create(User("u-2"), EMAIL)
    failing = rename(world, customer, "Newest")
    well = rename(world, other, "Newest")
    path = f"GET /v1/customers/{customer.stripe_id}"
    world.stripe.faults.fail_next(None, status=503, match=path)

    assert run_apply_event(world, failing, well) == DONE

    assert states([failing]) == {"pending"}
    assert states([well]) == {"applied"}
    assert StripeCustomer.get(User("u-2")).name == "Newest"


def test_a_group_that_fails_is_put_off_as_a_whole_and_reported_as_success(
    world: World, customer: Customer
) -> None:
    renamed = [rename(world, customer, f"Name {number}") for number in range(3)]
    world.stripe.faults.fail_next(None, status=503)

    assert run_apply_event(world, *renamed) == DONE

    for stripe_id in renamed:
        event = Event.find(stripe_id)
        assert (event.state, event.attempts) == ("pending", 1)
        assert event.last_error == "StripeUnavailableError"
        assert event.claimed_at is None
        assert world.time < event.next_try <= world.time + 60
    assert world.dead_letters == []


def test_each_further_failure_puts_an_event_off_for_longer_within_two_hours(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer, "Newest")
    world.stripe.faults.fail_next(None, status=503)
    longest = []
    for number in range(12):
        run_apply_event(world, stripe_id)
        event = Event.find(stripe_id)
        assert event.attempts == number + 1
        longest.append(event.next_try - world.time)
        world.time = event.next_try
    assert longest[0] <= 60
    assert 480 <= longest[4] <= 960
    assert min(longest[8:]) >= 3599
    assert max(longest) <= 7200


def test_an_event_that_is_put_off_is_left_alone_until_then(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer, "Newest")
    world.stripe.faults.fail_next(None, status=503)
    run_apply_event(world, stripe_id)
    world.stripe.faults.clear()
    run_apply_event(world, stripe_id)
    assert Event.find(stripe_id).attempts == 1
    world.time = Event.find(stripe_id).next_try
    run_apply_event(world, stripe_id)
    assert (Event.find(stripe_id).state, Event.find(stripe_id).attempts) == ("applied", 2)


def test_a_conflict_that_does_not_end_puts_the_event_off(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Newest")
    conflict = {"code": "TransactionCanceledException", "operation": "TransactWriteItems"}
    with world.failing_database(reasons=["ConditionalCheckFailed"], **conflict):
        assert run_apply_event(world, stripe_id) == DONE
    event = Event.find(stripe_id)
    assert (event.state, event.last_error) == ("pending", "ConflictError")


def test_a_database_that_throttles_the_write_puts_the_event_off(
    world: World, customer: Customer
) -> None:
    world.time += 10
    stripe_id = rename(world, customer, "Newest")
    with world.failing_database("ThrottlingException", operation="TransactWriteItems"):
        assert run_apply_event(world, stripe_id) == DONE
    event = Event.find(stripe_id)
    assert (event.state, event.last_error) == ("pending", "DatabaseUnavailableError")
    world.time = event.next_try
    run_apply_event(world, stripe_id)
    assert StripeCustomer.get(USER).name == "Newest"


def test_what_could_not_be_claimed_comes_again_and_only_that(
    world: World, customer: Customer
) -> None:
    other = StripeCustomer.create(User("u-2"), EMAIL)
    first = rename(world, customer, "First")
    well = rename(world, other, "Newest")
    last = rename(world, customer, "Last")

    with world.failing_database(
        "ProvisionedThroughputExceededException", times=1, operation="UpdateItem"
    ):
        answer = run_apply_event(world, first, well, last)

    failed = [entry["itemIdentifier"] for entry in answer["batchItemFailures"]]
    assert failed == ["100", "102"]
    assert states([well]) == {"applied"}
    assert states([first, last]) == {"pending"}
    assert run_apply_event(world, first, last) == DONE
    assert StripeCustomer.get(USER).name == "Last"


def test_an_event_that_could_not_be_put_off_comes_again(world: World, customer: Customer) -> None:
    other = StripeCustomer.create(User("u-2"), EMAIL)
    well = rename(world, other, "Newest")
    stripe_id = rename(world, customer, "Newest")
    world.stripe.faults.fail_next(None, status=503, match=f"GET /v1/customers/{customer.stripe_id}")
    with ExitStack() as stack:

        def fail_from_now_on() -> None:
            if world.stripe.requests[-1].status == 503:
                world.during_sleep = lambda: None
                stack.enter_context(
                    world.failing_database("InternalServerError", operation="UpdateItem")
                )

        world.during_sleep = fail_from_now_on
        answer = run_apply_event(world, well, stripe_id)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "101"}]}
    assert states([well]) == {"applied"}
    assert Event.find(stripe_id).state == "pending"


def test_a_new_customer_whose_events_cant_be_looked_up_comes_again(
    world: World, customer: Customer
) -> None:
    with world.failing_database("InternalServerError", operation="Query"):
        answer = world.stream(("USER#u-1", f"CUSTOMER#{customer.stripe_id}"))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "0"}]}


def test_the_log_names_what_comes_again_and_not_whose_it_is(
    world: World, customer: Customer, log: Any
) -> None:
    with world.failing_database("InternalServerError", operation="Query"):
        world.stream(("USER#u-1", f"CUSTOMER#{customer.stripe_id}"))
    assert f"CUSTOMER#{customer.stripe_id}" in log.getvalue()
    assert "u-1" not in log.getvalue()


def test_a_claim_lasts_for_as_long_as_the_invocation_may(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Newest")
    began = world.time
    seen: list[int] = []
    world.during_sleep = lambda: seen.append(Event.find(stripe_id).next_try)
    run_apply_event(world, stripe_id, remaining_milliseconds=60_000)
    assert began + 60 <= seen[0] <= began + 80


def test_an_event_without_a_customer_is_a_group_of_its_own(
    world: World, customer: Customer
) -> None:
    world.ask("POST", "/v1/payment_methods", {"type": "card", "card": {"token": "tok_visa"}})
    stray = {
        **world.payload("customer.created"),
        "id": "evt_stray",
        "type": "payment_method.detached",
        "data": {"object": {"id": "pm_1", "object": "payment_method", "type": "card"}},
    }
    StripeEvent.receive(stray)
    renamed = rename(world, customer, "Newest")
    assert run_apply_event(world, "evt_stray", renamed) == DONE
    assert (Event.find("evt_stray").state, Event.find(renamed).state) == ("waiting", "applied")


def test_the_stream_may_bring_a_record_again(world: World, customer: Customer) -> None:
    stripe_id = rename(world, customer, "Newest")
    assert run_apply_event(world, stripe_id, stripe_id) == DONE
    before = world.items()
    assert run_apply_event(world, stripe_id) == DONE
    assert world.items() == before


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"dynamodb": {}},
        {"dynamodb": {"Keys": {"pk": {"S": "EVENT#evt_1"}, "sk": {"N": "1"}}}},
        {"dynamodb": {"Keys": {"pk": {"S": 7}, "sk": {"S": "EVENT"}}, "SequenceNumber": "1"}},
    ],
)
def test_a_record_that_cant_be_read_keeps_no_other_from_being_applied(
    world: World, log: io.StringIO, record: Any
) -> None:
    world.create()
    world.deliver()
    (image,) = world.items(record_type="Event")
    readable = {"Keys": {"pk": {"S": image["pk"]}, "sk": {"S": "EVENT"}}, "SequenceNumber": "2"}
    answer = apply_event.handler(
        {"Records": [record, {"dynamodb": readable}]}, lambda_context(60_000)
    )
    assert answer == {"batchItemFailures": []}
    assert world.event_states() == {"customer.created": "applied"}
    assert "unreadable record" in log.getvalue()


def test_an_invocation_without_records_does_nothing(world: World) -> None:
    for event in ({}, {"Records": None}, {"Records": "x"}, None):
        assert apply_event.handler(event, lambda_context()) == {"batchItemFailures": []}
