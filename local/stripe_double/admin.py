"""The admin API of the double, ``/_double/…``: JSON requests and responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from .double import StripeDouble
from .errors import Json
from .filling import fill

PREFIX = "/_double/"
_FAULTS = ("fail_next", "lock", "delay", "time_out", "kill_client_after")
_DELIVERIES = ("drop_next", "duplicate_next", "hold", "release", "resend")


class AdminError(Exception):
    """A request that the admin API doesn't have or can't carry out."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Admin:
    """Operations on a double that Stripe's API doesn't have."""

    def __init__(self, double: StripeDouble) -> None:
        self._double = double
        self._operations: dict[str, Callable[[Json], Any]] = {
            "GET customers": self._customers,
            "GET deliveries": self._deliveries,
            "GET faults": self._faults,
            "DELETE faults": self._clear_faults,
            "GET rate_limits": self._rate_limits,
            "POST rate_limits": lambda given: double.rate_limits.enforce(**given),
            "DELETE rate_limits": lambda _: double.rate_limits.lift(),
            "GET requests": self._requests,
            "DELETE requests": self._clear_requests,
            "GET state": self._state,
            "GET webhook_endpoints": self._endpoints,
            "POST webhook_endpoints": self._add_endpoint,
        }

    def handle(self, method: str, path: str, given: Json) -> Json:
        """Carry out one operation.

        Raises
        ------
        AdminError
            404 for an unknown operation, 400 for invalid parameters.
        """
        name = path.removeprefix(PREFIX).strip("/")
        operation = self._operations.get(f"{method} {name}") or self._action(method, name)
        try:
            result = operation(given)
        except (KeyError, TypeError, ValueError) as error:
            raise AdminError(400, f"{type(error).__name__}: {error}") from error
        return result if isinstance(result, dict) else {"data": result}

    def _action(self, method: str, name: str) -> Callable[[Json], Any]:
        group, _, action = name.partition("/")
        double = self._double
        helpers: dict[str, Callable[..., Any]] = {
            "advance_period": double.subscriptions.advance_period,
            "announce_trial_end": double.subscriptions.announce_trial_end,
            "change_customer": double.change_customer,
            "complete_checkout_session": double.complete_checkout_session,
            "fill": partial(fill, double),
            "grant_entitlement": double.entitlements.grant,
            "revoke_entitlement": double.entitlements.revoke,
            "set_fields": double.subscriptions.set_fields,
            "set_status": double.subscriptions.set_status,
            "update_automatically": double.payment_methods.update_automatically,
        }
        found: Callable[..., Any] | None = None
        if method == "POST" and group == "faults" and action in _FAULTS:
            found = getattr(double.faults, action)
        elif method == "POST" and group == "deliveries" and action in _DELIVERIES:
            found = getattr(double.webhooks, action)
        elif method == "POST" and group == "helpers":
            found = helpers.get(action)
        elif method == "DELETE" and group == "webhook_endpoints" and action:
            return lambda _: double.webhooks.remove_endpoint(action)
        if found is None:
            raise AdminError(404, f"no such operation: {method} {PREFIX}{name}")
        call = found
        return lambda given: call(**given)

    def _state(self, _: Json) -> Json:
        account = self._double.account
        return {
            "customers": len(account.customers) - len(account.deleted_customers),
            "deleted_customers": len(account.deleted_customers),
            "payment_sources": len(account.payment_source_owner),
            "payment_methods": len(account.payment_methods),
            "subscriptions": len(account.subscriptions),
            "events": len(account.events),
            "pending_deliveries": account.webhooks.pending_count(),
            "requests": len(self._double.requests),
            "bugs": [repr(bug) for bug in self._double.bugs],
        }

    def _customers(self, given: Json) -> Json:
        return dict(self._double.customers_by_metadata(given["metadata"]))

    def _requests(self, _: Json) -> list[Json]:
        return [asdict(request) for request in self._double.requests]

    def _clear_requests(self, _: Json) -> None:
        self._double.requests.clear()

    def _faults(self, _: Json) -> list[Json]:
        return [
            {"kind": fault.kind, "match": fault.match, "times": fault.times}
            for fault in self._double.faults.pending()
        ]

    def _rate_limits(self, _: Json) -> Json:
        limits = self._double.rate_limits
        return {
            "account": limits.account,
            "endpoint": limits.endpoint,
            "made": dict(limits.made),
            "refused": dict(limits.refused),
        }

    def _clear_faults(self, _: Json) -> None:
        self._double.faults.clear()

    def _deliveries(self, _: Json) -> list[Json]:
        return self._double.webhooks.log

    def _endpoints(self, _: Json) -> list[Json]:
        endpoints = self._double.webhooks.endpoints.values()
        fields = ("id", "url", "enabled_events", "api_version")
        return [{key: getattr(endpoint, key) for key in fields} for endpoint in endpoints]

    def _add_endpoint(self, given: Json) -> Json:
        return {"id": self._double.webhooks.add_endpoint(**given).id}
