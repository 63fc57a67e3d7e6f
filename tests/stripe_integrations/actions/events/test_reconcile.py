"""The sweep of Stripe's list of events, which takes few event types a call: chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer
from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.adapters.stripe_gateway import MAX_EVENT_TYPES, StripeGateway
from stripe_integrations.models import Customer, SweepCursor
from stripe_integrations.models.tax_id import TaxId
from tests.world import EMAIL, USER, World

DEFAULT_KINDS = frozenset({"Card", "Subscription"})
MORE_KINDS = DEFAULT_KINDS | {"TaxId"}


class Listing(NamedTuple):
    """A call for a page of Stripe's list of events."""

    types: list[str]
    after: str | None


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[Listing]:
    """The calls for pages of events, from now on."""
    calls: list[Listing] = []
    usual = StripeGateway.list_events

    def list_events(
        gateway: StripeGateway, created_since: int, types: Sequence[str], starting_after: str | None
    ) -> tuple[list[dict[str, Any]], bool]:
        calls.append(Listing(list(types), starting_after))
        return usual(gateway, created_since, types, starting_after)

    monkeypatch.setattr(StripeGateway, "list_events", list_events)
    return calls


@pytest.fixture
def customer(world: World) -> Customer:
    """A customer, all of whose events have been swept; tax ids fill a second chunk of types."""
    world.configure(stored_records=MORE_KINDS)
    customer = StripeCustomer.create(USER, EMAIL)
    world.deliver_and_apply()
    world.reconcile()
    world.time += 1000
    return customer


@contextmanager
def killed_at(world: World, listings: list[Listing], number: int) -> Iterator[None]:
    """Let the process end during the nth call for a page of events."""
    last = len(listings) + number

    def die() -> None:
        if len(listings) == last:
            raise ClientKilledError

    world.during_sleep = die
    try:
        with pytest.raises(ClientKilledError):
            yield
    finally:
        world.during_sleep = lambda: None


def chunks() -> list[list[str]]:
    types = applied_event_types()
    return [list(types[:MAX_EVENT_TYPES]), list(types[MAX_EVENT_TYPES:])]


def lose(world: World, customer: Customer, renames: int = 1) -> None:
    """Let events of each chunk happen whose webhooks never come."""
    world.stripe.webhooks.drop_next(renames + 1)
    for number in range(renames):
        world.rename(customer.stripe_id, f"Name {number}")
    tax_id = {"type": "eu_vat", "value": "DE123456789"}
    world.request("POST", f"/v1/customers/{customer.stripe_id}/tax_ids", tax_id)


class TestChunks:
    def test_default_kinds_fill_one(self, world: World, listings: list[Listing]) -> None:
        world.reconcile()
        assert listings == [Listing(list(applied_event_types()), None)]
        assert len(listings[0].types) == MAX_EVENT_TYPES

    def test_each_lists_as_many_types_as_stripe_takes(
        self, world: World, customer: Customer, listings: list[Listing]
    ) -> None:
        lose(world, customer)
        assert world.reconcile()["recovered"] == 2
        assert listings == [Listing(chunk, None) for chunk in chunks()]
        assert listings[1].types == list(TaxId.EVENTS)
        assert SweepCursor.read().swept_until == world.time

    def test_each_begins_at_its_newest_event(
        self, world: World, customer: Customer, listings: list[Listing]
    ) -> None:
        lose(world, customer, renames=110)
        assert world.reconcile()["recovered"] == 111
        assert [listing.types for listing in listings] == [chunks()[number] for number in (0, 0, 1)]
        assert [listing.after is None for listing in listings] == [True, False, True]


class TestInterruptedChunk:
    def test_is_resumed(self, world: World, customer: Customer, listings: list[Listing]) -> None:
        lose(world, customer)
        began = world.time
        with killed_at(world, listings, 2):
            world.reconcile()
        assert (SweepCursor.read().chunk, SweepCursor.read().swept_until) == (1, began - 1000)
        listings.clear()
        world.time += 300

        assert world.reconcile()["recovered"] == 1

        assert listings == [Listing(chunks()[1], None)]
        assert (SweepCursor.read().chunk, SweepCursor.read().swept_until) == (0, began)

    @pytest.mark.parametrize("kinds", [DEFAULT_KINDS, frozenset({"Card", "TaxId"})])
    def test_of_types_that_are_fewer_now_is_restarted(
        self, world: World, customer: Customer, listings: list[Listing], kinds: frozenset[str]
    ) -> None:
        lose(world, customer)
        with killed_at(world, listings, 2):
            world.reconcile()
        listings.clear()
        world.time += 300
        world.configure(stored_records=kinds)

        world.reconcile()

        assert listings == [Listing(list(applied_event_types()), None)]
        assert SweepCursor.read().chunk == 0
        assert SweepCursor.read().swept_until == world.time

    def test_of_types_that_are_more_now_is_restarted(
        self, world: World, customer: Customer, listings: list[Listing]
    ) -> None:
        world.configure(stored_records=DEFAULT_KINDS)
        lose(world, customer, renames=110)
        with killed_at(world, listings, 2):
            world.reconcile()
        assert SweepCursor.read().after is not None
        listings.clear()
        world.configure(stored_records=MORE_KINDS)

        assert world.reconcile()["recovered"] == 11

        assert listings[0] == Listing(chunks()[0], None)
        assert listings[-1] == Listing(chunks()[1], None)
