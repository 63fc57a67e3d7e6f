"""Messages to other services: dead letters, published events, and the erasure log. Ids only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stripe_integrations.adapters.aws import call
from stripe_integrations.config import Settings
from stripe_integrations.errors import MessageNotSentError

SOURCE = "stripe-integrations"
ERASURE_STREAM = "erasures"
"""The log stream of the erasure log."""


def send_dead_letter(settings: Settings, message: Mapping[str, Any]) -> None:
    """Send a message to the dead-letter queue, if the deployment has one.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html

    Parameters
    ----------
    settings : Settings
        Has the queue.
    message : mapping
        What has failed, in ids.

    Raises
    ------
    MessageNotSentError
        The queue did not accept it.
    """
    if settings.dead_letters_url:
        call(
            "sqs",
            "send_message",
            MessageNotSentError,
            QueueUrl=settings.dead_letters_url,
            MessageBody=json.dumps(dict(message)),
        )


def publish(settings: Settings, detail: Mapping[str, Any]) -> None:
    """Publish the effect of an event, at least once, to the event bus.

    https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html

    Parameters
    ----------
    settings : Settings
        Has the bus.
    detail : mapping
        The message, as docs/published-event.schema.json describes it: ids, among them `event_id`
        to deduplicate by, and `type`.

    Raises
    ------
    MessageNotSentError
        The bus did not accept it.
    """
    entry = {
        "EventBusName": settings.event_bus_name,
        "Source": SOURCE,
        "DetailType": detail["type"],
        "Detail": json.dumps(dict(detail)),
    }
    response = call("events", "put_events", MessageNotSentError, Entries=[entry])
    if response.get("FailedEntryCount"):
        raise MessageNotSentError("events: the entry was not accepted")


def log_erasure(settings: Settings, customer_ids: Sequence[str], time: float) -> None:
    """Add customers to the erasure log, outside the table, if the deployment has one.

    https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html

    Parameters
    ----------
    settings : Settings
        Has the log group.
    customer_ids : sequence of str
        The Stripe customers that are being erased.
    time : float
        Now, in Unix seconds.

    Raises
    ------
    MessageNotSentError
        CloudWatch Logs did not accept it.
    """
    if settings.erasure_log_group:
        entries = [{"timestamp": int(time * 1000), "message": each} for each in customer_ids]
        response = call(
            "logs",
            "put_log_events",
            MessageNotSentError,
            logGroupName=settings.erasure_log_group,
            logStreamName=ERASURE_STREAM,
            logEvents=entries,
        )
        if response.get("rejectedLogEventsInfo"):
            raise MessageNotSentError("logs: the entries were not accepted")
