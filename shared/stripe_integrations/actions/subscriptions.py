"""Subscriptions, in the shape that Stripe gives today and in the one before 2025-03-31."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stripe_integrations.models import Subscription
from stripe_integrations.models.fields import read_stripe, whole_number
from stripe_integrations.models.observation import Observation

Json = Mapping[str, Any]


def subscriptions_from_stripe(
    user_id: str, customer_id: str, subscriptions: Iterable[Json], observation: Observation
) -> list[Subscription]:
    """The records of Stripe's subscriptions.

    Today's subscription has its period and quantity on its items and its discounts in a list;
    the older one has them on itself, and one discount.

    Parameters
    ----------
    user_id, customer_id : str
        Whose they are.
    subscriptions : iterable of mapping
        Stripe's subscriptions, each with all of its items.
    observation : Observation
        When Stripe said so.

    Returns
    -------
    list of Subscription
    """
    return [
        Subscription.under(user_id, customer_id, _values(subscription), observation)
        for subscription in subscriptions
    ]


def _values(subscription: Json) -> dict[str, Any]:
    values = read_stripe(Subscription, "subscription", subscription)
    items = [item for item in values["items"] or [] if isinstance(item, Mapping)]
    if values["current_period_start"] is None:
        values["current_period_start"] = _extreme(min, items, "current_period_start")
    if values["current_period_end"] is None:
        values["current_period_end"] = _extreme(max, items, "current_period_end")
    if values["quantity"] is None and len(items) == 1:
        values["quantity"] = whole_number(items[0].get("quantity"))
    if values["discounts"] is None and subscription.get("discount"):
        values["discounts"] = [subscription["discount"]]
    return values


def _extreme(choose: Callable[[list[int]], int], items: Iterable[Json], name: str) -> int | None:
    times = [time for item in items if (time := whole_number(item.get(name))) is not None]
    return choose(times) if times else None
