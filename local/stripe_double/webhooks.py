"""Webhook endpoints and the queue of deliveries, which a transport pulls."""

from __future__ import annotations

import hashlib
import hmac
import json
import random as random_module
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Protocol

from .errors import Json
from .versions import in_version

_MAX_BACKOFF = 12 * 3600.0
_MAX_AGE = 3 * 24 * 3600.0


def sign(payload: bytes, secrets: str | Iterable[str], timestamp: float) -> str:
    """Return the ``Stripe-Signature`` header of a payload, with one ``v1`` for each secret.

    Follows https://docs.stripe.com/webhooks/signature: HMAC-SHA256 over ``t.payload``.

    Parameters
    ----------
    payload
        The body, exactly as it is sent.
    secrets
        One signing secret (``whsec_…``), or several during a rotation.
    timestamp
        Unix time in seconds, rounded down.

    Example
    -------
    >>> sign(b"{}", "whsec_double", 1)[:7]
    't=1,v1='
    """
    moment = int(timestamp)
    signed = f"{moment}.".encode() + payload
    names = [secrets] if isinstance(secrets, str) else secrets
    signatures = [hmac.new(s.encode(), signed, hashlib.sha256).hexdigest() for s in names]
    return ",".join([f"t={moment}", *(f"v1={signature}" for signature in signatures)])


@dataclass
class WebhookEndpoint:
    """A webhook endpoint: URL, signing secrets (the current one first), enabled event types."""

    id: str
    url: str
    secrets: list[str]
    enabled_events: list[str]
    api_version: str | None = None
    created: int = 0
    description: str | None = None
    metadata: Json = field(default_factory=dict)
    is_disabled: bool = False

    def is_enabled_for(self, event_type: str) -> bool:
        """Return whether events of a type are sent here."""
        return not self.is_disabled and any(
            fnmatchcase(event_type, pattern) for pattern in self.enabled_events
        )


@dataclass
class _Pending:
    number: int
    event: Json
    endpoint: WebhookEndpoint
    due: float
    first: float
    position: tuple[float, int]
    failures: int = 0


