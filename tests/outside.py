"""The calls that the product makes to AWS and Stripe, and the ways in which each can fail.

Every failure quotes its request: DynamoDB's errors an item, Stripe's errors a value, a network
error its address. So a test sees what leaks of an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import stripe
from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    BotoCoreError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from local.stripe_double.client import ResponseHeaders, StripeDoubleClient
from simulation.database import Response, error_response
from simulation.database.transport import Raw
from stripe_integrations.adapters import secrets
from stripe_integrations.adapters.aws import client as aws_client
from stripe_integrations.adapters.stripe_gateway import StripeGateway
from stripe_integrations.context import Context
from tests.marked import mark
from tests.marked_world import API_KEY, OLD_SECRET, SECRET, MarkedWorld, Output

Json = dict[str, Any]

STORED = {"stripe/api-key": API_KEY, "stripe/webhook-secret": f"{OLD_SECRET} {SECRET}"}
QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/dead-letters"
BUS = "changes"


@dataclass(frozen=True)
class Way:
    """A way in which a call fails.

    Parameters
    ----------
    name : str
        For the message of a test that fails.
    fail : callable
        Gets the request as text, and a callable that handles it; returns a response, or raises.
    lasts : bool
        Whether its service fails from then on, or only once.
    """

    name: str
    fail: Callable[[str, Callable[[], Any]], Any]
    lasts: bool = True


@dataclass
class Plan:
    """Which call fails, and in which way."""

    number: int | None = None
    way: Way | None = None


class Outside:
    """AWS and Stripe as the product sees them: each call is recorded, and may fail.

    Parameters
    ----------
    plan : Plan
        What fails.
    """

    def __init__(self, plan: Plan) -> None:
        self.calls: list[str] = []
        self.is_serving = False
        self._plan = plan
        self._failing: str | None = None

    def meet(self, service: str, operation: str, asked: str, respond: Callable[[], Any]) -> Any:
        """Handle a call, unless it is planned to fail. Calls of the test itself do not count."""
        if not self.is_serving:
            return respond()
        number = len(self.calls)
        self.calls.append(f"{service} {operation}")
        way = self._plan.way
        if way is None:
            return respond()
        if number == self._plan.number and way.lasts:
            self._failing = service
        if number == self._plan.number or self._failing == service:
            return way.fail(asked, respond)
        return respond()


class FailingWorld(MarkedWorld):
    """A world whose secrets, queue and bus seem to be AWS's.

    Parameters
    ----------
    output : Output
        Gets what Lambda would print of an exception.
    **settings
        Settings that differ.
    """

    def __init__(self, output: Output, **settings: Any) -> None:
        self.outside = Outside(Plan())
        self.responses: list[Json] = []
        self.signatures: list[str] = []
        self._output = output
        super().__init__(
            **{
                "api_key": None,
                "webhook_secret": None,
                "api_key_name": "secretsmanager:stripe/api-key",
                "webhook_secret_name": "secretsmanager:stripe/webhook-secret",
                "dead_letters_url": QUEUE_URL,
                "event_bus_name": BUS,
                **settings,
            }
        )

    def new_context(self) -> Context:
        """The context of one more process, which calls AWS itself."""
        context = super().new_context()
        context.send_dead_letter = context.publish = None
        context.make_stripe = partial(StripeGateway, http_client=_HttpClient(self))
        return context

    def invoke(
        self, function: ModuleType, event: Json, remaining_milliseconds: int = 29_000
    ) -> Json:
        """Invoke a function; an exception that leaves it ends in the log, as in Lambda."""
        self.outside.is_serving = True
        try:
            response = super().invoke(function, event, remaining_milliseconds)
        except Exception as error:
            self._output.add_failure(error)
            return {}
        finally:
            self.outside.is_serving = False
        self.responses.append(response)
        return response

    def respond(self, operation: str, body: Json) -> Response:
        """Handle a request to DynamoDB."""
        response: Response = self.outside.meet(
            "dynamodb", operation, json.dumps(body), lambda: self.database.request(operation, body)
        )
        return response

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Let this world stand in for AWS's other services, without any pause."""
        clients = {
            "secretsmanager": aws_client("secretsmanager"),
            "sqs": aws_client("sqs"),
            "events": aws_client("events"),
        }
        handlers = {name: self._handler(name) for name in clients}
        for name, client in clients.items():
            client.meta.events.register_first(f"before-send.{_id(client)}", handlers[name])
        try:
            with mock.patch("botocore.endpoint.time.sleep"):
                yield
        finally:
            for name, client in clients.items():
                client.meta.events.unregister(f"before-send.{_id(client)}", handlers[name])

    def begin(self, plan: Plan) -> None:
        """Begin a new process with empty caches, in which this is planned to fail."""
        self.outside = Outside(plan)
        secrets.forget()

    def _handler(self, service: str) -> Callable[..., AWSResponse]:
        def respond(request: Any, event_name: str, **_: Any) -> AWSResponse:
            operation = event_name.rpartition(".")[2]
            text = request.body if isinstance(request.body, str) else request.body.decode()
            given = self.outside.meet(
                service, operation, text, lambda: Response(200, self._of_aws(operation, text))
            )
            headers = {"Content-Type": "application/x-amz-json-1.1"}
            return AWSResponse(request.url, given.status, headers, Raw(given.body))

        return respond

    def _of_aws(self, operation: str, text: str) -> Json:
        match operation:
            case "GetSecretValue":
                return {"SecretString": STORED[json.loads(text)["SecretId"]]}
            case "SendMessage":
                self.dead_letters.append(json.loads(text))
                return {"MessageId": "1", "MD5OfMessageBody": _md5(text)}
            case "PutEvents":
                self.published.append(json.loads(text))
                return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}
        raise ValueError(operation)


