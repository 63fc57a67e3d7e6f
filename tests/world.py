"""The product in a process of its own: a table, a Stripe and a clock that moves when told to."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError, ReadTimeoutError
from pynamodb.models import Model

import functions.apply_event.app as apply_event
import functions.create_customer.app as create_customer
import functions.get_customer.app as get_customer
import functions.link_customer.app as link_customer
import functions.rebuild_customers.app as rebuild_customers
import functions.reconcile_events.app as reconcile_events
import functions.replay_events.app as replay_events
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.double import StripeDouble
from stripe_integrations.adapters.stripe_gateway import StripeGateway
from stripe_integrations.config import Settings
from stripe_integrations.context import Context
from stripe_integrations.errors import MessageNotSentError
from stripe_integrations.models.table import Record
from stripe_integrations.observability import Metric
from tests import roles
from tools.lambda_events import api_event, lambda_context

Json = dict[str, Any]

START = 1_800_000_000.0
WEBHOOK_SECRET = "whsec_double"


class World:
    """The product's functions, called as AWS calls them, and what stands around them.

    Each function runs under its role in template.yaml. What a test does by itself is free.

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
        self.measured: list[tuple[Metric, float]] = []
        self.settings = Settings(
            **{
                "table_name": table_name,
                "api_key": "sk_test_double",
                "webhook_secret": WEBHOOK_SECRET,
                **settings,
            }
        )
        self.deployment = roles.Deployment(
            EventBusName=self.settings.event_bus_name or "",
            SecretStore=(self.settings.api_key_name or "secretsmanager").partition(":")[0],
        )
        self.used: defaultdict[str, set[roles.Grant]] = defaultdict(set)
        self.context = self.new_context()

    def new_context(self) -> Context:
        """The surroundings of one more process of the product."""
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
            measure=lambda metric, value: self.measured.append((metric, value)),
        )

    def sleep(self, seconds: float) -> None:
        """Let time pass, and happen what a test has set for it."""
        self.time += seconds
        with roles.acting_freely():
            self.during_sleep()

    def send_dead_letter(self, message: Mapping[str, Any]) -> None:
        """What the dead-letter queue does."""
        if not roles.allowed(roles.send_message(roles.DEAD_LETTERS)):
            raise MessageNotSentError("sqs: AccessDenied")
        self.dead_letters.append(dict(message))

    def publish(self, detail: Mapping[str, Any]) -> None:
        """What the event bus does."""
        if not roles.allowed(roles.put_events(self.settings.event_bus_name or "")):
            raise MessageNotSentError("events: AccessDeniedException")
        self.published.append(dict(detail))

    # ---- the functions

    def create(self, user_id: str = "u-1", **fields: Any) -> Json:
        """POST /customers."""
        body = {"user_id": user_id, "billing_email": "jane@example.com", **fields}
        return self.call(create_customer, api_event("POST", "/customers", body=json.dumps(body)))

    def get(self, user_id: str = "u-1") -> Json:
        """GET /customers/{user_id}."""
        return self.call(get_customer, api_event("GET", f"/customers/{user_id}", user_id))

    def sync(self, user_id: str = "u-1") -> Json:
        """POST /customers/{user_id}/sync."""
        return self.call(sync_customer, api_event("POST", f"/customers/{user_id}/sync", user_id))

    def delete(self, user_id: str = "u-1") -> Json:
        """DELETE /customers/{user_id}."""
        return self.call(
            soft_delete_customer, api_event("DELETE", f"/customers/{user_id}", user_id)
        )

    def webhook(self, body: bytes, headers: Mapping[str, str]) -> Json:
        """POST to the Function URL."""
        event = api_event("POST", "/", body=body.decode("utf-8", "surrogateescape"))
        return self.call(link_customer, {**event, "headers": dict(headers)})

    def reconcile(self, remaining_seconds: float = 290) -> Json:
        """What the schedule does."""
        return self.invoke(reconcile_events, {}, int(remaining_seconds * 1000))

    def replay(self, event: Json, remaining_seconds: float = 890) -> Json:
        """Call replay_events by hand."""
        return self.invoke(replay_events, event, int(remaining_seconds * 1000))

    def rebuild(self, event: Json | None = None, remaining_seconds: float = 890) -> Json:
        """Call rebuild_customers by hand."""
        return self.invoke(rebuild_customers, event or {}, int(remaining_seconds * 1000))

    def run_apply_event(self, event: Json, remaining_seconds: float = 60) -> Json:
        """What the table's stream does."""
        return self.invoke(apply_event, event, int(remaining_seconds * 1000))

    def invoke(
        self, function: ModuleType, event: Json, remaining_milliseconds: int = 29_000
    ) -> Json:
        """Call a function under its role."""
        name = function.__name__.split(".")[1]
        with roles.acting_under(self.deployment.role(name), self.used[name]):
            answer: Json = function.handler(event, lambda_context(remaining_milliseconds))
        return answer

    def call(self, function: ModuleType, event: Json) -> Json:
        """Call a function as AWS does; an answer's JSON body comes back parsed, under `json`."""
        answer = self.invoke(function, event)
        if "body" in answer:
            answer["json"] = json.loads(answer["body"])
        return answer

    # ---- what Stripe and AWS do

    def deliver(self) -> list[Json]:
        """Bring Stripe's webhooks that are due; the functions' answers."""
        answers = []
        for delivery in self.stripe.webhooks.due():
            answer = self.webhook(delivery.body, delivery.headers)
            self.stripe.webhooks.mark(delivery, answer["statusCode"])
            answers.append(answer)
        return answers

    def stream(self, *keys: tuple[str, str]) -> Json:
        """What the table's stream does with items that are new; by default with all there are."""
        images = [
            image
            for image in self.images()
            if (image["pk"]["S"], image["sk"]["S"]) in keys
            or (not keys and image["record_type"]["S"] in ("Customer", "Event"))
        ]
        records = [
            {
                "eventID": str(number),
                "eventName": "INSERT",
                "eventSource": "aws:dynamodb",
                "dynamodb": {
                    "Keys": {"pk": image["pk"], "sk": image["sk"]},
                    "NewImage": image,
                    "SequenceNumber": str(number),
                },
            }
            for number, image in enumerate(images)
        ]
        return self.run_apply_event({"Records": records})

    def settle(self) -> None:
        """Deliver and apply until nothing is left to be delivered."""
        while self.stripe.webhooks.due():
            self.deliver()
        self.stream()

    # ---- looking at the outcome

    def items(self, **where: str) -> list[Json]:
        """What the table holds: plain values under their attribute names."""
        read = TypeDeserializer()
        items = [
            {name: read.deserialize(value) for name, value in image.items()}
            for image in self.images()
        ]
        return [item for item in items if where.items() <= item.items()]

    def images(self) -> list[Json]:
        """What the table holds, in DynamoDB's own words."""
        pages = (
            Record.connection()
            .client.get_paginator("scan")
            .paginate(TableName=self.settings.table_name, ConsistentRead=True)
        )
        return [item for page in pages for item in page["Items"]]

    def event_states(self) -> dict[str, str]:
        """State by type of event, of the events that stand in the table."""
        return {item["kind"]: item["state"] for item in self.items(record_type="Event")}

    def ask(self, method: str, path: str, params: Json | None = None) -> Json:
        """Do something on Stripe, as its dashboard or another service would."""
        answer = self.stripe.request(
            method, path, params, {"Authorization": "Bearer sk_test_double"}
        )
        assert answer.status == 200, answer.body
        return answer.body

    def payload(self, kind: str) -> Json:
        """The newest event of a type, as Stripe's list has it, whether it was delivered or not."""
        events = self.ask("GET", "/v1/events", {"type": kind, "limit": 1})["data"]
        payload: Json = events[0]
        return payload

    def stripe_customers(self) -> list[Json]:
        """The customers that Stripe has."""
        customers: list[Json] = self.ask("GET", "/v1/customers", {"limit": 100})["data"]
        return customers

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count the calls to DynamoDB and to Stripe inside the block."""
        counts = Counts()
        events = Record.connection().client.meta.events
        events.register("before-send.dynamodb", counts.note_database)
        before = len(self.stripe.requests)
        try:
            yield counts
        finally:
            counts.stripe = len(self.stripe.requests) - before
            events.unregister("before-send.dynamodb", counts.note_database)

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
                    raise ReadTimeoutError(endpoint_url=request.url)
                error: Any = {
                    "Error": {"Code": code, "Message": "jane@example.com is refused"},
                    "CancellationReasons": [{"Code": reason} for reason in reasons or []],
                }
                raise ClientError(error, operation)

        events = Record.connection().client.meta.events
        events.register("before-send.dynamodb", refuse)
        try:
            yield
        finally:
            events.unregister("before-send.dynamodb", refuse)


class Counts:
    """How often each of the others was asked."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.bodies: list[Json] = []
        self.stripe = 0

    @property
    def database(self) -> int:
        """Round trips to DynamoDB."""
        return len(self.operations)

    def note_database(self, request: Any, **_: Any) -> None:
        """Take note of one request."""
        target = request.headers["X-Amz-Target"]
        name = target.decode() if isinstance(target, bytes) else target
        self.operations.append(name.rpartition(".")[2])
        self.bodies.append(json.loads(request.body))


def fields(record: Model) -> Json:
    """A record's values by name."""
    return dict(record.attribute_values)
