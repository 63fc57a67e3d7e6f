"""Messages to other services: dead letters to a queue, events to an event bus. Ids only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stripe_integrations.adapters.aws import call
from stripe_integrations.config import Settings
from stripe_integrations.errors import MessageNotSentError

SOURCE = "stripe-integrations"


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
