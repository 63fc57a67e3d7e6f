"""Functions as a deployment registers them for types of events."""

from __future__ import annotations

from collections.abc import Callable

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.models import Customer, Event
from tests.world import USER

NOTE = f"{__name__}:note"

called: list[tuple[str, str | None]] = []
"""Event and user of each call."""

seen: list[str | None] = []
"""The name that the record had in the table at each call."""

raising: list[BaseException] = []
"""What the next calls raise."""

meanwhile: list[Callable[[], object]] = []
"""What happens during the next calls."""


def note(event: Event, customer: Customer | None) -> None:
    """Take note of a call."""
    called.append((event.stripe_id, customer.user_id if customer else None))
    record = StripeCustomer.get(USER)
    seen.append(record.name if record else None)
    if meanwhile:
        meanwhile.pop(0)()
    if raising:
        raise raising.pop(0)
