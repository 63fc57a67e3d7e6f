"""A deployment's own functions: called at least once for each event, after the record is right."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
from stripe_integrations.errors import ConflictError, SideEffectFailedError
from stripe_integrations.models import Customer, Event
from tests.stripe_integrations.actions.events import custom_handlers
from tests.world import START, World

USER = User("u-1")
EMAIL = "jane@example.com"
NOTE = "tests.stripe_integrations.actions.events.custom_handlers:note"
NOTE_TOO = "tests.stripe_integrations.actions.events.custom_handlers:note_too"


@pytest.fixture(autouse=True)
def forget_calls() -> Iterator[None]:
    yield
    for kept in (
        custom_handlers.called,
        custom_handlers.seen,
        custom_handlers.raising,
        custom_handlers.meanwhile,
    ):
        kept.clear()


@pytest.fixture
def handlers() -> dict[str, str]:
    """What the deployment registers; a test may choose."""
    return {"customer.updated": NOTE, "invoice.*": NOTE, "price.created": NOTE}


@pytest.fixture
def world(table_name: str, handlers: dict[str, str]) -> Iterator[World]:
    world = World(table_name, event_handlers=handlers)
    with use(world.context):
        yield world


@pytest.fixture
def customer(world: World) -> Customer:
    return StripeCustomer.create(USER, EMAIL)


def rename(world: World, customer: Customer, name: str = "Newest") -> str:
    world.time += 10
    world.ask("POST", f"/v1/customers/{customer.stripe_id}", {"name": name})
    payload = world.payload("customer.updated")
    StripeEvent.receive(payload)
    return str(payload["id"])


def receive(kind: str, obj: dict[str, Any]) -> str | None:
    """Receive an event of a type that changes no record."""
    received = StripeEvent.receive(
        {
            "id": "evt_own",
            "object": "event",
            "api_version": "2026-10-28.endive",
            "created": int(START),
            "data": {"object": obj},
            "livemode": False,
            "type": kind,
        }
    )
    return received.state


def ended(stripe_id: str) -> tuple[str | None, str | None]:
    event = Event.find(stripe_id)
    assert event
    return event.state, event.reason


def test_a_handler_is_called_after_the_record_was_brought_up_to_date(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer)
    StripeEvent.apply(stripe_id)
    assert custom_handlers.called == [(stripe_id, "u-1")]
    assert custom_handlers.seen == ["Newest"]
    assert ended(stripe_id) == ("applied", None)


def test_the_event_is_marked_after_its_handler_was_called(world: World, customer: Customer) -> None:
    states: list[str | None] = []
    stripe_id = rename(world, customer)
    custom_handlers.meanwhile.append(lambda: states.append(ended(stripe_id)[0]))
    StripeEvent.apply(stripe_id)
    assert states == ["pending"]


def test_a_handler_is_called_for_a_type_that_changes_no_record(
    world: World, customer: Customer
) -> None:
    assert receive("invoice.paid", {"object": "invoice", "customer": customer.stripe_id}) == (
        "pending"
    )
    StripeEvent.apply("evt_own")
    assert custom_handlers.called == [("evt_own", "u-1")]
    assert ended("evt_own") == ("applied", None)


def test_a_handler_of_an_event_without_a_customer_gets_none(world: World) -> None:
    assert receive("price.created", {"object": "price", "id": "price_1"}) == "pending"
    StripeEvent.apply("evt_own")
    assert custom_handlers.called == [("evt_own", None)]
    assert ended("evt_own") == ("applied", None)


def test_a_handler_of_an_event_of_an_unknown_customer_waits_with_it(world: World) -> None:
    assert receive("invoice.paid", {"object": "invoice", "customer": "cus_1"}) == "waiting"
    StripeEvent.apply("evt_own")
    assert custom_handlers.called == []


def test_a_handler_gets_a_soft_deleted_customer_as_such(world: World, customer: Customer) -> None:
    StripeCustomer.soft_delete(customer)
    before = world.items(record_type="Customer")
    stripe_id = rename(world, customer)
    StripeEvent.apply(stripe_id)
    assert custom_handlers.called == [(stripe_id, "u-1")]
    assert world.items(record_type="Customer") == before
    assert ended(stripe_id) == ("applied", "the customer is soft-deleted")


def test_a_handler_is_called_for_an_event_that_was_too_old_for_the_record(
    world: World, customer: Customer
) -> None:
    older = rename(world, customer, "Older")
    newest = rename(world, customer)
    for stripe_id in (newest, older):
        StripeEvent.apply(stripe_id)
    assert [called for called, _ in custom_handlers.called] == [newest, older]
    assert custom_handlers.seen == ["Newest", "Newest"]


@pytest.mark.parametrize("handlers", [{}, {"customer.deleted": NOTE}, {"invoice.*": NOTE}])
def test_a_handler_of_another_type_is_not_called(world: World, customer: Customer) -> None:
    StripeEvent.apply(rename(world, customer))
    assert custom_handlers.called == []


@pytest.mark.parametrize("handlers", [{"*": NOTE}, {"customer.*": NOTE}, {"customer.up*": NOTE}])
def test_a_pattern_stands_for_types(world: World, customer: Customer) -> None:
    StripeEvent.apply(rename(world, customer))
    assert len(custom_handlers.called) == 1


@pytest.mark.parametrize("handlers", [{"customer.updated": NOTE, "customer.*": NOTE_TOO}])
def test_all_handlers_that_fit_are_called(world: World, customer: Customer) -> None:
    StripeEvent.apply(rename(world, customer))
    assert len(custom_handlers.called) == 2


def test_a_handler_that_raises_is_called_again_later(world: World, customer: Customer) -> None:
    custom_handlers.raising += [KeyError("jane@example.com"), ValueError()]
    stripe_id = rename(world, customer)
    for number, error in enumerate(["KeyError", "ValueError"]):
        assert world.stream((f"EVENT#{stripe_id}", "EVENT")) == {"batchItemFailures": []}
        event = Event.find(stripe_id)
        assert (event.state, event.attempts) == ("pending", number + 1)
        assert event.last_error == error
        world.time = event.next_try
    assert StripeCustomer.get(USER).name == "Newest"

    world.reconcile()

    assert ended(stripe_id) == ("applied", None)
    assert len(custom_handlers.called) == 3


def test_a_handler_that_raises_puts_off_its_own_event_alone(
    world: World, customer: Customer
) -> None:
    first, second = rename(world, customer, "One"), rename(world, customer, "Two")
    custom_handlers.raising.append(KeyError())
    world.stream((f"EVENT#{first}", "EVENT"), (f"EVENT#{second}", "EVENT"))
    assert sorted([str(ended(first)[0]), str(ended(second)[0])]) == ["applied", "pending"]
    assert StripeCustomer.get(USER).name == "Two"


def test_a_process_that_dies_after_the_handler_calls_it_again(
    world: World, customer: Customer
) -> None:
    stripe_id = rename(world, customer)

    def die() -> None:
        raise KeyboardInterrupt

    custom_handlers.meanwhile.append(die)
    with use(world.new_context()), pytest.raises(KeyboardInterrupt):
        StripeEvent.apply(stripe_id)
    assert ended(stripe_id) == ("pending", None)
    world.time += 200
    world.reconcile()
    assert custom_handlers.called == [(stripe_id, "u-1")] * 2
    assert ended(stripe_id) == ("applied", None)


@pytest.mark.parametrize(
    "handlers",
    [
        {"customer.updated": "there_is_no_such_module:note"},
        {"customer.updated": "tests.stripe_integrations.actions.events.custom_handlers:nothing"},
        {"customer.updated": "not a reference"},
        {"customer.updated": ""},
    ],
)
def test_a_handler_that_is_not_there_puts_the_event_off_and_says_so(
    world: World, customer: Customer, log: Any
) -> None:
    stripe_id = rename(world, customer)
    assert world.stream((f"EVENT#{stripe_id}", "EVENT")) == {"batchItemFailures": []}
    event = Event.find(stripe_id)
    assert (event.state, event.last_error) == ("pending", "EventHandlerNotFoundError")
    assert "there is no event handler" in log.getvalue()
    assert StripeCustomer.get(USER).name == "Newest"


def test_a_handler_is_not_called_for_an_event_of_the_other_mode(
    world: World, customer: Customer
) -> None:
    rename(world, customer)
    StripeEvent.receive({**world.payload("customer.updated"), "id": "evt_live", "livemode": True})
    StripeEvent.apply("evt_live")
    world.replay({"event_id": "evt_live"})
    assert custom_handlers.called == []


def test_a_handler_of_an_event_whose_customer_stays_unknown_is_called_without_one(
    world: World,
) -> None:
    world.ask("POST", "/v1/customers", {"email": EMAIL})
    payload = world.payload("customer.created")
    unknown = {**payload, "type": "customer.updated"}
    StripeEvent.receive(unknown)
    StripeEvent.apply(unknown["id"])
    assert custom_handlers.called == []

    world.time += 86_500
    world.reconcile()

    assert custom_handlers.called == [(unknown["id"], None)]
    assert ended(unknown["id"]) == ("applied", "not a customer of ours")


def test_apply_says_that_a_handler_has_failed(world: World, customer: Customer) -> None:
    custom_handlers.raising.append(KeyError("jane@example.com"))
    with pytest.raises(SideEffectFailedError):
        StripeEvent.apply(rename(world, customer))


def test_an_effect_is_not_brought_about_again_for_a_handler_that_failed(
    world: World, customer: Customer
) -> None:
    custom_handlers.raising.append(ValueError())
    stripe_id = rename(world, customer)
    world.stream((f"EVENT#{stripe_id}", "EVENT"))
    world.time = Event.find(stripe_id).next_try
    with world.counting() as counts:
        world.stream((f"EVENT#{stripe_id}", "EVENT"))
    assert (counts.stripe, "TransactWriteItems" in counts.operations) == (0, False)
    assert len(custom_handlers.called) == 2
    assert ended(stripe_id) == ("applied", None)


@pytest.mark.parametrize(
    "raised",
    [
        SystemExit("jane@example.com"),
        GeneratorExit("jane@example.com"),
        asyncio.CancelledError("jane@example.com"),
        BaseExceptionGroup("jane@example.com", [GeneratorExit()]),
        ConflictError("jane@example.com"),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_whatever_a_handler_raises_its_event_is_put_off_and_its_message_kept_out_of_the_log(
    world: World, customer: Customer, log: io.StringIO, raised: BaseException
) -> None:
    custom_handlers.raising.append(raised)
    stripe_id = rename(world, customer)
    with pytest.raises(SideEffectFailedError):
        StripeEvent.apply(stripe_id)
    assert ended(stripe_id) == ("pending", None)
    assert type(raised).__name__ in log.getvalue()
    assert "jane" not in log.getvalue()
