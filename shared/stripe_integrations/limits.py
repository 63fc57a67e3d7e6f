"""Time limits, in seconds: clock skew, and what work needs before an invocation ends."""

CLOCK_SKEW_SECONDS = 5
"""The most that any two clocks differ, Stripe's and ours included."""

CREATED_LOOKUP_MARGIN_SECONDS = 300
"""How much earlier than its claim a customer's `created` may be: listing more is harmless."""

SIDE_EFFECTS_SECONDS = 12
"""Time that the side effects and the mark of one event need."""
APPLY_SECONDS = 30
"""Time that a batch of events needs: the wait for another worker's fetch, a fetch, and a write."""
EVENTS_PAGE_SECONDS = 45
"""Time that a page of events needs, in a sweep or a replay."""
ERASE_SECONDS = 20
"""Time that the erasure of one more customer, or of a hundred events, needs."""
WALK_PAGE_SECONDS = 240
"""Time that a page of a walk needs: up to 100 customers, whose payment methods take a call each."""
