"""Connects a client of DynamoDB to a function instead of the network."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from botocore.awsrequest import AWSResponse
from botocore.parsers import JSONParser

from simulation.database.responses import Json, Response

Responder = Callable[[str, Json], Response]
"""Takes an operation's name and a request's body; returns a response or raises a botocore error."""


@contextmanager
def responding(client: Any, respond: Responder) -> Iterator[None]:
    """Let a function respond to a client's requests within the block.

    The function replaces only the network: requests that an event handler of the client handles or
    rejects do not reach it.

    Parameters
    ----------
    client : botocore.client.BaseClient
        A DynamoDB client. The innermost of nested blocks applies.
    respond : callable
        Takes an operation's name and a request's body. Returns the response, or raises an exception
        of botocore, such as ``ReadTimeoutError``: then the client received no response.
    """
    # Nothing here reads signatures, endpoints and the User-Agent: 40 % of a request's time.
    parsers = SimpleNamespace(create_parser=lambda _: _PARSER)
    with (
        mock.patch.object(client._endpoint, "http_session", _Session(respond)),
        mock.patch.object(client._endpoint, "_response_parser_factory", parsers),
        mock.patch.object(client._request_signer, "sign", lambda *_: None),
        mock.patch.object(client, "_ruleset_resolver", None),
        mock.patch.object(client._user_agent_creator, "to_string", lambda: "in process"),
    ):
        yield


class _Parser(JSONParser):  # type: ignore[misc]
    """botocore's parser, without its search for each type that an attribute's value may have."""

    _NOT_CONVERTED = frozenset({"S", "N", "BOOL", "NULL", "SS", "NS"})

    def _handle_structure(self, shape: Any, value: Any) -> Any:
        if shape.name == "AttributeValue" and value.keys() <= self._NOT_CONVERTED:
            return value
        return super()._handle_structure(shape, value)


_PARSER = _Parser()


class _Session:
    """The HTTP session of a client whose requests a function handles."""

    def __init__(self, respond: Responder) -> None:
        self._respond = respond
        self._numbers = itertools.count(1)

    def send(self, request: Any) -> AWSResponse:
        """Send one request."""
        target = request.headers["X-Amz-Target"]
        if isinstance(target, bytes):
            target = target.decode()
        operation = target.rpartition(".")[2]
        response = self._respond(operation, json.loads(request.body))
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "x-amzn-RequestId": f"{next(self._numbers):032X}",
        }
        return AWSResponse(request.url, response.status, headers, Raw(response.body))

    def close(self) -> None:
        """Do nothing: no connection is open."""


class Raw:
    """The raw response of an `AWSResponse`."""

    def __init__(self, body: Json) -> None:
        self._content = json.dumps(body).encode()

    def stream(self) -> Iterator[bytes]:
        """The response's body."""
        yield self._content
