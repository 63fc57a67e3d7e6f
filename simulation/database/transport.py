"""Lets a client of DynamoDB talk to a function instead of the network."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from botocore.awsrequest import AWSResponse

from simulation.database.answers import Answer, Json

Answering = Callable[[str, Json], Answer]
"""Gets an operation's name and a request's body; answers, or raises what botocore would raise."""


@contextmanager
def answering(client: Any, answer: Answering) -> Iterator[None]:
    """Let a function answer a client's requests for the length of the block.

    It stands where the network does: what a handler of the client's events raises, or answers,
    keeps a request from being carried out.

    Parameters
    ----------
    client : botocore.client.BaseClient
        A client of DynamoDB. Of nested blocks, the innermost counts.
    answer : callable
        Gets an operation's name and a request's body. It answers, or raises an exception of
        botocore's, such as ``ReadTimeoutError``: then the client behaves as if no answer had come.
    """
    # Nobody looks at a signature or at the User-Agent, which take two fifths of a request's time.
    with (
        mock.patch.object(client._endpoint, "http_session", _Session(answer)),
        mock.patch.object(client._request_signer, "sign", lambda *_: None),
        mock.patch.object(client._user_agent_creator, "to_string", lambda: "in process"),
    ):
        yield


class _Session:
    """What a client takes for its connections: reads a request, has it answered."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._numbers = itertools.count(1)

    def send(self, request: Any) -> AWSResponse:
        """Send one request."""
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

    def close(self) -> None:
        """Nothing is open."""


class Raw:
    """What AWSResponse takes for the connection that an answer came from."""

    def __init__(self, body: Json) -> None:
        self._content = json.dumps(body).encode()

    def stream(self) -> Iterator[bytes]:
        """The answer's body."""
        yield self._content
