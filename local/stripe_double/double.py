"""The double: one stateful Stripe account behind one method, `StripeDouble.request`."""

from __future__ import annotations

import base64
import binascii
import random as random_module
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import expansion, params, versions
from .account import Account, copy_json
from .cards import Cards
from .catalog import Catalog
from .customers import Customers
from .entitlements import Entitlements
from .errors import ApiError, Json, invalid
from .events import Events
from .faults import Fault, Faults
from .idempotency import IdempotencyKeys, Stored, fingerprint
from .invoices import Invoices
from .listing import first_page
from .payment_methods import PaymentMethods
from .payment_sources import PaymentSources
from .rate_limits import REASON_HEADER, RateLimits, rate_limited
from .routes import Route, routes
from .sources import Sources
from .subscriptions import Subscriptions
from .tax_ids import TaxIds
from .tokens import TestCard
from .webhook_endpoints import WebhookEndpoints
from .webhooks import Webhooks

_LOG_LENGTH = 100_000
_EXPAND = params.list_of(params.string().fixed()).fixed()


@dataclass
class Response:
    """A response, with instructions for the transport.

    Attributes
    ----------
    status, headers, body
        The response of Stripe.
    delay
        Seconds before the response is sent.
    lost
        Whether the response is not sent; the ``stripe`` library then gets ``should_retry``.
    kill
        Whether to kill the caller's process: ``after_response``, once it is sent,
        or ``before_response``.
    """

    status: int
    headers: dict[str, str]
    body: Json
    delay: float = 0.0
    lost: bool = False
    should_retry: bool = True
    kill: str | None = None


@dataclass(frozen=True)
class LoggedRequest:
    """One entry of the request log."""

    method: str
    path: str
    idempotency_key: str | None
    request_id: str
    status: int
    replayed: bool


@dataclass
class _Call:
    method: str
    path: str
    given: Mapping[str, Any]
    headers: dict[str, str]
    request_id: str
    extra: dict[str, str] = field(default_factory=dict)
    replayed: bool = False
    version: str = ""

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def idempotency_key(self) -> str | None:
        return self.headers.get("idempotency-key") if self.method == "POST" else None


