"""All calls to Stripe: timeouts, retries, idempotency keys, API version, mode.

Responses are plain dicts in Stripe's shapes. `stripe` is imported when the gateway is made, not
with this module: functions that never call Stripe don't ship it. The API key is read at the first
call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from stripe_integrations import errors
from stripe_integrations.adapters import secrets
from stripe_integrations.config import API_VERSION, Settings

if TYPE_CHECKING:
    import stripe

    Call = Callable[[stripe.StripeClient], stripe.StripeObject]

Json = dict[str, Any]

CONNECT_SECONDS = 2
READ_SECONDS = 6
RETRIES = 1
"""Retries by Stripe's library, after the first attempt."""
PAUSE_SECONDS = 1
"""The library's longest pause before a first retry, rounded up."""

_ONE_ATTEMPT_SECONDS = CONNECT_SECONDS + READ_SECONDS
_RETRYING_SECONDS = _ONE_ATTEMPT_SECONDS * (1 + RETRIES) + PAUSE_SECONDS * RETRIES

_PAGE = 100
MAX_EVENT_TYPES = 20
"""How many types of event Stripe's list of events takes."""

_TOO_MANY_REQUESTS = 429
_LOCK_TIMEOUT = "lock_timeout"
"""The code of a 429 that concerns one object, and not the rate."""
_RATE_ATTEMPTS = 3
_FIRST_SLOWDOWN_SECONDS, _LONGEST_SLOWDOWN_SECONDS = 0.5, 8.0


@dataclass(frozen=True)
class StripeCall:
    """A call to Stripe and its outcome.

    Parameters
    ----------
    operation : str
        What was called, in ids only.
    seconds : float
        Its duration, retries by Stripe's library included.
    status : int or None
        HTTP status of the response; None without a response.
    request_id : str or None
        Stripe's id of the request.
    is_locked : bool
        Whether Stripe refused it since another request holds the lock on the object.
    """

    operation: str
    seconds: float
    status: int | None
    request_id: str | None
    is_locked: bool = False

    @property
    def is_rate_limited(self) -> bool:
        """Whether Stripe refused it since there were too many requests."""
        return self.status == _TOO_MANY_REQUESTS and not self.is_locked


@dataclass(frozen=True)
class StripeResponse:
    """A response of Stripe.

    Parameters
    ----------
    data : dict
        Its JSON.
    is_replayed : bool
        Whether Stripe has stored it for the idempotency key: it may be a day old.
    """

    data: Json = field(repr=False)
    is_replayed: bool


