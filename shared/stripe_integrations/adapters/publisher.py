"""Messages to other services: dead letters to a queue, events to an event bus. Ids only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from stripe_integrations.adapters.aws import client_config
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
        _call(
            "sqs",
            "send_message",
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
    response = _call("events", "put_events", Entries=[entry])
    if response.get("FailedEntryCount"):
        raise MessageNotSentError("events: the entry was not accepted")


def _call(service: str, operation: str, **arguments: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        response: dict[str, Any] = getattr(_client(service), operation)(**arguments)
    except ClientError as error:
        raise MessageNotSentError(f"{service}: {error.response['Error']['Code']}") from error
    except BotoCoreError as error:
        raise MessageNotSentError(f"{service}: {type(error).__name__}") from error
    return response


@cache
def _client(service: str) -> Any:
    """Made, and boto3 imported, when the first message is sent."""
    import boto3  # noqa: PLC0415

    return boto3.client(service, config=client_config())
