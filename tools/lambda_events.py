"""What Lambda hands to a handler, as AWS documents it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from stripe_integrations.entrypoints.user_in_url import PATH_PATTERN

Json = dict[str, Any]


def api_event(
    method: str,
    path: str,
    user_id: str | None = None,
    *,
    query: str = "",
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
    claims: Mapping[str, str] | None = None,
) -> Json:
    """An event of an HTTP API, or of a Function URL at `/`, payload format 2.0.

    With claims, a JWT authorizer has passed it; otherwise IAM has, if it is of the API.
    """
    event: Json = {
        "version": "2.0",
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"content-type": "application/json", **(headers or {})},
        "requestContext": {
            "http": {"method": method, "path": path},
            "requestId": "request-1",
            "stage": "$default",
        },
        "isBase64Encoded": False,
    }
    if body is not None:
        event["body"] = body
    if user_id is not None:
        event["pathParameters"] = {"user_id": user_id}
    if claims is not None:
        event["requestContext"]["authorizer"] = {"jwt": {"claims": dict(claims), "scopes": None}}
    elif path != "/":
        event["requestContext"]["authorizer"] = {"iam": {"accountId": "123456789012"}}
    return event


def user_event(method: str, user_id: str, tail: str = "", **more: Any) -> Json:
    """An event with the user's id in the path or, where it is not safe there, in the query.

    The tail is what the route has after the id.
    """
    if re.match(PATH_PATTERN, user_id):
        return api_event(method, f"/customers/{user_id}{tail}", user_id, **more)
    query = f"user_id={quote(user_id.encode('utf-8', 'surrogatepass'), safe='')}"
    return api_event(method, f"/customers{tail}", query=query, **more)


def event_bridge_event(detail: object, source: str) -> Json:
    """An event as EventBridge delivers it; of Stripe's partner event source, `detail` is Stripe's.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
    """
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": detail.get("type") if isinstance(detail, dict) else "unknown",
        "source": source,
        "account": "123456789012",
        "time": "2026-01-05T10:15:00Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": detail,
    }


def lambda_context(remaining_milliseconds: int = 29_000) -> SimpleNamespace:
    """The context object that Lambda hands to a handler."""
    return SimpleNamespace(
        function_name="function",
        memory_limit_in_mb=256,
        invoked_function_arn="arn:aws:lambda:eu-west-1:123456789012:function:function",
        aws_request_id="00000000-0000-0000-0000-000000000000",
        tenant_id=None,
        get_remaining_time_in_millis=lambda: remaining_milliseconds,
    )