class StripeGateway:
    """Calls Stripe on behalf of one deployment.

    Parameters
    ----------
    settings : Settings
        The mode, the address and where the API key is stored.
    http_client : stripe.HTTPClient, optional
        Sends the requests; by default one with our timeouts.
    remaining_seconds : callable, optional
        The time until the caller's invocation ends; by default, infinite.
    clock, pause : callable, optional
        Unix time, and a wait of about a number of seconds.
    before_call : callable, optional
        Receives the operation before each call.
    report : callable, optional
        Receives each `StripeCall`.

    Raises
    ------
    StripeNotInstalledError
        The `stripe` extra is not installed.

    Notes
    -----
    Every method raises `StripeRefusedError` where Stripe refuses the request, `StripeAccessError`
    where it refuses the key, `StripeUnavailableError` where it fails or can't be reached, and
    `WrongModeError` where an object is of the other mode.
    """

    def __init__(
        self,
        settings: Settings,
        http_client: stripe.HTTPClient | None = None,
        *,
        remaining_seconds: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        before_call: Callable[[str], None] = lambda _: None,
        report: Callable[[StripeCall], None] = lambda _: None,
    ) -> None:
        try:
            import stripe  # noqa: PLC0415 - see the module's docstring
        except ImportError as error:
            raise errors.StripeNotInstalledError(
                "this action calls Stripe: install stripe-integrations-aws with its `stripe` extra"
            ) from error
        self._stripe = stripe
        self._settings = settings
        self._remaining_seconds = remaining_seconds
        self._clock = clock
        self._pause = pause
        self._before_call = before_call
        self._report = report
        self._slowdown = 0.0
        self._slow_until = 0.0
        self._http_client = http_client or stripe.RequestsClient(
            timeout=(CONNECT_SECONDS, READ_SECONDS)
        )
        self._make_client = partial(
            stripe.StripeClient,
            stripe_version=API_VERSION,
            base_addresses={"api": settings.api_base},
            http_client=self._http_client,
        )
        self._clients: dict[int, stripe.StripeClient] = {}

    def require_key(self) -> None:
        """Read the API key, unless it was read: without it, no call is possible.

        Raises
        ------
        ConfigurationError
            There is no key, or it is not one of this mode.
        SecretUnavailableError
            Its store can't be reached now.
        """
        if not self._clients:
            self._connect(is_refused=False)

    def disconnect(self) -> None:
        """Close idle connections and forget the API key, which the next call reads again."""
        self._http_client.close()  # type: ignore[no-untyped-call]
        self._clients.clear()

    def create_customer(self, params: Any, idempotency_key: str) -> Json:
        """Create a customer: https://docs.stripe.com/api/customers/create."""
        return self._response(
            "create a customer",
            lambda client: client.v1.customers.create(params, {"idempotency_key": idempotency_key}),
        ).data

    def update_customer(self, stripe_id: str, params: Any, idempotency_key: str) -> StripeResponse:
        """Update a customer: https://docs.stripe.com/api/customers/update.

        Raises
        ------
        StripeKeyReusedError
            The key was used with other parameters.
        """
        return self._response(
            f"update {stripe_id}",
            lambda client: client.v1.customers.update(
                stripe_id, params, {"idempotency_key": idempotency_key}
            ),
            stripe_id,
        )

    def delete_customer(self, stripe_id: str) -> Json:
        """Delete a customer for good: https://docs.stripe.com/api/customers/delete.

        Stripe returns ``{"id": …, "object": "customer", "deleted": true}``.
        """
        return self._response(
            f"delete {stripe_id}",
            lambda client: client.v1.customers.delete(stripe_id),
            stripe_id,
        ).data

    def retrieve_customer(self, stripe_id: str) -> Json:
        """The customer with its sources: https://docs.stripe.com/api/customers/retrieve.

        Stripe returns a deleted one too: ``{"id": …, "object": "customer", "deleted": true}``.
        """
        customer = self._response(
            f"retrieve {stripe_id}",
            lambda client: client.v1.customers.retrieve(stripe_id, {"expand": ["sources"]}),
            stripe_id,
        ).data
        if not customer.get("deleted"):
            self._complete_sources(stripe_id, customer)
        return customer

    def list_customers(
        self,
        created_since: int | None = None,
        email: str | None = None,
        *,
        created_until: int | None = None,
        starting_after: str | None = None,
    ) -> Iterator[Json]:
        """Customers, newest first; deleted ones are not listed.

        https://docs.stripe.com/api/customers/list; unlike search, it has just created ones.

        Parameters
        ----------
        created_since, created_until : int, optional
            Unix seconds, both included.
        email : str, optional
            Only those with this e-mail.
        starting_after : str, optional
            The customer after which the list begins.
        """
        seconds = {"gte": created_since, "lte": created_until}
        params = {
            "created": {name: value for name, value in seconds.items() if value is not None},
            "email": email,
            "starting_after": starting_after,
        }
        return self._pages(
            "list customers",
            lambda client, params: client.v1.customers.list(params),
            {name: value for name, value in params.items() if value},
        )

    def list_customers_page(
        self, created_from: int | None, created_before: int, starting_after: str | None
    ) -> tuple[list[Json], bool]:
        """One page of the account's customers, newest first: for a walk of the account.

        https://docs.stripe.com/api/customers/list; deleted customers and those of test clocks are
        not listed. Each customer has its first sources, with their own `has_more`.

        Parameters
        ----------
        created_from : int or None
            Unix seconds, included; None for no lower bound.
        created_before : int
            Unix seconds, excluded.
        starting_after : str or None
            The last customer of the page before.

        Returns
        -------
        tuple
            The customers, and whether there are more.

        Raises
        ------
        StripeObjectChangedError
            `starting_after` names a customer that no longer exists.
        """
        return self._created_page(
            "list a page of customers",
            lambda client, params: client.v1.customers.list(params),
            {"expand": ["data.sources"]},
            (created_from, created_before),
            starting_after,
        )

    def list_subscriptions_page(
        self, created_from: int | None, created_before: int, starting_after: str | None
    ) -> tuple[list[Json], bool]:
        """One page of the account's subscriptions of any status, newest first.

        https://docs.stripe.com/api/subscriptions/list; those of test clocks are not listed. Each
        subscription has its first items, with their own `has_more`.

        Parameters
        ----------
        created_from : int or None
            Unix seconds, included; None for no lower bound.
        created_before : int
            Unix seconds, excluded.
        starting_after : str or None
            The last subscription of the page before.

        Returns
        -------
        tuple
            The subscriptions, and whether there are more.

        Raises
        ------
        StripeObjectChangedError
            `starting_after` names a subscription that no longer exists.
        """
        return self._created_page(
            "list a page of subscriptions",
            lambda client, params: client.v1.subscriptions.list(params),
            {"status": "all"},
            (created_from, created_before),
            starting_after,
        )

    def list_payment_methods(self, stripe_id: str, kind: str | None = None) -> list[Json]:
        """All payment methods attached to a customer, or only those of one type.

        https://docs.stripe.com/api/payment_methods/customer_list
        """
        return self._list(
            f"list the payment methods of {stripe_id}",
            lambda client, params: client.v1.customers.payment_methods.list(stripe_id, params),
            {"type": kind} if kind else {},
        )

    def list_subscriptions(self, stripe_id: str) -> list[Json]:
        """All subscriptions of a customer, of any status, each with all of its items.

        https://docs.stripe.com/api/subscriptions/list
        """
        subscriptions = self._list(
            f"list the subscriptions of {stripe_id}",
            lambda client, params: client.v1.subscriptions.list(params),
            {"customer": stripe_id, "status": "all"},
        )
        for subscription in subscriptions:
            self._complete_items(subscription)
        return subscriptions

    def list_tax_ids(self, stripe_id: str) -> list[Json]:
        """All tax ids of a customer: https://docs.stripe.com/api/tax_ids/customer_list."""
        return self._list(
            f"list the tax ids of {stripe_id}",
            lambda client, params: client.v1.customers.tax_ids.list(stripe_id, params),
            {},
        )

    def list_active_entitlements(self, stripe_id: str) -> list[Json]:
        """All features that a customer may use.

        https://docs.stripe.com/api/entitlements/active-entitlement/list
        """
        return self._list(
            f"list the active entitlements of {stripe_id}",
            lambda client, params: client.v1.entitlements.active_entitlements.list(params),
            {"customer": stripe_id},
        )

    def list_events(
        self, created_since: int, types: Sequence[str], starting_after: str | None
    ) -> tuple[list[Json], bool]:
        """One page of the account's events, newest first: https://docs.stripe.com/api/events/list.

        Parameters
        ----------
        created_since : int
            Unix seconds.
        types : sequence of str
            The types to list, at most `MAX_EVENT_TYPES`; none for all.
        starting_after : str or None
            The last event of the page before.

        Returns
        -------
        tuple
            The events, and whether there are more.
        """
        params: Any = {"created": {"gte": created_since}, "limit": _PAGE}
        if types:
            params["types"] = list(types)
        if starting_after:
            params["starting_after"] = starting_after
        listed = self._call("list events", lambda client: client.v1.events.list(params)).data
        data = listed.get("data")
        if not isinstance(data, list) or (listed.get("has_more") and not _ids(data[-1:])):
            raise errors.StripeUnavailableError("Stripe's response is malformed: list events")
        return [event for event in data if _ids([event])], bool(listed.get("has_more"))

    def _complete_sources(self, stripe_id: str, customer: Json) -> None:
        sources = customer.get("sources") or {}
        if sources.get("has_more"):
            sources["data"] = self._list(
                f"list the sources of {stripe_id}",
                lambda client, params: client.v1.customers.payment_sources.list(stripe_id, params),
                {},
            )

    def _complete_items(self, subscription: Json) -> None:
        items = subscription.get("items") or {}
        if items.get("has_more"):
            items["data"] = self._list(
                f"list the items of {subscription['id']}",
                lambda client, params: client.v1.subscription_items.list(params),
                {"subscription": subscription["id"]},
            )
            items["has_more"] = False

    def _list(
        self, operation: str, call: Callable[..., stripe.ListObject[Any]], params: Json
    ) -> list[Json]:
        return list(self._pages(operation, call, params))

    def _pages(
        self,
        operation: str,
        call: Callable[..., stripe.ListObject[Any]],
        params: Json,
    ) -> Iterator[Json]:
        page = first = {**params, "limit": _PAGE}
        while True:
            try:
                objects, has_more = self._page(operation, call, page)
            except errors.StripeRefusedError as error:
                if page is first:
                    raise
                raise _list_changed(operation) from error
            yield from objects
            if not has_more:
                return
            page = {**page, "starting_after": objects[-1]["id"]}

    def _created_page(
        self,
        operation: str,
        call: Callable[..., stripe.ListObject[Any]],
        params: Json,
        created: tuple[int | None, int],
        starting_after: str | None,
    ) -> tuple[list[Json], bool]:
        """One page of the objects that were created in a half-open interval."""
        since, before = created
        bounds = {"lt": before} if since is None else {"gte": since, "lt": before}
        page = {**params, "created": bounds, "limit": _PAGE}
        if starting_after is not None:
            page["starting_after"] = starting_after
        try:
            return self._page(operation, call, page)
        except errors.StripeRefusedError as error:
            if (error.code, error.param) != ("resource_missing", "starting_after"):
                raise
            raise _list_changed(operation) from error

    def _page(
        self, operation: str, call: Callable[..., stripe.ListObject[Any]], page: Json
    ) -> tuple[list[Json], bool]:
        """The objects of one page, and whether there are more."""
        listed = self._call(operation, partial(call, params=page)).data
        data = listed.get("data")
        has_more = bool(listed.get("has_more"))
        if not isinstance(data, list) or len(_ids(data)) < max(len(data), has_more):
            raise errors.StripeUnavailableError(f"Stripe's response is malformed: {operation}")
        return [self._checked(obj) for obj in data], has_more

    def _response(self, operation: str, call: Call, stripe_id: str | None = None) -> StripeResponse:
        """Call Stripe for one object; for the one with this id, if there is one."""
        response = self._call(operation, call)
        found = response.data.get("id")
        if not isinstance(found, str) or found != (stripe_id or found):
            raise errors.StripeUnavailableError(f"Stripe's response is malformed: {operation}")
        self._checked(response.data)
        return response

    def _checked(self, obj: Json) -> Json:
        livemode = obj.get("livemode", self._settings.livemode)
        if livemode is not self._settings.livemode:
            raise errors.WrongModeError(f"{obj.get('id')} is of the other mode")
        return obj

    def _call(self, operation: str, call: Call) -> StripeResponse:
        for _ in range(_RATE_ATTEMPTS):
            self._wait_for_rate_limit(operation)
            try:
                return self._request(operation, call)
            except errors.StripeUnavailableError as error:
                is_locked = isinstance(error, errors.StripeObjectLockedError)
                if error.status != _TOO_MANY_REQUESTS or is_locked:
                    raise
                refused = error
                self._slow_down()
        raise refused

    def _slow_down(self) -> None:
        """Delay every call of this process, longer each time that Stripe limits the rate."""
        self._slowdown = min(
            max(2 * self._slowdown, _FIRST_SLOWDOWN_SECONDS), _LONGEST_SLOWDOWN_SECONDS
        )
        self._slow_until = self._clock() + self._slowdown

    def _wait_for_rate_limit(self, operation: str) -> None:
        wait = self._slow_until - self._clock()
        if wait <= 0:
            self._slowdown /= 2
            return
        if wait > self._remaining_seconds() - _ONE_ATTEMPT_SECONDS:
            raise errors.StripeUnavailableError(
                f"Stripe limits the rate: {operation}", status=_TOO_MANY_REQUESTS
            )
        self._pause(wait)

    def _request(self, operation: str, call: Call) -> StripeResponse:
        try:
            try:
                returned = self._timed(operation, call)
            except self._stripe.AuthenticationError:
                self._connect(is_refused=True)
                returned = self._timed(operation, call)
        except self._stripe.StripeError as error:
            # Not chained: Stripe's message quotes values, and a traceback would contain it.
            raise self._translated(operation, error) from None
        # The JSON as Stripe sent it: the library's objects turn some strings into decimals.
        response = getattr(returned, "last_response", None)
        data = getattr(response, "data", None)
        if not isinstance(data, dict):
            raise errors.StripeUnavailableError(f"Stripe's response is malformed: {operation}")
        return StripeResponse(data, is_replayed=_is_replayed(getattr(response, "headers", None)))

    def _timed(self, operation: str, call: Call) -> stripe.StripeObject:
        self._before_call(operation)
        client = self._client_in_time(operation)
        began = self._clock()
        try:
            returned = call(client)
        except self._stripe.StripeError as error:
            took = self._clock() - began
            status, is_locked = error.http_status, _code_of(error) == _LOCK_TIMEOUT
            refused = StripeCall(operation, took, status, error.request_id, is_locked=is_locked)
            self._report(refused)
            raise
        response = getattr(returned, "last_response", None)
        request_id = getattr(response, "request_id", None)
        status = getattr(response, "code", None)
        self._report(StripeCall(operation, self._clock() - began, status, request_id))
        return returned

    def _connect(self, *, is_refused: bool) -> None:
        """Make the clients with the API key, which is read again if Stripe has refused it."""
        api_key = secrets.api_key(self._settings, refresh=is_refused)
        self._clients = {
            retries: self._make_client(api_key, max_network_retries=retries)
            for retries in (RETRIES, 0)
        }

    def _client_in_time(self, operation: str) -> stripe.StripeClient:
        """The client whose longest call fits into the rest of the invocation."""
        self.require_key()  # before the time is measured: its store may be slow
        left = self._remaining_seconds()
        if left < _ONE_ATTEMPT_SECONDS:
            raise errors.StripeUnavailableError(f"no time is left to {operation}")
        return self._clients[RETRIES if left >= _RETRYING_SECONDS else 0]

    def _translated(self, operation: str, error: stripe.StripeError) -> errors.StripeError:
        status = error.http_status
        kind: type[errors.StripeError] = errors.StripeUnavailableError
        if isinstance(error, self._stripe.AuthenticationError | self._stripe.PermissionError):
            kind = errors.StripeAccessError
        elif isinstance(error, self._stripe.IdempotencyError):
            kind = errors.StripeKeyReusedError
        elif isinstance(error, self._stripe.InvalidRequestError | self._stripe.CardError):
            kind = errors.StripeRefusedError
        if _code_of(error) == _LOCK_TIMEOUT:
            kind = errors.StripeObjectLockedError
        translated = kind(
            f"Stripe did not {operation}: {type(error).__name__}",
            status=status,
            code=_code_of(error),
            param=getattr(error, "param", None),
            request_id=error.request_id,
        )
        if isinstance(translated, errors.StripeUnavailableError):
            translated.replayed = _is_replayed(error.headers) and (status or 0) >= 500
        return translated


def _code_of(error: stripe.StripeError) -> str | None:
    """Stripe's code of an error, which the library leaves out of the one it raises for a 429."""
    code: str | None = error.code or getattr(error.error, "code", None)
    return code


def _is_replayed(headers: Mapping[str, str] | None) -> bool:
    """Return whether Stripe has stored the response that has these headers for its key."""
    return (headers or {}).get("idempotent-replayed") == "true"


def _list_changed(operation: str) -> errors.StripeObjectChangedError:
    """The error of a page that was to start after an object that no longer exists."""
    return errors.StripeObjectChangedError(f"the list changed: {operation}")


def _ids(objects: list[Any]) -> list[str]:
    """The ids of those objects that have one."""
    ids = [obj.get("id") for obj in objects if isinstance(obj, dict)]
    return [stripe_id for stripe_id in ids if isinstance(stripe_id, str) and stripe_id]
