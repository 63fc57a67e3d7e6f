"""Lets a botocore client talk to a function instead of the network."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import botocore
import botocore.handlers
from botocore.awsrequest import AWSResponse

from simulation.database.errors import Answer, Json

EVENT = "before-send.dynamodb"

Answering = Callable[[str, Json], Answer]
"""Gets an operation's name and a request's body; answers, or raises what botocore would raise."""


@contextmanager
def answering(client: Any, answer: Answering) -> Iterator[None]:
    """Let a function answer a client's requests for the length of the block.

    Other handlers of the event run before, whenever they were registered: what one of them
    raises, or answers, keeps the request from being carried out.

    Parameters
    ----------
    client : botocore.client.BaseClient
        A client of DynamoDB.
    answer : callable
        Gets an operation's name and a request's body. It answers, or raises an exception of
        botocore's, such as ``ReadTimeoutError``: then the client behaves as if no answer had come.
    """
    with _answering(client, answer, client.meta.events.register_last):
        yield


@contextmanager
def answering_instead(client: Any, answer: Answering) -> Iterator[None]:
    """`answering`, for a client that has an answer already; this one counts.

    Parameters
    ----------
    client : botocore.client.BaseClient
        A client of DynamoDB.
    answer : callable
        As for `answering`.
    """
    with _answering(client, answer, client.meta.events.register_first):
        yield


@contextmanager
def _answering(client: Any, answer: Answering, register: Callable[..., None]) -> Iterator[None]:
    handler = _Handler(answer)
    register(EVENT, handler)
    try:
        with _unsigned(client), _constant_user_agent(client):
            yield
    finally:
        client.meta.events.unregister(EVENT, handler)


@contextmanager
def _unsigned(client: Any) -> Iterator[None]:
    """Nobody looks at a signature here, and making one takes a fifth of a request's time."""

    def unsigned(**_: Any) -> Any:
        return botocore.UNSIGNED

    client.meta.events.register_first("choose-signer.dynamodb", unsigned)
    try:
        yield
    finally:
        client.meta.events.unregister("choose-signer.dynamodb", unsigned)


@contextmanager
def _constant_user_agent(client: Any) -> Iterator[None]:
    """botocore writes the User-Agent anew, twice a request: another fifth of its time."""
    creator = client._user_agent_creator
    text = creator.to_string()
    creator.to_string = lambda: text
    try:
        yield
    finally:
        creator.__dict__.pop("to_string", None)


@contextmanager
def answering_new_clients(answer: Answering) -> Iterator[None]:
    """Let a function answer the requests of every client that is made inside the block.

    Parameters
    ----------
    answer : callable
        As for `answering`.
    """
    entry = (EVENT, _Handler(answer), botocore.handlers.REGISTER_LAST)
    botocore.handlers.BUILTIN_HANDLERS.append(entry)
    try:
        yield
    finally:
        botocore.handlers.BUILTIN_HANDLERS.remove(entry)


class _Handler:
    """Reads a request, has it answered, and writes the answer."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._numbers = itertools.count(1)

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        target = request.headers["X-Amz-Target"]
        if isinstance(target, bytes):
            target = target.decode()
        operation = target.rpartition(".")[2]
        answer = self._answer(operation, json.loads(request.body))
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "x-amzn-RequestId": f"{next(self._numbers):032X}",
        }
        return AWSResponse(request.url, answer.status, headers, Raw(answer.body))


class Raw:
    """What AWSResponse takes for the connection that an answer came from."""

    def __init__(self, body: Json) -> None:
        self._content = json.dumps(body).encode()

    def stream(self) -> Iterator[bytes]:
        """The answer's body."""
        yield self._content
