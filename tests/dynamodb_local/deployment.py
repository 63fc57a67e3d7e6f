"""A table on DynamoDB Local, a Stripe behind HTTP, and processes of the product between them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import boto3
from boto3.dynamodb.types import TypeDeserializer

from local.stripe_double import StripeDoubleServer, sign
from tests.dynamodb_local.processes import Process
from tests.engines import REGION
from tests.local.stripe_history import StripeHistory
from tools.lambda_events import api_event

Json = dict[str, Any]

TABLE = "customers"
API_KEY = "sk_test_double"
SECRET = "whsec_double"
UNFINISHED = ("pending", "waiting")
LONGER_THAN_A_CLAIM = 200.0


class Deployment:
    """A table, a Stripe and processes of the product.

    Parameters
    ----------
    endpoint : str
        DynamoDB Local's address.
    stripe : StripeDoubleServer
        The Stripe double that all processes call.
    processes : list of Process
        The running processes; dead ones are replaced.
    """

    def __init__(self, endpoint: str, stripe: StripeDoubleServer, processes: list[Process]) -> None:
        self.stripe = stripe
        self.ahead = 0.0
        """How many seconds all clocks are ahead of this machine's."""
        self.behind = 0.0
        """How far Stripe's clock is behind those, while it generates events of the last minutes."""
        self.settings: Json = {}
        self._endpoint = endpoint
        self._processes = processes
        self._client = client(endpoint, "dynamodb")
        stripe.double.account.clock = lambda: time.time() + self.ahead - self.behind

    # ---- processes

    def command(self, function: str, event: Json, **more: Any) -> Json:
        """The command that makes a process invoke a function."""
        return {
            "function": function,
            "event": event,
            "seconds": 300 if function == "reconcile_events" else 29,
            "settings": {"api_base": self.stripe.url, **self.settings},
            "ahead": self.ahead,
            "begin": 0.0,
            **more,
        }

    def invoke(self, command: Json) -> Any:
        """The response of a process to a command; None if it died."""
        (response,) = self.at_once([command])
        return response

    def at_once(self, commands: Sequence[Json], random: Random | None = None) -> list[Any]:
        """The responses of as many processes, which begin together or within a few milliseconds."""
        processes = self.live_processes(len(commands))
        begin = time.monotonic() + 0.02
        for process, command in zip(processes, commands, strict=True):
            pause = random.uniform(0, 0.08) if random else 0.0
            process.send({**command, "begin": begin + pause})
        responses = [process.receive_response() for process in processes]
        self._replace_dead_processes()
        return responses

    def live_processes(self, number: int) -> list[Process]:
        """Some live processes, oldest first."""
        return self._processes[:number]

    def _replace_dead_processes(self) -> None:
        """Start processes in place of the dead ones."""
        for dead in [process for process in self._processes if process.is_dead]:
            dead.end()
            self._processes.remove(dead)
            self._processes.append(new_process(self._endpoint))

    # ---- what is invoked

    def create_command(self, user_id: str, **more: Any) -> Json:
        """The command to create a user's customer."""
        body = json.dumps({"user_id": user_id, "billing_email": "jenny@example.com"})
        return self.command("create_customer", api_event("POST", "/customers", body=body), **more)

    def create(self, user_id: str) -> str:
        """Create a user's customer; its Stripe id."""
        response = self.invoke(self.create_command(user_id))
        assert response["statusCode"] in (200, 201), response
        stripe_id: str = json.loads(response["body"])["stripe_id"]
        return stripe_id

    def soft_delete_command(self, user_id: str) -> Json:
        """The command to soft-delete it."""
        event = api_event("DELETE", f"/customers/{user_id}", user_id)
        return self.command("soft_delete_customer", event)

    def webhook_command(self, event: Json) -> Json:
        """The command that delivers a webhook of Stripe."""
        body = json.dumps(event)
        signature = sign(body.encode(), SECRET, time.time() + self.ahead)
        headers = {"stripe-signature": signature}
        return self.command("link_customer", api_event("POST", "/", body=body, headers=headers))

    def receive(self, events: Iterable[Json]) -> None:
        """Deliver webhooks, one after the other."""
        (process,) = self.live_processes(1)
        for event in events:
            process.send(self.webhook_command(event))
            assert process.receive_response()["statusCode"] == 200

    def stream_command(self, events: Iterable[Json], **more: Any) -> Json:
        """The command that invokes `apply_event` with stream records of new events."""
        records = [
            {
                "eventName": "INSERT",
                "dynamodb": {
                    "Keys": {"pk": {"S": f"EVENT#{event['id']}"}, "sk": {"S": "EVENT"}},
                    "NewImage": {"customer_id": {"S": customer_of(event)}},
                    "SequenceNumber": str(number),
                },
            }
            for number, event in enumerate(events)
        ]
        return self.command("apply_event", {"Records": records}, **{"seconds": 60, **more})

    def reconcile(self, **more: Any) -> Any:
        """Advance the clock past all claims, and invoke `reconcile_events`."""
        self.ahead += LONGER_THAN_A_CLAIM
        return self.invoke(self.command("reconcile_events", {}, **more))

    def finish_events(self) -> None:
        """Reconcile until every event has ended."""
        for _ in range(10):
            if not self.unfinished():
                return
            self.reconcile()
        raise AssertionError(f"still unfinished: {self.unfinished()}")

    # ---- Stripe

    def history(self, random: Random) -> StripeHistory:
        """A source of random changes of customers on Stripe."""
        return StripeHistory(self.stripe.double, API_KEY, random)

    def change(self, history: StripeHistory, customers: list[str], random: Random, n: int) -> None:
        """Change customers while Stripe's clock catches up with the others'."""
        for left in reversed(range(n)):
            with self.stripe.use():
                history.change(random.choice(customers))
                self.behind = self.behind * left / (left + 1)

    def events(self) -> list[Json]:
        """All of Stripe's events that name a customer."""
        with self.stripe.use() as stripe:
            return [event for event in stripe.account.events.values() if customer_of(event)]

    def event_ids(self) -> set[str]:
        """The ids of `events`."""
        return {event["id"] for event in self.events()}

    def on_stripe(self, user_id: str) -> list[str]:
        """The customers that Stripe ever made for a user."""
        with self.stripe.use() as stripe:
            return [
                customer["id"]
                for customer in stripe.account.customers.values()
                if customer["metadata"].get("stripe_integrations_user_id") == user_id
            ]

    # ---- the table

    def items(self) -> list[Json]:
        """The items of the table, as plain values."""
        pages = self._client.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True)
        return [plain(item) for page in pages for item in page["Items"]]

    def states(self) -> dict[str, str]:
        """The events' states by their ids."""
        items = self.items()
        return {i["stripe_id"]: i["state"] for i in items if i["record_type"] == "Event"}

    def unfinished(self) -> list[str]:
        """The events that have not ended."""
        return [event for event, state in self.states().items() if state in UNFINISHED]

    def active(self, user_id: str) -> list[str]:
        """A user's active records."""
        return [
            item["stripe_id"]
            for item in self.items()
            if item["pk"] == f"USER#{user_id}"
            and item["record_type"] == "Customer"
            and item["is_active"]
        ]

    def changes(self) -> list[tuple[Json, Json]]:
        """Every change that the table's stream has recorded, as items before and after it."""
        streams = client(self._endpoint, "dynamodbstreams")
        arn = self._client.describe_table(TableName=TABLE)["Table"]["LatestStreamArn"]
        found: list[tuple[Json, Json]] = []
        for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            iterator = streams.get_shard_iterator(
                StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while iterator:
                page = streams.get_records(ShardIterator=iterator)
                found += [
                    (plain(change.get("OldImage", {})), plain(change.get("NewImage", {})))
                    for change in (record["dynamodb"] for record in page["Records"])
                ]
                iterator = page.get("NextShardIterator") if page["Records"] else None
        return found


def client(endpoint: str, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=access_key(),
        aws_secret_access_key="local",
    )


def access_key() -> str:
    """The access key of this run: DynamoDB Local has a database per key."""
    return f"processes{os.getpid()}"


def new_process(endpoint: str) -> Process:
    return Process(
        {
            "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
            "AWS_ACCESS_KEY_ID": access_key(),
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "TABLE_NAME": TABLE,
            "DEPLOYMENT_NAME": "stripe-customers",
            "STRIPE_API_KEY": API_KEY,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "POWERTOOLS_SERVICE_NAME": "stripe-customers",
        }
    )


def plain(image: Mapping[str, Any]) -> Json:
    read = TypeDeserializer()
    return {name: read.deserialize(value) for name, value in image.items()}


def customer_of(event: Json) -> str:
    """The customer that an event names, or an empty string."""
    subject = event["data"]["object"]
    if subject["object"] == "customer":
        return str(subject["id"])
    before = event["data"].get("previous_attributes") or {}
    return str(subject.get("customer") or before.get("customer") or "")
