"""Lambda events on which the built functions succeed, each with a customer of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks.cost import add_customer, next_event
from benchmarks.stage import Stage
from tools.lambda_events import api_event, user_event

Json = dict[str, Any]

_DAY = 86_400.0


class Requests:
    """Prepares the events of invocations on a stage in real time.

    Parameters
    ----------
    customers : int
        How many customers are created, a day before the present time, so that later events are
        newer than what is stored.

    Attributes
    ----------
    stage : Stage
        The stage, whose services the functions are to call.
    """

    def __init__(self, customers: int) -> None:
        self.stage = Stage(start=time.time() - _DAY)
        self._numbers = count()
        with self.stage.running():
            self._customers = iter([self._add_customer() for _ in range(customers)])
            self.stage.reconcile()

    def event(self, function: str, receive: Callable[[Json], object] | None = None) -> Json:
        """Return an event for a function.

        Parameters
        ----------
        function : str
            The function, by the name of its folder.
        receive : callable, optional
            Stores a Stripe event that the function needs; by default `Stage.receive`.

        Raises
        ------
        LookupError
            All customers are used up.
        """
        with self.stage.running():
            self.stage.time = time.time()
            self._receive = receive or self.stage.receive
            return _EVENTS[function](self)

    def _add_customer(self) -> tuple[str, str, str]:
        user = f"user-{next(self._numbers)}"
        return user, *add_customer(self.stage, user)

    def _next(self) -> tuple[str, str, str]:
        """A user with the ids of the customer and of the subscription."""
        for customer in self._customers:
            return customer
        raise LookupError("all customers are used up")

    def _user(self) -> str:
        return self._next()[0]

    def _stripe_event(self) -> Json:
        _, customer, subscription = self._next()
        return next_event(self.stage, "customer.updated", customer, subscription, seconds=0)

    def _create(self) -> Json:
        body = {"user_id": f"new-{next(self._numbers)}", "billing_email": "jane@example.com"}
        return api_event("POST", "/customers", body=json.dumps(body))

    def _adopt(self) -> Json:
        stripe_id = self.stage.change("/v1/customers", email="jane@example.com")["id"]
        body = json.dumps({"stripe_id": stripe_id})
        return user_event("PUT", f"new-{next(self._numbers)}", body=body)

    def _apply(self) -> Json:
        self.stage.new_records()
        self._receive(self._stripe_event())
        return {"Records": self.stage.new_records()}

    def _replay(self) -> Json:
        payload = self._stripe_event()
        self.stage.receive(payload)
        self.stage.stream()
        return {"event_id": payload["id"]}

    def _walk(self) -> Json:
        run_id = f"run-{next(self._numbers)}"
        self.stage.invoke("walk_account", {"action": "start", "run_id": run_id})
        self.stage.invoke("walk_account", {"action": "stop", "run_id": run_id})
        return {"action": "status", "run_id": run_id}


_EVENTS: dict[str, Callable[[Requests], Json]] = {
    "adopt_customer": Requests._adopt,
    "apply_event": Requests._apply,
    "create_customer": Requests._create,
    "erase_customer": lambda given: {"user_id": given._user()},
    "get_customer": lambda given: user_event("GET", given._user()),
    "link_customer": lambda given: given.stage.delivery(given._stripe_event()),
    "reconcile_events": lambda _: {},
    "replay_events": Requests._replay,
    "soft_delete_customer": lambda given: user_event("DELETE", given._user()),
    "sync_customer": lambda given: user_event("POST", given._user(), "/sync"),
    "update_customer": lambda given: user_event(
        "PATCH", given._user(), body=json.dumps({"name": "Jane Doe"})
    ),
    "walk_account": Requests._walk,
}
