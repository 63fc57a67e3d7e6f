"""The product in one process: a table, a Stripe double, and a clock that only tests move."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from types import ModuleType
from typing import Any

from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError, ReadTimeoutError

import functions.adopt_customer.app as adopt_customer
import functions.apply_event.app as apply_event
import functions.create_customer.app as create_customer
import functions.erase_customer.app as erase_customer
import functions.get_customer.app as get_customer
import functions.link_customer.app as link_customer
import functions.reconcile_events.app as reconcile_events
import functions.replay_events.app as replay_events
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
import functions.update_customer.app as update_customer
import functions.walk_account.app as walk_account
from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.double import StripeDouble
from simulation.deployment import mapping_rules
from simulation.mapping import matches
from stripe_integrations.actions import StripeEvent, User
from stripe_integrations.adapters.stripe_gateway import StripeGateway
from stripe_integrations.config import API_VERSION, Settings
from stripe_integrations.context import Context
from stripe_integrations.errors import MessageNotSentError, StorageError
from stripe_integrations.models import Event
from stripe_integrations.models.event import MAX_ATTEMPTS
from stripe_integrations.models.run import Run
from stripe_integrations.models.table import Record
from stripe_integrations.observability import Metric
from tests import roles
from tools.lambda_events import api_event, lambda_context, user_event
from tools.published_event import schema_errors

Json = dict[str, Any]

START = 1_800_000_000.0
WEBHOOK_SECRET = "whsec_double"
USER = User("u-1")
EMAIL = "jane@example.com"


class World:
    """The product's functions, invoked as AWS does, with a Stripe double and test doubles of AWS.

    Each function runs under its role in template.yaml; a test may do anything.

    Parameters
    ----------
    table_name : str
        An empty table.
    **settings
        Settings that differ from the usual ones.
    """

    def __init__(self, table_name: str, **settings: Any) -> None:
        self.time = START
        self.random = random.Random(1)
        self.stripe = StripeDouble(now=lambda: self.time, random=random.Random(2))
        self.stripe.webhooks.add_endpoint("https://hook", WEBHOOK_SECRET)
        self.during_sleep: Callable[[], None] = lambda: None
        self.dead_letters: list[Json] = []
        self.published: list[Json] = []
        self.log_of_erasures: list[str] = []
        self.reports: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.schema_errors: list[str] = []
        self.measured: list[tuple[Metric, float]] = []
        self.settings = Settings(
            **{
                "table_name": table_name,
                "api_key": "sk_test_double",
                "webhook_secret": WEBHOOK_SECRET,
                "deployment_name": "stripe-customers",
                **settings,
            }
        )
        self.deployment = self._deployment()
        self.used: defaultdict[str, set[roles.Grant]] = defaultdict(set)
        self.context = self.new_context()

    def configure(self, **settings: Any) -> None:
        """Change settings of the deployment."""
        self.settings = self.context.settings = replace(self.settings, **settings)
        self.deployment = self._deployment()

    def _deployment(self) -> roles.Deployment:
        return roles.Deployment(
            EventBusName=self.settings.event_bus_name or "",
            WebhookIngress=self.settings.webhook_ingress,
            StripeEventSource=self.settings.event_source or "",
            ExistingCustomers=self.settings.existing_customers,
            SecretStore=(self.settings.api_key_name or "secretsmanager").partition(":")[0],
        )

    def new_context(self) -> Context:
        """The dependencies of one more process of the product."""
        return Context(
            self.settings,
            clock=lambda: self.time,
            sleep=self.sleep,
            random=self.random,
            make_stripe=partial(
                StripeGateway,
                http_client=StripeDoubleClient(self.stripe, sleep=self.sleep, timeout=8),
            ),
            send_dead_letter=self.send_dead_letter,
            publish=self.publish,
            log_erasure=self.log_erasure,
            store_report=self.store_report,
            read_file=self.read_file,
            measure=lambda metric, value: self.measured.append((metric, value)),
        )

    def sleep(self, seconds: float) -> None:
        """Let time pass, and run what a test has set for it."""
        self.time += seconds
        with roles.acting_freely():
            self.during_sleep()

    def send_dead_letter(self, message: Mapping[str, Any]) -> None:
        """Take a message, as the dead-letter queue does."""
        if not roles.allowed(roles.send_message(roles.DEAD_LETTERS)):
            raise MessageNotSentError("sqs: AccessDenied")
        self.dead_letters.append(dict(message))

    def publish(self, detail: Mapping[str, Any]) -> None:
        """Take a change, as the event bus does."""
        if not roles.allowed(roles.put_events(self.settings.event_bus_name or "")):
            raise MessageNotSentError("events: AccessDeniedException")
        self.schema_errors += schema_errors(detail)
        self.published.append(dict(detail))

    def log_erasure(self, customer_ids: Sequence[str]) -> None:
        """Take ids, as the erasure log does."""
        if not roles.allowed(roles.put_log_events("ErasureLog.Arn")):
            raise MessageNotSentError("logs: AccessDeniedException")
        self.log_of_erasures += customer_ids

    def store_report(self, key: str, text: str) -> None:
        """Take a part of a report, as the bucket does."""
        if not roles.allowed(roles.put_object(roles.REPORTS, key)):
            raise StorageError("s3: AccessDenied")
        self.reports[key] = text

    def read_file(self, key: str, offset: int) -> Iterator[tuple[bytes, int]]:
        """Read the lines of a file of the operator's, as from the bucket."""
        if not roles.allowed(roles.get_object(roles.REPORTS, key)):
            raise StorageError("s3: AccessDenied")
        if key not in self.files:
            raise StorageError("s3: NoSuchKey")
        for line in BytesIO(self.files[key][offset:]):
            offset += len(line)
            yield line.removesuffix(b"\n"), offset

    # ---- the functions

    def create(self, user_id: str = "u-1", **fields: Any) -> Json:
        """POST /customers."""
        body = {"user_id": user_id, "billing_email": EMAIL, **fields}
        return self.call(create_customer, api_event("POST", "/customers", body=json.dumps(body)))

    def get(self, user_id: str = "u-1") -> Json:
        """GET /customers/{user_id}."""
        return self.call(get_customer, user_event("GET", user_id))

    def sync(self, user_id: str = "u-1") -> Json:
        """POST /customers/{user_id}/sync."""
        return self.call(sync_customer, user_event("POST", user_id, "/sync"))

    def update(
        self, user_id: str = "u-1", headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Json:
        """PATCH /customers/{user_id}."""
        event = user_event("PATCH", user_id, body=json.dumps(fields), headers=headers)
        return self.call(update_customer, event)

    def adopt(self, stripe_id: str, user_id: str = "u-1", **fields: Any) -> Json:
        """PUT /customers/{user_id}."""
        body = json.dumps({"stripe_id": stripe_id, **fields})
        return self.call(adopt_customer, user_event("PUT", user_id, body=body))

    def delete(self, user_id: str = "u-1") -> Json:
        """DELETE /customers/{user_id}."""
        return self.call(soft_delete_customer, user_event("DELETE", user_id))

    def webhook(self, body: bytes, headers: Mapping[str, str]) -> Json:
        """POST to the Function URL."""
        event = api_event("POST", "/", body=body.decode("utf-8", "surrogateescape"))
        return self.call(link_customer, {**event, "headers": dict(headers)})

    def reconcile(self, remaining_seconds: float = 290) -> Json:
        """Invoke reconcile_events, as the schedule does."""
        return self.invoke(reconcile_events, {}, int(remaining_seconds * 1000))

    def replay(self, event: Json, remaining_seconds: float = 290) -> Json:
        """Invoke replay_events, as an operator does."""
        return self.invoke(replay_events, event, int(remaining_seconds * 1000))

    def erase(self, event: Json, remaining_seconds: float = 290) -> Json:
        """Invoke erase_customer, as an operator does."""
        return self.invoke(erase_customer, event, int(remaining_seconds * 1000))

    def walk(self, event: Json, remaining_seconds: float = 900) -> Json:
        """Invoke walk_account, as the state machine or an operator does."""
        return self.invoke(walk_account, event, int(remaining_seconds * 1000))

    def rebuild(self) -> dict[str, int]:
        """Walk the account after a restore, as the state machine does, or resume that.

        Returns how many customers had each result.
        """
        self.time += 1  # a run lists what was created before the second in which it starts
        with roles.acting_freely():
            latest = Run.latest()
        run_id = latest.run_id if latest and latest.ended_at is None else f"at-{self.time:.0f}"
        run = {"run_id": run_id}
        self.walk({"action": "start", **run, "options": {"kind": "rebuild"}})
        while not self.walk({"action": "work", **run, "worker": "1"})["is_done"]:
            pass
        results: dict[str, int] = self.walk({"action": "status", **run})["results"]
        return results

    def apply_events(self, event: Any, remaining_seconds: float = 60) -> Json:
        """Invoke apply_event, as the table's stream does."""
        return self.invoke(apply_event, event, int(remaining_seconds * 1000))

    def invoke(
        self, function: ModuleType, event: Any, remaining_milliseconds: int = 29_000
    ) -> Json:
        """Invoke a function under its role."""
        name = function.__name__.split(".")[1]
        with roles.acting_under(self.deployment.role(name), self.used[name]):
            response: Json = function.handler(event, lambda_context(remaining_milliseconds))
        return response

    def call(self, function: ModuleType, event: Json) -> Json:
        """Invoke a function of the API; `json` in the response has its body, parsed."""
        response = self.invoke(function, event)
        if "body" in response:
            response["json"] = json.loads(response["body"])
        return response

    # ---- what Stripe and AWS do

    def deliver(self) -> list[Json]:
        """Deliver Stripe's webhooks that are due; the function's responses."""
        responses = []
        for delivery in self.stripe.webhooks.due():
            response = self.webhook(delivery.body, delivery.headers)
            self.stripe.webhooks.mark(delivery, response["statusCode"])
            responses.append(response)
        return responses

    def stream(self, *keys: tuple[str, str]) -> Json:
        """Let the stream report stored items as new: these, or all that pass its filter."""
        images = {(image["pk"]["S"], image["sk"]["S"]): image for image in self.images()}
        reported = [key for key in keys if key in images]
        if not keys:
            reported = [
                key
                for key, image in sorted(images.items())  # the order of a scan differs by process
                if any(
                    matches({"eventName": "INSERT", "dynamodb": _change(image)}, pattern)
                    for pattern in mapping_rules().patterns
                )
            ]
        records = [
            {
                "eventID": str(number),
                "eventName": "INSERT",
                "eventSource": "aws:dynamodb",
                "dynamodb": {**_change(images[key]), "SequenceNumber": str(number)},
            }
            for number, key in enumerate(reported)
        ]
        return self.apply_events({"Records": records})

    def stream_events(self, *stripe_ids: str) -> Json:
        """Let the stream report events as new, in this order."""
        return self.stream(*((Event.key(stripe_id), Event.SORT_KEY) for stripe_id in stripe_ids))

    def deliver_and_apply(self) -> None:
        """Deliver and apply until nothing is left to be delivered."""
        while self.stripe.webhooks.due():
            self.deliver()
        self.stream()

    # ---- looking at the outcome

    def items(self, **where: Any) -> list[Json]:
        """The items of the table: plain values under their attribute names."""
        read = TypeDeserializer()
        items = [
            {name: read.deserialize(value) for name, value in image.items()}
            for image in self.images()
        ]
        return [item for item in items if where.items() <= item.items()]

    def images(self) -> list[Json]:
        """The items of the table, as DynamoDB encodes them."""
        scan = database_client().get_paginator("scan")
        pages = scan.paginate(TableName=self.settings.table_name, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def event_states(self) -> dict[str, str]:
        """State by type of event, of the stored events."""
        return {item["kind"]: item["state"] for item in self.items(record_type="Event")}

    def request(self, method: str, path: str, params: Json | None = None) -> Json:
        """Do something on Stripe, as its dashboard or another service would."""
        response = self.stripe.request(
            method, path, params, {"Authorization": "Bearer sk_test_double"}
        )
        assert response.status == 200, response.body
        return response.body

    def rename(self, stripe_id: str, name: str) -> None:
        """Change a customer's name on Stripe."""
        self.request("POST", f"/v1/customers/{stripe_id}", {"name": name})

    def attach_card(self, stripe_id: str, source: str = "tok_visa", **params: Any) -> str:
        """Attach a new card to a customer on Stripe; the id of its PaymentMethod."""
        card = {"type": "card", "card": {"token": source}, **params}
        method = str(self.request("POST", "/v1/payment_methods", card)["id"])
        self.request("POST", f"/v1/payment_methods/{method}/attach", {"customer": stripe_id})
        return method

    def subscribe(self, stripe_id: str, items: int = 1) -> str:
        """Give a customer a subscription on Stripe that needs no card; its id."""
        price = {
            "currency": "usd",
            "unit_amount": 500,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Plan"},
        }
        prices = [self.request("POST", "/v1/prices", price)["id"] for _ in range(items)]
        subscription = {
            "customer": stripe_id,
            "items": [{"price": price_id} for price_id in prices],
            "collection_method": "send_invoice",
            "days_until_due": 30,
        }
        return str(self.request("POST", "/v1/subscriptions", subscription)["id"])

    def payload(self, kind: str = "customer.updated") -> Json:
        """The newest event of a type, as Stripe's list has it, whether it was delivered or not."""
        events = self.request("GET", "/v1/events", {"type": kind, "limit": 1})["data"]
        payload: Json = events[0]
        return payload

    def receive(self, kind: str = "customer.updated") -> str:
        """Receive the newest event of a type; its id."""
        return StripeEvent.receive(self.payload(kind)).stripe_id

    def stripe_customers(self) -> list[Json]:
        """The customers that Stripe has."""
        customers: list[Json] = self.request("GET", "/v1/customers", {"limit": 100})["data"]
        return customers

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count the calls to DynamoDB and to Stripe inside the block."""
        counts = Counts()
        before = len(self.stripe.requests)
        try:
            with hooked(database_client(), "before-send.dynamodb", counts.record_request):
                yield counts
        finally:
            counts.stripe = len(self.stripe.requests) - before

    def canceling_transactions(
        self, *reasons: str, times: int = 1000
    ) -> AbstractContextManager[None]:
        """Let DynamoDB cancel the next transactions, with a reason for each item."""
        code, operation = "TransactionCanceledException", "TransactWriteItems"
        return self.failing_database(code, times, operation, reasons=list(reasons))

    @contextmanager
    def failing_database(
        self, code: str, times: int = 1000, operation: str = "", *, reasons: list[str] | None = None
    ) -> Iterator[None]:
        """Let DynamoDB refuse the next calls of an operation with an error code."""
        left = iter(range(times))

        def refuse(request: Any, **_: Any) -> None:
            target = str(request.headers["X-Amz-Target"])
            if operation in target and next(left, None) is not None:
                if code == "ReadTimeout":
                    time_out(request)
                error: Any = {
                    "Error": {"Code": code, "Message": "jane@example.com is refused"},
                    "CancellationReasons": [{"Code": reason} for reason in reasons or []],
                }
                raise ClientError(error, operation)

        with hooked(database_client(), "before-send.dynamodb", refuse):
            yield


class Counts:
    """The calls to DynamoDB and to Stripe."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.bodies: list[Json] = []
        self.stripe = 0

    @property
    def database(self) -> int:
        """Round trips to DynamoDB."""
        return len(self.operations)

    def record_request(self, request: Any, **_: Any) -> None:
        """Record a request to DynamoDB."""
        target = request.headers["X-Amz-Target"]
        name = target.decode() if isinstance(target, bytes) else target
        self.operations.append(name.rpartition(".")[2])
        self.bodies.append(json.loads(request.body))


@contextmanager
def hooked(client: Any, name: str, hook: Callable[..., None]) -> Iterator[None]:
    """Call a hook on an event of an AWS client inside the block."""
    client.meta.events.register(name, hook)
    try:
        yield
    finally:
        client.meta.events.unregister(name, hook)


def time_out(request: Any, **_: Any) -> None:
    """A hook on sending a request: no response comes."""
    raise ReadTimeoutError(endpoint_url=request.url)


def _change(image: Json) -> Json:
    """What the stream has of a new item."""
    return {"Keys": {"pk": image["pk"], "sk": image["sk"]}, "NewImage": image}


def database_client() -> Any:
    """The client that the records use."""
    return Record.connection().client


def problem_of(response: Json) -> tuple[int, str]:
    """Status and type of problem details."""
    problem = response["json"]
    assert response["headers"]["content-type"] == "application/problem+json"
    assert problem["status"] == response["statusCode"]
    assert problem["title"]
    assert problem["detail"]
    return response["statusCode"], problem["type"].removeprefix("urn:stripe-integrations:problem:")


def stored_event(stripe_id: str) -> Event:
    """A stored event, which must be there."""
    event = Event.find(stripe_id)
    assert event, f"{stripe_id} is not stored"
    return event


def exhaust(stripe_id: str) -> None:
    """Let the next attempt of an event be one too many."""
    stored_event(stripe_id).update([Event.attempts.set(MAX_ATTEMPTS), Event.next_attempt.set(0)])


def stripe_event(kind: str = "customer.updated", number: int = 1, **changes: Any) -> Json:
    """An event as Stripe sends it, by default of a customer that is not stored."""
    return {
        "id": f"evt_{number}",
        "object": "event",
        "api_version": API_VERSION,
        "created": int(START),
        "data": {"object": {"id": "cus_unknown", "object": "customer"}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": "req_1", "idempotency_key": None},
        "type": kind,
        **changes,
    }