class StripeDouble:
    """A Stripe account: stateful and deterministic, without threads, network or sleeps.

    Parameters
    ----------
    now
        The clock, in Unix seconds, for all times, timeouts and retries.
    random
        Source of ids and of shuffling; a seeded one makes every response reproducible.
    livemode
        The mode of the account; it accepts only keys of that mode.
    api_version
        The account's API version, which its events have.

    Attributes
    ----------
    api_keys
        The accepted keys; None accepts every key of the mode by its prefix.
    faults
        The faults of the next requests.
    rate_limits
        The limits of requests per second, none at first, and the numbers of requests.
    webhooks
        Endpoints and the queue of deliveries.
    account, payment_methods, payment_sources, subscriptions, tax_ids, entitlements
        The objects of the account.
    requests
        The request log, newest last.
    bugs
        Unexpected exceptions; each one is raised as well.

    Example
    -------
    >>> double = StripeDouble(now=lambda: 1_800_000_000, random=random_module.Random(1))
    >>> headers = {"Authorization": "Bearer sk_test_double"}
    >>> response = double.request("POST", "/v1/customers", {"name": "Ada"}, headers)
    >>> response.status, response.body["name"]
    (200, 'Ada')
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        random: random_module.Random | None = None,
        livemode: bool = False,
        api_version: str = versions.VERSION,
    ) -> None:
        chance = random or random_module.Random()
        self.account = Account(now, chance, livemode=livemode, api_version=api_version)
        self.api_keys: set[str] | None = None
        self.faults = Faults()
        self.rate_limits = RateLimits()
        self.requests: deque[LoggedRequest] = deque(maxlen=_LOG_LENGTH)
        self.bugs: list[Exception] = []
        self._cards = Cards(self.account)
        self._invoices = Invoices(self.account)
        self._catalog = Catalog(self.account)
        sources = Sources(self.account)
        self.payment_sources = PaymentSources(self.account, self._cards, sources)
        self.payment_methods = PaymentMethods(self.account, self._cards, self.payment_sources)
        self.subscriptions = Subscriptions(
            self.account,
            self._catalog,
            self.payment_sources,
            self.payment_methods,
            self._invoices,
        )
        self.tax_ids = TaxIds(self.account)
        self.entitlements = Entitlements(self.account)
        self._customers = Customers(
            self.account,
            self.payment_sources,
            self.payment_methods,
            self.subscriptions,
            self.entitlements,
        )
        self._keys = IdempotencyKeys()
        table = routes(
            customer=self._customers,
            source=sources,
            payment_source=self.payment_sources,
            payment_method=self.payment_methods,
            sale=self._catalog,
            subscription=self.subscriptions,
            invoice=self._invoices,
            tax_id=self.tax_ids,
            entitlement=self.entitlements,
            event=Events(self.account),
            webhook_endpoint=WebhookEndpoints(self.account),
        )
        self._routes = [(route.pattern, route) for route in table]

    @property
    def webhooks(self) -> Webhooks:
        """The webhook endpoints and the queue of deliveries."""
        return self.account.webhooks

    def request(
        self,
        method: str,
        path: str,
        given: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Carry out one API request.

        Parameters
        ----------
        method, path
            As in HTTP; the path without its query string.
        given
            Parameters as `form.decode` returns them; may contain lists, numbers and booleans.
        headers
            ``Authorization``, ``Idempotency-Key``, ``Stripe-Version``; names are case-insensitive.

        Returns
        -------
        Response
            The response; API errors are responses too.
        """
        lowered = {key.lower(): value for key, value in (headers or {}).items()}
        call = _Call(method.upper(), path, given or {}, lowered, self.account.new_id("req"))
        lost = self.faults.take("lose_request", call.name)
        if lost is not None:
            self._log(call, 0)
            return Response(0, {}, {}, lost=True, should_retry=lost.should_retry)
        delay = self._delay(call)
        try:
            status, body = self._respond(call, delay)
        except ApiError as error:
            status, body = error.status, error.body(call.request_id, self.account.livemode)
        except Exception as bug:
            self.bugs.append(bug)
            raise
        finally:
            self.account.request = {"id": None, "idempotency_key": None}
        self._log(call, status)
        return self._transport(call, Response(status, self._headers(call), body, delay))

    def add_token(self, name: str, card: TestCard) -> None:
        """Add a test token, ``tok_…`` or ``pm_card_…``, for a card with particular fields."""
        self._cards.tokens[name] = card

    def complete_checkout_session(self, customer: str, **fields: Any) -> str:
        """Emit ``checkout.session.completed`` for a customer; returns the event's id.

        Parameters
        ----------
        customer
            The customer of the session.
        fields
            Further fields of the session, for example ``subscription`` or ``metadata``.
        """
        account = self.account
        account.customer(customer)
        session: Json = {
            "id": account.new_id("cs_live" if account.livemode else "cs_test"),
            "object": "checkout.session",
            "client_reference_id": None,
            "created": account.now(),
            "customer": customer,
            "livemode": account.livemode,
            "metadata": {},
            "mode": "subscription",
            "payment_status": "paid",
            "status": "complete",
            "subscription": None,
            **fields,
        }
        return account.emit("checkout.session.completed", session)

    def change_customer(self, customer: str, **fields: Any) -> Json:
        """Set fields that no API request sets, for example ``delinquent`` or ``currency``."""
        found = self.account.customer(customer)
        before = copy_json(found)
        found.update(fields)
        self.account.index_email(found)
        self.account.emit_change("customer.updated", before, found)
        changed: Json = copy_json(found)
        return changed

    def customers_by_metadata(self, key: str) -> Counter[str]:
        """Count the customers by the value of a metadata key; deleted ones don't count."""
        return Counter(
            customer["metadata"][key]
            for identifier, customer in self.account.customers.items()
            if identifier not in self.account.deleted_customers and key in customer["metadata"]
        )

    def _respond(self, call: _Call, delay: float) -> tuple[int, Json]:
        refusal = self.faults.take("refuse", call.name)
        if refusal is not None and refusal.error is not None:
            call.extra.update(refusal.headers)
            raise refusal.error
        self._authenticate(call)
        call.version = versions.check(call.headers.get("stripe-version", self.account.api_version))
        route, ids = self._find(call)
        reason = self.rate_limits.check(route.endpoint, self.account.clock())
        if reason is not None:
            call.extra[REASON_HEADER] = reason
            raise rate_limited()
        key = call.idempotency_key
        if key is None:
            return self._execute(call, route, ids)
        request = fingerprint(call.method, call.path, dict(call.given))
        now = self.account.clock()
        stored = self._keys.find(key, request, now)
        if stored is not None:
            call.replayed = True
            call.extra["Original-Request"] = stored.request_id
            replayed: Json = copy_json(stored.body)
            return stored.status, replayed
        try:
            status, body = self._execute(call, route, ids)
            is_stored = True
        except ApiError as error:
            status, body = error.status, error.body(call.request_id, self.account.livemode)
            is_stored = error.status == 402
        except _FailureError as failure:
            status = failure.error.status
            body = failure.error.body(call.request_id, self.account.livemode)
            is_stored = failure.stored
        if is_stored:
            available_at = now + delay
            self._keys.store(key, Stored(request, now, available_at, call.request_id, status, body))
        return status, body

    def _execute(self, call: _Call, route: Route, ids: dict[str, str]) -> tuple[int, Json]:
        given = dict(call.given)
        expand = []
        if "expand" in given:
            expand = params.read({"expand": _EXPAND}, {"expand": given.pop("expand")})["expand"]
        parsed = params.read(route.params, given)
        expansion.check(route.shape, expand)
        self.account.request = {"id": call.request_id, "idempotency_key": call.idempotency_key}
        fault = self.faults.take("fail", call.name)
        if fault is not None and not fault.takes_effect:
            raise self._failure(call, fault)
        body = route.handler(parsed, **ids)
        if fault is not None:
            raise self._failure(call, fault)
        expansion.apply(body, route.shape, expand, self._fetch)
        return 200, versions.in_version(body, call.version)

    def _failure(self, call: _Call, fault: Fault) -> Exception:
        call.extra.update(fault.headers)
        error = fault.error or ApiError(500, "api_error", "A fault was requested.")
        return _FailureError(error, fault.stored) if call.idempotency_key else error

    def _fetch(self, shape: str, identifier: str) -> Json | None:
        if shape == "list payment_source":
            return first_page(
                self.payment_sources.newest_first(identifier),
                f"/v1/customers/{identifier}/sources",
            )
        if shape == "list subscription":
            return first_page(
                self.subscriptions.current(identifier),
                f"/v1/customers/{identifier}/subscriptions",
            )
        if shape == "customer":
            return self._customers.retrieve({}, identifier)
        account = self.account
        found: Json | None
        if shape == "payment_source":
            found = self.payment_sources.get(identifier)
        elif shape == "payment_method":
            found = self.payment_methods.get(identifier)
        else:
            objects = {
                "entitlements.feature": account.features,
                "invoice": account.invoices,
                "product": account.products,
            }
            found = objects[shape][identifier]
        copied: Json | None = copy_json(found)
        return copied

    def _authenticate(self, call: _Call) -> None:
        key = _api_key(call.headers.get("authorization", ""))
        if not key:
            message = "No API key was provided: send it as 'Authorization: Bearer <key>'."
            raise ApiError(401, "invalid_request_error", message)
        mode = "live" if self.account.livemode else "test"
        if self.api_keys is None:
            known = re.fullmatch(rf"(sk|rk)_{mode}_\w+", key) is not None
        else:
            known = key in self.api_keys
        if not known:
            message = f"Invalid API key: {key[:8]}{'*' * 8}{key[-4:] if len(key) > 16 else ''}"
            raise ApiError(401, "invalid_request_error", message)

    def _find(self, call: _Call) -> tuple[Route, dict[str, str]]:
        for pattern, route in self._routes:
            match = pattern.fullmatch(call.path)
            if match is not None and route.method == call.method:
                return route, match.groupdict()
        message = f"Unrecognized request URL ({call.method}: {call.path})."
        raise ApiError(404, "invalid_request_error", message)

    def _delay(self, call: _Call) -> float:
        delay = self.faults.take("delay", call.name)
        return 0.0 if delay is None else delay.seconds

    def _headers(self, call: _Call) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Request-Id": call.request_id,
            "Stripe-Version": call.version or self.account.api_version,
        }
        if call.idempotency_key is not None:
            headers["Idempotency-Key"] = call.idempotency_key
        if call.replayed:
            headers["Idempotent-Replayed"] = "true"
        return {**headers, **call.extra}

    def _log(self, call: _Call, status: int) -> None:
        self.requests.append(
            LoggedRequest(
                call.method,
                call.path,
                call.idempotency_key,
                call.request_id,
                status,
                call.replayed,
            )
        )

    def _transport(self, call: _Call, response: Response) -> Response:
        lost = self.faults.take("lose_response", call.name)
        if lost is not None:
            response.lost, response.should_retry = True, lost.should_retry
        kill = self.faults.take("kill_client", call.name)
        if kill is not None:
            response.kill = "after_response" if kill.responds else "before_response"
        return response


class _FailureError(Exception):
    """An error in execution, and whether its idempotency key stores it."""

    def __init__(self, error: ApiError, stored: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.stored = stored


def _api_key(authorization: str) -> str:
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError) as error:
            raise invalid("Invalid Authorization header.") from error
    return ""
