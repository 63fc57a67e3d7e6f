"""Background threads that POST the double's webhook deliveries."""

from __future__ import annotations

import http.client
import queue
import threading
from urllib.parse import urlsplit

from .double import StripeDouble
from .webhooks import Delivery

_WORKERS = 8
_IDLE_SECONDS = 60.0


class Deliverer:
    """One thread that collects due deliveries, and several that POST them.

    Parameters
    ----------
    double
        The double with the queue of deliveries.
    changed
        The lock of the double; it is notified of every change.
    timeout
        Seconds that an endpoint has to respond.
    """

    def __init__(
        self, double: StripeDouble, changed: threading.Condition, timeout: float = 30.0
    ) -> None:
        self._double = double
        self._changed = changed
        self._timeout = timeout
        self._in_progress: set[int] = set()
        self._stopping = False
        self._queue: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._watch = threading.Thread(target=self._run, name="deliverer", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._watch.start()
        for number in range(_WORKERS):
            threading.Thread(target=self._work, name=f"delivery-{number}", daemon=True).start()

    def stop(self) -> None:
        """Start no more deliveries; does not wait for those in progress."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._watch.join()
        for _ in range(_WORKERS):
            self._queue.put(None)

    def wait(self, timeout: float) -> int:
        """Wait until everything is delivered; returns the number of pending deliveries."""
        webhooks = self._double.webhooks
        with self._changed:
            self._changed.wait_for(lambda: webhooks.pending_count() == 0 or self._stopping, timeout)
            return webhooks.pending_count()

    def _run(self) -> None:
        with self._changed:
            while not self._stopping:
                free = _WORKERS - len(self._in_progress)
                for delivery in self._double.webhooks.due(free, exclude=self._in_progress):
                    self._in_progress.add(delivery.number)
                    self._queue.put(delivery)
                self._changed.wait(self._pause())

    def _pause(self) -> float:
        if len(self._in_progress) == _WORKERS:
            return _IDLE_SECONDS
        due = self._double.webhooks.next_due(exclude=self._in_progress)
        if due is None:
            return _IDLE_SECONDS
        return max(0.0, min(due - self._double.account.clock(), _IDLE_SECONDS))

    def _work(self) -> None:
        while (delivery := self._queue.get()) is not None and not self._stopping:
            status = post(self._double.webhooks.address_of(delivery.url), delivery, self._timeout)
            with self._changed:
                self._double.webhooks.mark(delivery, status)
                self._in_progress.discard(delivery.number)
                self._changed.notify_all()


def post(url: str, delivery: Delivery, timeout: float) -> int:
    """POST a delivery to an address; returns the HTTP status, or 0 if there was no response."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request("POST", target, delivery.body, delivery.headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
