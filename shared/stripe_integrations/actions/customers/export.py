"""Exporting a user: everything that is stored, item by item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stripe_integrations.models import UserRecords, event_queue
from stripe_integrations.models.export import events, items_of_partition
from stripe_integrations.models.keys import stripe_key, user_key


def export_user(user_id: str) -> Iterator[dict[str, Any]]:
    """Yield every item of a user: see `StripeCustomer.export`."""
    records = UserRecords.read(user_id)
    customers = {each: records.payment_method_ids(each) for each in sorted(records.customer_ids)}
    yield from items_of_partition(user_key(user_id))
    for customer_id, payment_methods in customers.items():
        for stripe_id in (customer_id, *payment_methods):
            yield from items_of_partition(stripe_key(stripe_id))
    yield from events(event_queue.ids_of_customers(customers))
