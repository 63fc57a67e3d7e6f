"""Custom handlers: called at least once for each event, after the record was updated."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.context import use
from stripe_integrations.errors import (
    ConflictError,
    SideEffectFailedError,
    StripeUnavailableError,
)
from stripe_integrations.models import Customer
from tests.stripe_changes import rename
from tests.stripe_integrations.actions.events import custom_handlers
from tests.stripe_integrations.actions.events.custom_handlers import NOTE
from tests.world import EMAIL, USER, World, stored_event, stripe_event


@pytest.fixture(autouse=True)
def _handlers(world: World) -> None:
    world.configure(
        event_handlers={"customer.updated": NOTE, "invoice.*": NOTE, "price.created": NOTE}
    )


@pytest.fixture
def stripe_id(world: World, customer: Customer) -> str:
    """An event that is certainly newer than the record, received."""
    world.time += 10
    return rename(world, customer)


def ended(stripe_id: str) -> tuple[str, str | None]:
    event = stored_event(stripe_id)
    return event.state, event.reason


class TestCall:
    def test_is_made_between_update_and_mark(self, world: World, stripe_id: str) -> None:
        states: list[str] = []
        custom_handlers.meanwhile.append(lambda: states.append(ended(stripe_id)[0]))
        StripeEvent.apply(stripe_id)
        assert custom_handlers.called == [(stripe_id, "u-1")]
        assert custom_handlers.seen == ["Newest"]
        assert states == ["pending"]
        assert ended(stripe_id) == ("applied", None)

    @pytest.mark.parametrize(
        ("kind", "user_id"), [("invoice.paid", "u-1"), ("price.created", None)]
    )
    def test_is_made_for_type_that_changes_no_record(
        self, world: World, customer: Customer, kind: str, user_id: str | None
    ) -> None:
        data = {"object": {"customer": customer.stripe_id if user_id else None}}
        assert StripeEvent.receive(stripe_event(kind, data=data)).state == "pending"
        StripeEvent.apply("evt_1")
        assert custom_handlers.called == [("evt_1", user_id)]
        assert ended("evt_1") == ("applied", None)

    def test_is_made_without_customer_that_stays_unknown(self, world: World) -> None:
        world.request("POST", "/v1/customers", {"email": EMAIL})
        unknown = {**world.payload("customer.created"), "type": "customer.updated"}
        StripeEvent.receive(unknown)
        StripeEvent.apply(unknown["id"])
        assert custom_handlers.called == []

        world.time += 86_500
        world.reconcile()

        assert custom_handlers.called == [(unknown["id"], None)]
        assert ended(unknown["id"]) == ("applied", "not a customer of ours")

    def test_is_made_with_soft_deleted_customer(
        self, world: World, customer: Customer, stripe_id: str
    ) -> None:
        StripeCustomer.soft_delete(customer)
        before = world.items(record_type="Customer")
        StripeEvent.apply(stripe_id)
        assert custom_handlers.called == [(stripe_id, "u-1")]
        assert world.items(record_type="Customer") == before
        assert ended(stripe_id) == ("applied", "the customer is soft-deleted")

    def test_is_made_for_older_event(
        self, world: World, customer: Customer, stripe_id: str
    ) -> None:
        world.time += 10
        newer = rename(world, customer, "Newer")
        for applied in (newer, stripe_id):
            StripeEvent.apply(applied)
        assert custom_handlers.called == [(newer, "u-1"), (stripe_id, "u-1")]
        assert custom_handlers.seen == ["Newer", "Newer"]

    def test_is_repeated_with_record_of_user_who_adopted_the_customer_since(
        self, world: World, customer: Customer
    ) -> None:
        """The effect is on the record that was released; the other one has no children yet."""
        world.configure(event_handlers={"payment_method.attached": NOTE})
        world.time += 10
        card = world.attach_card(customer.stripe_id)
        stripe_id = world.receive("payment_method.attached")
        custom_handlers.raising.append(OSError())
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(stripe_id)
        StripeCustomer.release(USER)
        other = User("u-2")
        world.stripe.faults.fail_next(None, match="POST /v1/customers/*", status=503)
        with use(world.new_context()), pytest.raises(StripeUnavailableError):
            StripeCustomer.adopt(other, customer.stripe_id)
        world.stripe.faults.clear()
        cards: list[str] = []
        custom_handlers.meanwhile.append(
            lambda: cards.extend(c.stripe_id for c in StripeCustomer.require(other).cards)
        )
        world.time += 300
        StripeEvent.apply(stripe_id)
        assert custom_handlers.called == [(stripe_id, "u-1"), (stripe_id, "u-2")]
        assert cards == [card]
        assert ended(stripe_id) == ("applied", None)

    def test_is_made_by_replay_for_event_that_had_no_handler(
        self, world: World, customer: Customer
    ) -> None:
        world.configure(event_handlers={})
        data = {"object": {"customer": customer.stripe_id, "id": "in_1"}}
        assert StripeEvent.receive(stripe_event("invoice.paid", data=data)).state == "ignored"
        world.configure(event_handlers={"invoice.paid": NOTE})
        world.replay({"created_from": 0, "created_to": 2**33})
        assert custom_handlers.called == [("evt_1", "u-1")]
        assert ended("evt_1") == ("applied", None)

    def test_is_not_made_for_event_of_other_mode(self, world: World, stripe_id: str) -> None:
        StripeEvent.receive({**world.payload(), "id": "evt_live", "livemode": True})
        StripeEvent.apply("evt_live")
        world.replay({"event_id": "evt_live"})
        assert custom_handlers.called == []

    @pytest.mark.parametrize(
        ("handlers", "calls"),
        [
            ({}, 0),
            ({"customer.deleted": NOTE}, 0),
            ({"invoice.*": NOTE}, 0),
            ({"*": NOTE}, 1),
            ({"customer.*": NOTE}, 1),
            ({"customer.up*": NOTE}, 1),
            ({"customer.updated": NOTE, "customer.*": NOTE}, 2),
        ],
    )
    def test_is_made_for_each_pattern_that_fits(
        self, world: World, stripe_id: str, handlers: dict[str, str], calls: int
    ) -> None:
        world.configure(event_handlers=handlers)
        StripeEvent.apply(stripe_id)
        assert len(custom_handlers.called) == calls


def test_environment_is_set_before_import(
    world: World, stripe_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handler_of_bucket.py").write_text(
        "import os\nBUCKET = os.environ['BUCKET_OF_TEST']\ndef note(*_): print(BUCKET)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BUCKET_OF_TEST", "")
    world.configure(
        event_handlers={"customer.updated": "handler_of_bucket:note"},
        handler_environment={"BUCKET_OF_TEST": "invoices"},
    )
    StripeEvent.apply(stripe_id)
    assert sys.modules.pop("handler_of_bucket").BUCKET == "invoices"
    assert ended(stripe_id) == ("applied", None)


class TestFailure:
    def test_is_retried_without_second_effect(self, world: World, stripe_id: str) -> None:
        custom_handlers.raising += [KeyError("jane@example.com"), ValueError()]
        for number, error in enumerate(["KeyError", "ValueError"]):
            assert world.stream_events(stripe_id) == {"batchItemFailures": []}
            event = stored_event(stripe_id)
            assert (event.state, event.attempts) == ("pending", number + 1)
            assert event.last_error == error
            world.time = event.next_attempt or 0

        with world.counting() as counts:
            world.stream_events(stripe_id)

        assert (counts.stripe, "TransactWriteItems" in counts.operations) == (0, False)
        assert custom_handlers.seen == ["Newest"] * 3
        assert ended(stripe_id) == ("applied", None)
        assert stored_event(stripe_id).last_error is None

    def test_dead_process_calls_again(self, world: World, stripe_id: str) -> None:
        custom_handlers.raising.append(KeyboardInterrupt())
        with use(world.new_context()), pytest.raises(KeyboardInterrupt):
            StripeEvent.apply(stripe_id)
        assert ended(stripe_id) == ("pending", None)
        world.time += 200
        world.reconcile()
        assert custom_handlers.called == [(stripe_id, "u-1")] * 2
        assert ended(stripe_id) == ("applied", None)

    @pytest.mark.parametrize(
        "reference",
        [
            "there_is_no_such_module:note",
            f"{custom_handlers.__name__}:nothing",
            "not a reference",
            "",
        ],
    )
    def test_missing_handler_is_logged_and_retried(
        self, world: World, log: io.StringIO, stripe_id: str, reference: str
    ) -> None:
        world.configure(event_handlers={"customer.updated": reference})
        assert world.stream_events(stripe_id) == {"batchItemFailures": []}
        event = stored_event(stripe_id)
        assert (event.state, event.last_error) == ("pending", "EventHandlerNotFoundError")
        assert "there is no event handler" in log.getvalue()
        assert StripeCustomer.require(USER).name == "Newest"

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
    def test_is_logged_without_message(
        self, world: World, log: io.StringIO, stripe_id: str, raised: BaseException
    ) -> None:
        custom_handlers.raising.append(raised)
        with pytest.raises(SideEffectFailedError):
            StripeEvent.apply(stripe_id)
        assert ended(stripe_id) == ("pending", None)
        assert type(raised).__name__ in log.getvalue()
        assert "jane" not in log.getvalue()
