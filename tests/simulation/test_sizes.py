from __future__ import annotations

import random

import pytest

from local.stripe_double import listing
from simulation.sizes import draw_sizes, sized
from stripe_integrations.actions import application, reconciliation
from stripe_integrations.adapters import stripe_gateway
from stripe_integrations.models import customer, event


def standing() -> tuple[object, ...]:
    return (
        stripe_gateway._PAGE,
        customer._ROOM_ITEMS,
        vars(application)["MAX_EXTRA_ITEMS"],
        reconciliation._AT_ONCE,
        event._SCANNED,
        listing.first_page([{}] * 3, "")["has_more"],
    )


def test_sizes_count_inside_of_the_block_and_stand_as_before_after_it() -> None:
    every = {name: 2 for seed in range(50) for name in draw_sizes(random.Random(seed))}
    usual = standing()
    with sized(every):
        assert standing() == (2, 2, 2, 2, 2, True)
    assert standing() == usual

    with pytest.raises(ZeroDivisionError), sized(every):
        _ = 1 / 0
    assert standing() == usual
