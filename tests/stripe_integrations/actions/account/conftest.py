"""What the tests of mappings and of erasures share: a deployment that stores every customer."""

from __future__ import annotations

import math

import pytest

from stripe_integrations.config import UnassignedCustomers
from tests.stripe_integrations.actions.account.helpers import lose_events, make
from tests.world import World


@pytest.fixture
def stores_unassigned(world: World) -> None:
    """Unassigned customers are stored, a sweep was completed, and the time is unlimited."""
    world.reconcile()
    world.context.deadline = math.inf
    world.configure(unassigned_customers=UnassignedCustomers.STORE)


@pytest.fixture
def existing(world: World, stores_unassigned: None) -> str:
    """A customer that exists on Stripe alone, with a card and a subscription."""
    stripe_id = make(world, name="Jane")
    world.attach_card(stripe_id)
    world.subscribe(stripe_id)
    lose_events(world)
    world.time += 3600
    return stripe_id