def _md5(text: str) -> str:
    body = json.loads(text)["MessageBody"]
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def _id(client: Any) -> str:
    return str(client.meta.service_model.service_id.hyphenize())


class _HttpClient(StripeDoubleClient):
    """Sends the gateway's calls to the world's Stripe, unless they are planned to fail."""

    def __init__(self, world: FailingWorld) -> None:
        super().__init__(world.stripe, sleep=world.sleep, timeout=8)
        self._world = world

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        **more: Any,
    ) -> tuple[str, int, Mapping[str, str]]:
        """Handle one call of the library."""
        asked = super().request
        response: tuple[str, int, Mapping[str, str]] = self._world.outside.meet(
            "stripe",
            f"{method.upper()} {url.partition('?')[0].rpartition('/v1')[2]}",
            f"{url} {post_data} {dict(headers or {})}",
            lambda: asked(method, url, headers, post_data, **more),
        )
        return response


# ---- the ways


def _error(code: str, status: int = 400, **members: Any) -> Callable[[str, Any], Response]:
    def fail(asked: str, _: Any) -> Response:
        return error_response(code, f"{mark('message of AWS')}: {asked}", status=status, **members)

    return fail


def _raising(kind: type[BotoCoreError]) -> Callable[[str, Any], Response]:
    def fail(asked: str, _: Any) -> Response:
        raise kind(endpoint_url=f"https://aws/{mark('address of AWS')}?{asked}")

    return fail


def _cancelled(code: str) -> Callable[[str, Any], Response]:
    """A transaction that each item has cancelled, and is quoted."""

    def fail(asked: str, respond: Any) -> Response:
        items = json.loads(asked).get("TransactItems")
        if items is None:
            return _error(code + "Exception")(asked, respond)
        image = {"pk": {"S": mark("item of AWS")}, "sk": {"S": "x"}, "record_type": {"S": "x"}}
        reason = {"Code": code, "Message": f"{mark('message of AWS')}: {asked}", "Item": image}
        return _error("TransactionCanceledException", CancellationReasons=[reason] * len(items))(
            asked, respond
        )

    return fail


def _returning(body: Any, status: int = 200) -> Callable[[str, Any], Response]:
    return lambda _, __: Response(status, body)


def _garbled(_: str, respond: Callable[[], Response]) -> Response:
    """The right response, with values of other types than they should be."""
    body = json.loads(json.dumps(respond().body, default=str))
    items = [*body.get("Items", ()), *filter(None, [body.get("Item"), body.get("Attributes")])]
    for items_of_table in body.get("Responses", {}).values():
        items += items_of_table
    for item in items:
        for name in item:
            if name not in ("pk", "sk", "record_type"):
                item[name] = {"S": f"{mark('garbled item')} {name}"}
    return Response(200, body)


def _bug(asked: str, _: Any) -> Any:
    raise RuntimeError(f"{mark('message of a bug')}: {asked}")


