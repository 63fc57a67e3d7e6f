from __future__ import annotations

import random

import pytest

from local.stripe_double import listing
from simulation.sizes import draw_sizes, sized
from stripe_integrations.actions.events import apply, reconcile
from stripe_integrations.adapters import stripe_gateway
from stripe_integrations.models import customer, event_queue


def limits() -> tuple[object, ...]:
    return (
        stripe_gateway._PAGE,
        customer._ROOM_ITEMS,
        vars(apply)["MAX_EXTRA_ITEMS"],
        reconcile._BATCH_EVENTS,
        vars(reconcile)["MAX_EVENT_TYPES"],
        event_queue._PAGE_ITEMS,
        listing.first_page([{}] * 3, "")["has_more"],
    )


class TestSized:
    def test_reduces_limits_inside_of_the_block_alone(self) -> None:
        every = {name: 2 for seed in range(50) for name in draw_sizes(random.Random(seed))}
        usual = limits()
        with sized(every):
            assert limits() == (2, 2, 2, 2, 2, 2, True)
        assert limits() == usual

        with pytest.raises(ZeroDivisionError), sized(every):
            _ = 1 / 0
        assert limits() == usual
