"""DynamoDB, SQS and EventBridge with latency, throttling and failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from simulation.database import Database, Response, error_response
from simulation.processes import Call, Fleet, Invocation
from stripe_integrations.adapters import aws
from stripe_integrations.errors import MessageNotSentError
from stripe_integrations.models.table import Record

Json = dict[str, Any]

_DATABASE_SECONDS = (0.002, 0.05)
_SERVICE_SECONDS = (0.005, 0.1)
_ENDPOINT = "https://dynamodb.eu-west-1.amazonaws.com"
APPLYING = ("apply_event", "reconcile_events", "replay_events")
"""The functions that apply events."""
_TRANSACTION = "TransactWriteItems"


class SimulatedDatabase:
    """The database behind the calls of all invocations.

    Parameters
    ----------
    database : Database
        The engine that handles the requests.
    fleet : Fleet
        The processes whose invocations call.
    changed : callable
        Called at the moment when a call has taken effect.
    on_success : callable
        Called before `changed`, with the invocation, the operation and the body of each successful
        call.
    latency : tuple of float
        The shortest and the longest time of a request, and of a response, in seconds.
    """

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        changed: Callable[[], None],
        on_success: Callable[[Invocation, str, Json], None],
        latency: tuple[float, float] = _DATABASE_SECONDS,
    ) -> None:
        self._database = database
        self._latency = latency
        self._fleet = fleet
        self._changed = changed
        self._on_success = on_success

    def respond(self, operation: str, body: Json) -> Response:
        """Handle one request, or raise the error that botocore raises for a network failure."""
        invocation = self._fleet.invocation()
        call = invocation.begin("database", operation, self._latency)
        key = body.get("Key", {}).get("pk", {}).get("S", "")
        if invocation.poison and not key.startswith("EVENT#"):
            invocation.die()
        refusal = self._refusal(invocation, call, operation, body)
        if refusal is not None:
            invocation.wait(call.back)
            return refusal
        response = self._database.request(operation, body)
        if response.status == 200:
            self._on_success(invocation, operation, body)
        self._fleet.trace(call.name, call.fault, response.status, response.body.get("__type"))
        self._changed()
        if response.status == 200:
            self._poison(invocation, operation, key)
        if call.fault == "lost response":
            invocation.wait(Record.Meta.read_timeout_seconds)
            raise ReadTimeoutError(endpoint_url=_ENDPOINT)
        invocation.end(call)
        if call.fault == "error after effect":
            return error_response("InternalServerError", status=500)
        return response

    def _poison(self, invocation: Invocation, operation: str, key: str) -> None:
        """Poison an invocation from its claim of a poisonous event until it finishes the event."""
        if operation != "UpdateItem" or invocation.function not in APPLYING:
            return
        if invocation.poison == key:
            invocation.poison = None
        elif invocation.faults.is_poisonous(key):
            invocation.poison = key

    def _refusal(
        self, invocation: Invocation, call: Call, operation: str, body: Json
    ) -> Response | None:
        """The error that replaces a call's effect, if its fault is of that kind."""
        if call.fault:
            self._fleet.trace(call.name, call.fault)
        match call.fault:
            case "refused":
                raise _unreachable(call)
            case "lost request":
                invocation.wait(Record.Meta.read_timeout_seconds)
                raise ReadTimeoutError(endpoint_url=_ENDPOINT)
            case "error before effect":
                return error_response("InternalServerError", status=500)
            case "throttled":
                return _throttled(operation, body, call.drawn)
            case "conflict" if operation == _TRANSACTION:
                return _cancelled("TransactionConflict", body, call.drawn)
            case "conflict" if operation in ("PutItem", "UpdateItem", "DeleteItem"):
                return error_response("TransactionConflictException")
        return None


class SimulatedService:
    """The queue or the bus, with the messages that it received.

    Parameters
    ----------
    name : str
        ``queue`` or ``bus``.
    fleet : Fleet
        The processes that send.

    Attributes
    ----------
    messages, senders, times : list
        Each message as JSON, the invocation that sent it, and the time of its receipt.
    """

    def __init__(self, name: str, fleet: Fleet) -> None:
        self.messages: list[str] = []
        self.senders: list[Invocation] = []
        self.times: list[float] = []
        self._name = name
        self._fleet = fleet

    def send(self, message: Mapping[str, Any]) -> None:
        """Receive one message.

        Raises
        ------
        MessageNotSentError
            The message was refused, or the response was lost.
        """
        text = json.dumps(message, default=str, sort_keys=True)
        invocation = self._fleet.invocation()
        call = invocation.begin(self._name, self._name, _SERVICE_SECONDS)
        self._fleet.trace(call.name, call.fault)
        if call.fault == "refused":
            if call.drawn < 0.5:
                invocation.wait(aws.CONNECT_SECONDS * aws.ATTEMPTS)
            raise MessageNotSentError(f"{self._name}: EndpointConnectionError")
        self._receive(text, invocation)
        if call.fault == "lost response":
            self._lose_responses(invocation, text, call.drawn)
        invocation.end(call)

    def _lose_responses(self, invocation: Invocation, text: str, drawn: float) -> None:
        """Receive the message again for each retry of the library; a retry may succeed."""
        invocation.wait(aws.READ_SECONDS)
        for _ in range(aws.ATTEMPTS - 1):
            self._receive(text, invocation)
            if drawn < 0.3:
                return
            invocation.wait(aws.READ_SECONDS)
        raise MessageNotSentError(f"{self._name}: ReadTimeoutError")

    def _receive(self, text: str, invocation: Invocation) -> None:
        self.messages.append(text)
        self.senders.append(invocation)
        self.times.append(invocation.schedule.now)


def _unreachable(call: Call) -> HTTPClientError:
    if call.drawn < 0.5:
        return ConnectTimeoutError(endpoint_url=_ENDPOINT)
    return EndpointConnectionError(endpoint_url=_ENDPOINT)


def _throttled(operation: str, body: Json, drawn: float) -> Response:
    if operation == _TRANSACTION and drawn < 0.5:
        return _cancelled("ThrottlingError", body, drawn * 2)
    if drawn < 0.75:
        return error_response("ProvisionedThroughputExceededException")
    return error_response("ThrottlingException")


def _cancelled(code: str, body: Json, drawn: float) -> Response:
    """A transaction that one of its items cancelled."""
    items = len(body["TransactItems"])
    cause = int(drawn * items)
    reasons = [{"Code": code if index == cause else "None"} for index in range(items)]
    return error_response(
        "TransactionCanceledException",
        "Transaction cancelled, please refer to cancellation reasons for specific reasons",
        CancellationReasons=reasons,
    )