_BUG = Way("bug in a library", _bug, lasts=False)
_OF_AWS = [
    _BUG,
    Way("connection refused", _raising(EndpointConnectionError), lasts=False),
    Way("read timeout", _raising(ReadTimeoutError)),
    Way("access denied", _error("AccessDeniedException"), lasts=False),
    Way("throttled", _error("ThrottlingException")),
    Way("internal error", _error("InternalServerError", 500), lasts=False),
    Way("no object", _returning([mark("response of AWS")])),
]
_OF_DYNAMODB = [
    *_OF_AWS,
    Way("validation", _error("ValidationException")),
    Way("condition failed", _cancelled("ConditionalCheckFailed"), lasts=False),
    Way("transaction refused", _cancelled("ValidationError"), lasts=False),
    Way("transaction throttled", _cancelled("ThrottlingError")),
    Way("odd response", _returning({"Items": mark("response of AWS"), "Item": 1, "Responses": []})),
    Way("garbled items", _garbled, lasts=False),
]
_OF_SECRETS = [
    *_OF_AWS,
    Way("no secret", _returning({})),
    Way("another secret", _returning({"SecretString": f"sk_live_{mark('other API key')}"})),
    Way("decryption", _error("DecryptionFailure")),
    Way("bytes", _returning({"SecretBinary": "AAAA"})),
]
_OF_BUS = [
    *_OF_AWS,
    Way(
        "entry refused",
        _returning(
            {
                "FailedEntryCount": 1,
                "Entries": [{"ErrorCode": "x", "ErrorMessage": mark("message of the bus")}],
            }
        ),
    ),
]


def _stripe_error(
    status: int, kind: str, **members: Any
) -> Callable[[str, Any], tuple[str, int, Mapping[str, str]]]:
    def fail(asked: str, _: Any) -> tuple[str, int, Mapping[str, str]]:
        message = f"{mark('message of Stripe')}: {asked}"
        error = {"type": kind, "message": message, "doc_url": asked, **members}
        return json.dumps({"error": error}), status, _headers()

    return fail


def _stripe_response(
    text: str, status: int = 200
) -> Callable[[str, Any], tuple[str, int, Mapping[str, str]]]:
    return lambda _, __: (text, status, _headers())


def _headers() -> Mapping[str, str]:
    return ResponseHeaders({"Request-Id": "req_1", "X-Odd": mark("header of Stripe")})


def _disconnected(asked: str, _: Any) -> Any:
    message = f"{mark('network error of Stripe')} Max retries exceeded with url: {asked}"
    raise stripe.APIConnectionError(message, should_retry=True)  # type: ignore[no-untyped-call]


def _of_the_other_mode(_: str, respond: Any) -> Any:
    text, status, headers = respond()
    return text.replace('"livemode": false', '"livemode": true'), status, headers


_ODD = mark("response of Stripe")
_INVALID = "invalid_request_error"
_OF_STRIPE = [
    _BUG,
    Way("invalid", _stripe_error(400, _INVALID, param=f"metadata[{mark('param')}]", code="bad")),
    Way("invalid in general", _stripe_error(400, _INVALID)),
    Way("key refused", _stripe_error(401, _INVALID)),
    Way("key refused once", _stripe_error(401, _INVALID), lasts=False),
    Way("declined", _stripe_error(402, "card_error", code="card_declined", decline_code="lost")),
    Way("missing", _stripe_error(404, _INVALID, code="resource_missing", param="id")),
    Way("idempotency key reused", _stripe_error(400, "idempotency_error")),
    Way("too many", _stripe_error(429, _INVALID, code="rate_limit")),
    Way("failing", _stripe_error(500, "api_error")),
    Way("disconnected", _disconnected),
    Way("a page", _stripe_response(f"<html>{_ODD}</html>", 502)),
    Way("no JSON", _stripe_response(f"<html>{_ODD}</html>")),
    Way("no object", _stripe_response(json.dumps([_ODD]))),
    Way("odd list", _stripe_response(json.dumps({"data": [{"name": _ODD}], "has_more": True}))),
    Way("odd entries", _stripe_response(json.dumps({"data": [_ODD, None], "has_more": False}))),
    Way("the other mode", _of_the_other_mode),
]

WAYS: Mapping[str, list[Way]] = {
    "dynamodb": _OF_DYNAMODB,
    "secretsmanager": _OF_SECRETS,
    "sqs": _OF_AWS,
    "events": _OF_BUS,
    "stripe": _OF_STRIPE,
}
