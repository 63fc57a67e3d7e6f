"""Lost, failed and published events, through the deployed functions and their roles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import Cloud, local_cloud
from tests.test_publish_page import BUS, SUBSCRIBER
from tools.published_event import schema_errors


def create(cloud: Cloud, user_id: str) -> str:
    body = {"user_id": user_id, "billing_email": "jenny@example.com"}
    response = cloud.request("POST", "/customers", body)
    assert response.status == 201, response
    stripe_id: str = response.body["stripe_id"]
    return stripe_id


def event_of(cloud: Cloud, customer: str) -> dict[str, Any]:
    """The event of a customer's creation, as the table has it; empty where it has none."""
    found = [i for i in cloud.items() if i["sk"] == "EVENT" and i.get("customer_id") == customer]
    return found[0] if found else {}


def test_reconcile_recovers_lost_event(cloud: Cloud) -> None:
    assert cloud.stripe.double
    with cloud.stripe.double.use() as stripe:
        stripe.webhooks.drop_next(1, "customer.created")
    customer = create(cloud, "u-lost")

    cloud.invoke(cloud.reconcile_events, {})

    cloud.wait_until(lambda: event_of(cloud, customer).get("state") == "applied", "it is applied")


def test_exhausted_event_is_dead_lettered_until_replay(
    cloud: Cloud,
) -> None:
    customer = create(cloud, "u-failed")
    cloud.wait_until(lambda: event_of(cloud, customer).get("state") == "applied", "it is applied")
    event = event_of(cloud, customer)
    make_due_for_the_last_time(cloud.client("dynamodb"), cloud.table_name, event["pk"])

    cloud.invoke(cloud.reconcile_events, {})

    assert event_of(cloud, customer)["state"] == "failed"
    sqs = cloud.client("sqs")
    letters = sqs.receive_message(QueueUrl=cloud.dead_letters_url, MaxNumberOfMessages=10)
    bodies = [json.loads(letter["Body"]) for letter in letters["Messages"]]
    assert event["stripe_id"] in {body.get("event_id") for body in bodies}

    assert cloud.invoke(cloud.replay_events, {"failed": True})["replayed"] == 1
    assert event_of(cloud, customer)["state"] == "applied"


def make_due_for_the_last_time(dynamodb: Any, table_name: str, pk: str) -> None:
    """Make an event pending, as it is after forty attempts that failed."""
    changed = ("#state = :pending", "attempts = :attempts", "queue = :queue", "next_attempt = :now")
    dynamodb.update_item(
        TableName=table_name,
        Key={"pk": {"S": pk}, "sk": {"S": "EVENT"}},
        UpdateExpression=f"SET {', '.join(changed)}",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={
            ":pending": {"S": "pending"},
            ":attempts": {"N": "40"},
            ":queue": {"S": "0"},
            ":now": {"N": "0"},
        },
    )


@pytest.fixture(scope="module")
def publishing(functions: Path) -> Iterator[Cloud]:
    """A cloud that publishes changes and invoices, with the subscriber of docs/publish.md."""
    parameters = {"EventBusName": BUS, "PublishTypes": "invoice.*"}
    with local_cloud(parameters=parameters, functions=functions) as cloud:
        cloudformation = cloud.client("cloudformation")
        cloudformation.create_stack(StackName="subscriber", TemplateBody=SUBSCRIBER)
        waiter = cloudformation.get_waiter("stack_create_complete")
        waiter.wait(StackName="subscriber", WaiterConfig={"Delay": 1})
        yield cloud


def test_applied_change_is_published(publishing: Cloud) -> None:
    queue = subscribe_queue(publishing, BUS)
    customer = create(publishing, "u-published")
    publishing.wait_until(
        lambda: event_of(publishing, customer).get("state") == "applied", "it is applied"
    )
    (published,) = messages(publishing, queue)
    assert published["source"] == "stripe-integrations"
    assert published["detail-type"] == "customer.created"
    assert published["detail"]["customer_id"] == customer
    assert schema_errors(published["detail"]) == []


def test_event_of_publish_type_reaches_subscriber(publishing: Cloud) -> None:
    customer = create(publishing, "u-invoiced")
    assert publishing.stripe.double
    with publishing.stripe.double.use() as stripe:
        for number, kind in enumerate(["invoice.created", "invoiceitem.created", "invoice.paid"]):
            invoice = {"id": f"in_{number}", "object": "invoice", "customer": customer}
            stripe.account.emit(kind, invoice)
    (stack,) = publishing.client("cloudformation").describe_stacks(StackName="subscriber")["Stacks"]
    (output,) = stack["Outputs"]
    (paid,) = messages(publishing, output["OutputValue"])
    assert paid["detail-type"] == "invoice.paid"
    assert (paid["detail"]["customer_id"], paid["detail"]["user_id"]) == (customer, "u-invoiced")
    assert paid["detail"]["effect"] == "none"
    assert schema_errors(paid["detail"]) == []


def messages(cloud: Cloud, queue: str) -> list[dict[str, Any]]:
    """The messages in a queue, once there is one."""
    found: list[dict[str, Any]] = []

    def receive() -> bool:
        received = cloud.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=1)
        found.extend(json.loads(message["Body"]) for message in received.get("Messages", []))
        return bool(found)

    cloud.wait_until(receive, "a message is in the queue")
    return found


def subscribe_queue(cloud: Cloud, name: str) -> str:
    """Create a queue that gets all events of a bus, and return its URL."""
    events, sqs = cloud.client("events"), cloud.client("sqs")
    queue: str = sqs.create_queue(QueueName="subscriber")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    pattern = json.dumps({"source": ["stripe-integrations"]})
    events.put_rule(Name="all", EventBusName=name, EventPattern=pattern)
    target = {"Id": "subscriber", "Arn": attributes["Attributes"]["QueueArn"]}
    events.put_targets(Rule="all", EventBusName=name, Targets=[target])
    return queue
