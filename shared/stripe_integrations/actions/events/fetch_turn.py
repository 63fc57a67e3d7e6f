"""The turn to fetch a customer, which one worker has at a time.

Stripe reports a change by several events at once, and the stream's batches with them run at the
same time. Each would fetch the customer, and all but one would fetch it again after a conflict. So
a worker counts a request on the record first. A fetch that is sent after a request was counted
includes what the events report that the worker has: it is served, and need not fetch.

That holds without a clock. Only how long a worker waits for another's fetch depends on one, and a
worker that has waited enough fetches without the turn.
"""

from __future__ import annotations

from stripe_integrations.errors import StaleRecordError
from stripe_integrations.models import Customer

_MAX_WAITS = 5
"""Some three seconds, with the pauses of `retry_on_conflict`."""


class FetchTurn:
    """The turn of one worker, for a batch of events that it has already read."""

    def __init__(self) -> None:
        self._request: int | None = None
        self._is_taken = False
        self._waits = 0

    def is_served(self, customer: Customer) -> bool:
        """Return whether a record has a state that was fetched after this worker's request."""
        served = customer.fetch_requests_served or 0
        return self._request is not None and served >= self._request and customer.is_listed

    def take(self, customer: Customer) -> None:
        """Take the turn, or wait for the fetch of another worker.

        Parameters
        ----------
        customer : Customer
            The record as it was read.

        Raises
        ------
        StaleRecordError
            Another worker has the turn, or has changed the record: wait, and read it again.
        """
        if self._is_taken or self._waits >= _MAX_WAITS:
            return
        self._is_taken = customer.request_fetch(takes_turn=True)
        if self._request is None:
            if not self._is_taken and not customer.request_fetch(takes_turn=False):
                raise StaleRecordError("the customer was released")
            self._request = customer.fetch_requests
        if not self._is_taken:
            self._waits += 1
            raise StaleRecordError("another worker fetches the customer")
