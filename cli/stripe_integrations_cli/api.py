"""Calls to the API's functions, by `lambda invoke`: the operator needs no key of Stripe's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.stack import Stack

Json = dict[str, Any]


def call(
    stack: Stack,
    function: str,
    route: str,
    *,
    user_id: str | None = None,
    body: Mapping[str, Any] | None = None,
) -> Json:
    """Invoke a function of the API, and return the JSON object in its response.

    Parameters
    ----------
    stack : Stack
        The stack.
    function : str
        The function, by its name in template.yaml.
    route : str
        Its route, such as ``GET /customers``.
    user_id : str, optional
        The user's id, for the query string.
    body : mapping, optional
        The JSON object that is sent.

    Raises
    ------
    CommandError
        The request was refused; the message has the problem's title and detail.
    """
    method, path = route.split(" ")
    event = http_event(method, path, {}, None if body is None else json.dumps(body))
    event["routeKey"] = route
    event["rawQueryString"] = "" if user_id is None else f"user_id={quote(user_id, safe='')}"
    event["requestContext"]["authorizer"] = _authorizer(stack)
    response = stack.invoke(function, event)
    result: Json = json.loads(response.get("body") or "{}")
    if response["statusCode"] >= 400:
        raise CommandError(f"{result['title']}: {result['detail']}")
    return result


def http_event(method: str, path: str, headers: Mapping[str, str], body: str | None) -> Json:
    """Return the event of a request with a JSON body, as HTTP APIs and Function URLs send it."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", **headers},
        "requestContext": {
            "http": {"method": method, "path": path},
            "requestId": "stripe-customers",
        },
        **({} if body is None else {"body": body}),
        "isBase64Encoded": False,
    }


def _authorizer(stack: Stack) -> Json:
    """What the authorizer of the routes passes for a backend."""
    if stack.parameters["CustomersAuthorizer"] == "iam":
        return {"iam": {"accountId": "stripe-customers"}}
    scope = stack.parameters["JwtAdminScope"]
    if not scope:
        raise CommandError("the API takes JWTs, and none may act for every user: set JwtAdminScope")
    return {"jwt": {"claims": {"scope": scope}, "scopes": None}}
