"""The lease of a customer's fetch, which one worker with its events has at a time.

Stripe reports a change by several events at once, and the stream's batches with them run at the
same time. Each would fetch the customer, and all but one would fetch it again after a conflict. So
a worker counts a request on the record first. A fetch that is sent after a request was counted
includes the changes that this worker's events report, so the worker need not fetch.

That holds without a clock. Only how long a worker waits for another's fetch depends on one, and a
worker that has waited long enough fetches without the lease.
"""

from __future__ import annotations

from stripe_integrations.errors import StaleRecordError
from stripe_integrations.models import Customer

_MAX_WAITS = 5
"""Two to three seconds, with the pauses of `retry_on_conflict`."""


class FetchLease:
    """The lease of one worker, for events of one customer that are stored already."""

    def __init__(self) -> None:
        self._request: int | None = None
        self._is_held = False
        self._waits = 0

    def is_served(self, customer: Customer) -> bool:
        """Return whether a record has a state that was fetched after this worker's request."""
        return self._request is not None and customer.has_served(self._request)

    def acquire(self, customer: Customer) -> None:
        """Acquire the lease, or wait for the fetch of the worker that holds it.

        Parameters
        ----------
        customer : Customer
            The record as it was read.

        Raises
        ------
        StaleRecordError
            Another worker holds the lease, or has changed the record: wait, and read it again.
        """
        if self._is_held or self._waits >= _MAX_WAITS:
            return
        is_free = not customer.is_being_fetched
        self._is_held = is_free and customer.request_fetch(acquires_lease=True)
        if self._request is None:
            if not self._is_held and not customer.request_fetch(acquires_lease=False):
                raise StaleRecordError("the record was deleted, soft-deleted or replaced")
            self._request = customer.fetch_requests
        if not self._is_held:
            self._waits += not is_free
            raise StaleRecordError("another worker is fetching the customer, or has changed it")
