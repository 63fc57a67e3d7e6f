"""The product's sizes, smaller than they are: what takes hundreds of records happens with a few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

_PLACES = {
    "page of Stripe's lists": ("stripe_integrations.adapters.stripe_gateway._PAGE", (1, 2, 3)),
    "room in a transaction": ("stripe_integrations.models.customer._ROOM_ITEMS", (1, 2, 3)),
    "group of events": ("stripe_integrations.actions.events.apply.MAX_EXTRA_ITEMS", (1, 2, 3)),
    "events grouped at once": ("stripe_integrations.actions.events.reconcile._AT_ONCE", (2, 3)),
    "items scanned at once": ("stripe_integrations.models.event._SCANNED", (2, 5)),
}
_NESTED = "entries of a nested list"
"""Stripe's own size: a customer with its sources, a subscription with its items."""

Sizes = Mapping[str, int]
"""What is made small, to how small it is made."""


def draw_sizes(random: Random) -> dict[str, int]:
    """Some of the sizes, made small."""
    choices = {**{name: sizes for name, (_, sizes) in _PLACES.items()}, _NESTED: (1, 2)}
    return {name: random.choice(sizes) for name, sizes in choices.items() if random.random() < 0.6}


@contextmanager
def sized(sizes: Sizes) -> Iterator[None]:
    """Let sizes count inside of the block."""
    with ExitStack() as stack:
        for name, size in sizes.items():
            if name == _NESTED:
                first_page = "local.stripe_double.listing.first_page.__defaults__"
                stack.enter_context(patch(first_page, (size,)))
            else:
                stack.enter_context(patch(_PLACES[name][0], size))
        yield
