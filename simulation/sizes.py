"""Reduced limits of the product: what takes hundreds of records happens with a few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any
from unittest.mock import patch

_LIMITS: Mapping[str, tuple[str, Sequence[Any]]] = {
    "page of Stripe's lists": ("stripe_integrations.adapters.stripe_gateway._PAGE", (1, 2, 3)),
    "room in a transaction": ("stripe_integrations.models.customer._ROOM_ITEMS", (1, 2, 3)),
    "bytes of a child": ("stripe_integrations.models.child.MAX_BYTES", (1500, 3000)),
    "group of events": ("stripe_integrations.actions.events.apply.MAX_EXTRA_ITEMS", (1, 2, 3)),
    "events grouped at once": (
        "stripe_integrations.actions.events.reconcile._BATCH_EVENTS",
        (2, 3),
    ),
    "event types of a list": (
        "stripe_integrations.actions.events.reconcile.MAX_EVENT_TYPES",
        (2, 5),
    ),
    "items scanned at once": ("stripe_integrations.models.event_queue._PAGE_ITEMS", (2, 5)),
    # Stripe's own limit: the sources shown in a customer, the items shown in a subscription.
    "entries of a nested list": (
        "local.stripe_double.listing.first_page.__defaults__",
        ((1,), (2,)),
    ),
}

_WALK_LIMITS = {"rows of a page": ("stripe_integrations.actions.account.mapping._ROWS", 2)}

Sizes = Mapping[str, Any]
"""The reduced limits by name."""
WALK_SIZES: Sizes = {name: size for name, (_, size) in _WALK_LIMITS.items()}
"""Those of histories with runs through the account."""


def draw_sizes(random: Random) -> Sizes:
    """Draw some limits and reduced values for them."""
    return {
        name: random.choice(sizes) for name, (_, sizes) in _LIMITS.items() if random.random() < 0.6
    }


@contextmanager
def sized(sizes: Sizes) -> Iterator[None]:
    """Apply reduced limits within the block."""
    limits = {**_LIMITS, **_WALK_LIMITS}
    with ExitStack() as stack:
        for name, size in sizes.items():
            stack.enter_context(patch(limits[name][0], size))
        yield
