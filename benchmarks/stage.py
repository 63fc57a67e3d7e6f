"""The product's functions in one process, with a database and a Stripe account that count calls.

The database is the simulation's in-process engine, Stripe is the double, and only the caller moves
the clock. The functions' handlers are called with the events that AWS hands to them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from importlib import import_module
from io import BytesIO, StringIO
from logging import StreamHandler
from random import Random
from typing import Any, cast

from benchmarks.usage import Usage
from local.running import logical_id
from local.stripe_double import StripeDouble, sign
from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.double import Response as StripeResponse
from simulation.database import Database, Response, consumed_units
from simulation.database.transport import responding
from simulation.deployment import TABLE_NAME, mapping_rules, table_definition
from simulation.mapping import matches
from simulation.schedule import START
from stripe_integrations.adapters.stripe_gateway import READ_SECONDS, StripeGateway
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models.table import Record
from stripe_integrations.observability import logger
from tools.lambda_events import api_event, lambda_context, user_event
from tools.template import of_type

Json = dict[str, Any]

API_KEY = "sk_test_double"
WEBHOOK_SECRET = "whsec_double"  # noqa: S105 - of the double
USER = "user-1"
"""The user of the customer that the operations are about."""

_SCHEDULED_SECONDS = 290
"""The timeout of the function that the schedule invokes, at its usual interval."""


class Stage:
    """A deployment in this process, with an empty table and an empty Stripe account.

    Use it within `running`.

    Parameters
    ----------
    start : float
        Unix time of the start.
    **settings
        Settings that differ from the usual ones.

    Attributes
    ----------
    time : float
        Unix time of the product, of the database and of Stripe.
    used : Usage
        What all operations have used so far, except for the stored bytes.
    engine_seconds : float
        Processor time of the database.
    files : dict
        The contents of the bucket's files by key.
    """

    def __init__(self, *, start: float = START, **settings: Any) -> None:
        self.time = start
        self.used = Usage()
        self.engine_seconds = 0.0
        self.files: dict[str, bytes] = {}
        self.stripe = StripeDouble(now=lambda: self.time, random=Random(2))
        self.stripe.webhooks.add_endpoint("https://hook", WEBHOOK_SECRET)
        self.database = Database(clock=lambda: self.time)
        self.database.request("CreateTable", table_definition())
        self._records_read = 0
        self._handlers: dict[str, Callable[[Any, Any], Any]] = {}
        self._log = StringIO()
        usual = {
            "table_name": TABLE_NAME,
            "api_key": API_KEY,
            "webhook_secret": WEBHOOK_SECRET,
            "deployment_name": "stripe-customers",
        }
        self.context = Context(
            Settings(**{**usual, **settings}),
            clock=lambda: self.time,
            sleep=self.sleep,
            random=Random(1),
            make_stripe=partial(
                StripeGateway, http_client=StripeDoubleClient(self, self.sleep, READ_SECONDS)
            ),
            store_report=lambda _key, _text: None,
            read_file=self._read_file,
        )

    @contextmanager
    def running(self) -> Iterator[Stage]:
        """Connect the product to this stage inside the block."""
        handler = cast("StreamHandler[Any]", logger.registered_handler)
        usual = handler.setStream(self._log)
        try:
            with use(self.context):
                client = Record.connection().client
                with responding(client, self.respond), redirect_stdout(self._log):
                    yield self
        finally:
            if usual is not None:
                handler.setStream(usual)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds

    # ---- what the functions call

    def respond(self, operation: str, body: Json) -> Response:
        """Handle a request to the database, and count it."""
        began = time.process_time()
        response = self.database.request(operation, {**body, "ReturnConsumedCapacity": "INDEXES"})
        self.engine_seconds += time.process_time() - began
        self.used.database_calls += 1
        units = consumed_units(response.body)
        if operation in _READS:
            self.used.read_units += units
        else:
            self.used.write_units += units
        return response

    def request(
        self, method: str, path: str, given: Mapping[str, Any], headers: Mapping[str, str]
    ) -> StripeResponse:
        """Handle a request of the product to Stripe, and count it."""
        self.used.stripe_calls += 1
        return self.stripe.request(method, path, given, headers)

    def _read_file(self, key: str, offset: int) -> Iterator[tuple[bytes, int]]:
        """Read the lines of a file, each with the offset of the next one."""
        for line in BytesIO(self.files[key][offset:]):
            offset += len(line)
            yield line.removesuffix(b"\n"), offset

    # ---- the functions

    def invoke(self, function: str, event: Json) -> Any:
        """Invoke a function by the name of its folder.

        Raises
        ------
        RuntimeError
            It responded with an error.
        """
        if function not in self._handlers:
            self._handlers[function] = import_module(f"functions.{function}.app").handler
        self.used.invocations[function] += 1
        context = lambda_context(timeout_milliseconds(function))
        response = self._handlers[function](event, context)
        self._count_log()
        if has_failed(response):
            raise RuntimeError(f"{function}: {response}")
        return response

    def _count_log(self) -> None:
        text = self._log.getvalue()
        self._log.seek(0)
        self._log.truncate()
        self.used.log_lines += text.count("\n")
        self.used.log_bytes += len(text.encode())

    def create(self, user: str = USER, **fields: Any) -> Json:
        """POST /customers; returns the customer."""
        body = {"user_id": user, "billing_email": f"{user}@example.com", **fields}
        event = api_event("POST", "/customers", body=json.dumps(body))
        created: Json = json.loads(self.invoke("create_customer", event)["body"])
        return created

    def get(self, user: str = USER) -> None:
        """GET /customers/{user_id}."""
        self.invoke("get_customer", user_event("GET", user))

    def update(self, user: str = USER, **fields: Any) -> None:
        """PATCH /customers/{user_id}."""
        self.invoke("update_customer", user_event("PATCH", user, body=json.dumps(fields)))

    def receive(self, payload: Json) -> None:
        """POST an event to the webhook, as Stripe does."""
        self.invoke("link_customer", self.delivery(payload))

    def delivery(self, payload: Json) -> Json:
        """Return the Lambda event of a webhook, signed now."""
        body = json.dumps(payload)
        signature = sign(body.encode(), WEBHOOK_SECRET, self.time)
        return {**api_event("POST", "/", body=body), "headers": {"stripe-signature": signature}}

    def stream(self) -> None:
        """Invoke apply_event with the table's new stream records, in batches."""
        new, size = self.new_records(), mapping_rules().batch_size
        for start in range(0, len(new), size):
            self.invoke("apply_event", {"Records": new[start : start + size]})

    def new_records(self) -> list[Json]:
        """Take the table's new stream records that pass the filter of apply_event."""
        records, unread = self.database.stream(TABLE_NAME).records, self._records_read
        self._records_read = len(records)
        patterns = mapping_rules().patterns
        return [
            record
            for record in records[unread:]
            if any(matches(record, pattern) for pattern in patterns)
        ]

    def reconcile(self) -> None:
        """Invoke reconcile_events, as the schedule does."""
        self.invoke("reconcile_events", {})

    # ---- Stripe

    def change(self, path: str, **params: Any) -> Json:
        """Change something on Stripe; returns the object."""
        authorization = {"Authorization": f"Bearer {API_KEY}"}
        response = self.stripe.request("POST", path, params, authorization)
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.body}")
        return response.body

    def attach_card(self, customer: str) -> str:
        """Attach a card to a customer; returns its id."""
        method: str = self.change("/v1/payment_methods", type="card", card={"token": "tok_visa"})[
            "id"
        ]
        self.change(f"/v1/payment_methods/{method}/attach", customer=customer)
        return method

    def subscribe(self, customer: str, **params: Any) -> str:
        """Make a subscription of a customer to a plan of its own; returns its id."""
        price = self.change(
            "/v1/prices",
            currency="usd",
            unit_amount=500,
            recurring={"interval": "month"},
            product_data={"name": "Plan"},
        )["id"]
        made = self.change(
            "/v1/subscriptions", customer=customer, items=[{"price": price}], **params
        )
        subscription: str = made["id"]
        return subscription

    def new_events(self, kind: str | None = None) -> list[Json]:
        """Take the events of all due deliveries, or only of one type; the others are dropped."""
        payloads = []
        for delivery in self.stripe.webhooks.due():
            self.stripe.webhooks.mark(delivery, 200)
            payload: Json = json.loads(delivery.body)
            if kind in (None, payload["type"]):
                payloads.append(payload)
        return payloads

    def deliver(self) -> None:
        """Deliver and apply events until Stripe has no more."""
        self.stream()
        while payloads := self.new_events():
            for payload in payloads:
                self.receive(payload)
            self.stream()

    # ---- what was used

    @contextmanager
    def measured(self) -> Iterator[Usage]:
        """Count what is used inside the block; complete after the block."""
        before, bytes_before = self.used.copy(), self.database.stored_bytes(TABLE_NAME)
        usage = Usage()
        yield usage
        vars(usage).update(vars(self.used.since(before)))
        usage.stored_bytes = self.database.stored_bytes(TABLE_NAME) - bytes_before


@cache
def timeout_milliseconds(function: str) -> int:
    """Return the time that an invocation of a function has, by template.yaml."""
    functions = of_type("AWS::Serverless::Function")
    seconds = functions[logical_id(function)]["Properties"]["Timeout"]
    return 1000 * (seconds if isinstance(seconds, int) else _SCHEDULED_SECONDS)


def has_failed(response: Any) -> bool:
    """Return whether a function reports an error, of HTTP or of a batch's item."""
    given = response if isinstance(response, dict) else {}
    return given.get("statusCode", 200) >= 400 or bool(given.get("batchItemFailures"))


_READS = ("Query", "GetItem", "BatchGetItem", "TransactGetItems", "Scan")
