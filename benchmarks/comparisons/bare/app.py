"""The least that a function on DynamoDB does: one client, and the calls that its event names."""

import base64
import json
from typing import Any

import boto3

client = boto3.client("dynamodb")


def handler(event: dict[str, Any], _: object) -> dict[str, Any]:
    response: dict[str, Any] = {}
    for call in event["calls"]:
        response = getattr(client, call["operation"])(**with_bytes(call["arguments"]))
    return {"statusCode": 200, "body": json.dumps(response.get("Items", []), default=str)}


def with_bytes(value: Any) -> Any:
    """Return the arguments of a call with bytes where DynamoDB's JSON has base64."""
    if isinstance(value, list):
        return [with_bytes(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"B"}:
        return {"B": base64.b64decode(value["B"])}
    return {name: with_bytes(each) for name, each in value.items()}