class Delivery:
    """One attempt to deliver an event to an endpoint.

    Attributes
    ----------
    number
        The number of the delivery, the same for all its attempts.
    event_id, event_type, url
        The event and the URL of the endpoint.
    attempt
        The number of the attempt, from 1.
    body, headers
        The request: pretty-printed JSON and Stripe's headers with the signature.
    """

    def __init__(self, pending: _Pending, timestamp: float, pending_webhooks: int) -> None:
        self.number = pending.number
        self.event_id = str(pending.event["id"])
        self.event_type = str(pending.event["type"])
        self.endpoint_id = pending.endpoint.id
        self.url = pending.endpoint.url
        self.attempt = pending.failures + 1
        self._event = pending.event
        self._endpoint = pending.endpoint
        self._timestamp = timestamp
        self._pending_webhooks = pending_webhooks

    def __repr__(self) -> str:
        """Return event, URL and attempt."""
        return f"<Delivery {self.event_type} {self.event_id} to {self.url}, {self.attempt}>"

    @cached_property
    def body(self) -> bytes:
        """The event as Stripe sends it, in the endpoint's API version."""
        event = in_version(self._event, self._endpoint.api_version or self._event["api_version"])
        event["pending_webhooks"] = self._pending_webhooks
        return json.dumps(event, indent=2, ensure_ascii=False).encode()

    @cached_property
    def headers(self) -> dict[str, str]:
        """Stripe's headers, signed at the time when the delivery was pulled."""
        return {
            "Accept": "*/*; q=0.5, application/xml",
            "Cache-Control": "no-cache",
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": sign(self.body, self._endpoint.secrets, self._timestamp),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }


@dataclass
class _DeliveryFault:
    event_type: str
    times: int

    def applies(self, event_type: str) -> bool:
        if self.times <= 0 or not fnmatchcase(event_type, self.event_type):
            return False
        self.times -= 1
        return True


class EventSource(Protocol):
    """What deliveries need of the account whose events they carry."""

    clock: Callable[[], float]
    random: random_module.Random
    events: dict[str, Json]

    def new_id(self, prefix: str) -> str:
        """Return a fresh id."""


@dataclass
class Webhooks:
    """The queue of deliveries: at least once, retried with increasing pauses, in any order.

    Attributes
    ----------
    first_backoff, backoff_factor, max_backoff, max_age
        Seconds before the first retry, factor and maximum of later pauses, and the age in seconds
        after which a delivery is dropped (three days on Stripe).
    log
        One entry for each attempt: event id, type, endpoint, attempt, status.
    address_of
        Returns the address to which deliveries to a URL are sent: a local AWS is in no DNS.
    """

    account: EventSource
    first_backoff: float = 60.0
    backoff_factor: float = 2.0
    max_backoff: float = _MAX_BACKOFF
    max_age: float = _MAX_AGE
    endpoints: dict[str, WebhookEndpoint] = field(default_factory=dict)
    log: list[Json] = field(default_factory=list)
    held: bool = False
    address_of: Callable[[str], str] = str

    def __post_init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._open: Counter[str] = Counter()
        self._number = 0
        self._drops: list[_DeliveryFault] = []
        self._duplicates: list[_DeliveryFault] = []

    def add_endpoint(
        self,
        url: str,
        secret: str | Sequence[str],
        enabled_events: Sequence[str] = ("*",),
        api_version: str | None = None,
    ) -> WebhookEndpoint:
        """Register an endpoint for all later events.

        Parameters
        ----------
        url
            The URL to which deliveries are POSTed.
        secret
            The signing secret, or several, the current one first.
        enabled_events
            Event types, with ``*`` as a wildcard.
        api_version
            The API version of its events; the account's by default.
        """
        secrets = [secret] if isinstance(secret, str) else list(secret)
        identifier = self.account.new_id("we")
        endpoint = WebhookEndpoint(identifier, url, secrets, list(enabled_events), api_version)
        self.endpoints[identifier] = endpoint
        return endpoint

    def remove_endpoint(self, identifier: str) -> None:
        """Remove an endpoint and its pending deliveries."""
        del self.endpoints[identifier]
        for pending in [p for p in self._pending.values() if p.endpoint.id == identifier]:
            self._close(pending)

    def enqueue(self, event: Json) -> None:
        """Queue an event for each endpoint that is enabled for its type."""
        if any(drop.applies(event["type"]) for drop in self._drops):
            return
        copies = 1 + any(twice.applies(event["type"]) for twice in self._duplicates)
        for endpoint in self.endpoints.values():
            if endpoint.is_enabled_for(event["type"]):
                for _ in range(copies):
                    self._add(event, endpoint)

    def resend(self, event_id: str) -> None:
        """Queue an event again, as the dashboard's Resend does."""
        for endpoint in self.endpoints.values():
            self._add(self.account.events[event_id], endpoint)

    def due(self, limit: int | None = None, *, exclude: Collection[int] = ()) -> list[Delivery]:
        """Return the deliveries that are due, signed now, oldest first.

        Parameters
        ----------
        limit
            The maximum number; by default all.
        exclude
            Numbers of deliveries that are in progress.
        """
        if self.held or limit == 0:
            return []
        now = self.account.clock()
        waiting = (
            pending
            for pending in self._pending.values()
            if pending.due <= now and pending.number not in exclude
        )
        due = sorted(waiting, key=lambda pending: pending.position)[:limit]
        return [Delivery(pending, now, self._open[pending.event["id"]]) for pending in due]

    def next_due(self, exclude: Collection[int] = ()) -> float | None:
        """Return the time when the next delivery is due; None if there is none or all are held.

        Parameters
        ----------
        exclude
            Numbers of deliveries that are in progress.
        """
        if self.held:
            return None
        waiting = (p.due for p in self._pending.values() if p.number not in exclude)
        return min(waiting, default=None)

    def mark(self, delivery: Delivery, status: int) -> None:
        """Record the endpoint's response: 2xx ends the delivery, anything else schedules a retry.

        Parameters
        ----------
        delivery
            The delivery that `due` returned.
        status
            HTTP status of the response, or 0 if there was none.
        """
        self.log.append(
            {
                "event": delivery.event_id,
                "type": delivery.event_type,
                "endpoint": delivery.endpoint_id,
                "attempt": delivery.attempt,
                "status": status,
            }
        )
        pending = self._pending.get(delivery.number)
        if pending is None:
            return
        now = self.account.clock()
        backoff = min(self.first_backoff * self.backoff_factor**pending.failures, self.max_backoff)
        if 200 <= status < 300 or now + backoff > pending.first + self.max_age:
            self._close(pending)
            return
        pending.failures += 1
        pending.due = now + backoff
        pending.position = (pending.due, pending.number)

    def pending_count(self, event_id: str | None = None) -> int:
        """Return the number of pending deliveries, of one event or of all."""
        return len(self._pending) if event_id is None else self._open[event_id]

    def drop_next(self, times: int = 1, event_type: str = "*") -> None:
        """Lose the next events of a type: they are listed but never delivered."""
        self._drops.append(_DeliveryFault(event_type, times))

    def duplicate_next(self, times: int = 1, event_type: str = "*") -> None:
        """Deliver the next events of a type twice."""
        self._duplicates.append(_DeliveryFault(event_type, times))

    def hold(self) -> None:
        """Stop all deliveries until `release`."""
        self.held = True

    def release(self, order: str = "created") -> None:
        """Resume deliveries; pending ones are ``created``, ``reversed`` or ``random`` in order."""
        self.held = False
        if order == "created":
            return
        waiting = sorted(self._pending.values(), key=lambda pending: pending.position)
        positions = [pending.position for pending in waiting]
        if order == "random":
            self.account.random.shuffle(waiting)
        else:
            waiting.reverse()
        for pending, position in zip(waiting, positions, strict=True):
            pending.position = position

    def _add(self, event: Json, endpoint: WebhookEndpoint) -> None:
        self._number += 1
        now = self.account.clock()
        position = (now, self._number)
        self._pending[self._number] = _Pending(self._number, event, endpoint, now, now, position)
        self._open[event["id"]] += 1

    def _close(self, pending: _Pending) -> None:
        del self._pending[pending.number]
        self._open[pending.event["id"]] -= 1
