"""The services that a function calls, on the loopback interface: DynamoDB, secrets, Stripe.

They are those of a stage, so what a function calls is counted, and the stage can prepare what the
next invocation needs. DynamoDB's calls can be recorded, and their responses played back.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from benchmarks.stage import API_KEY, WEBHOOK_SECRET, Stage
from local.stripe_double import form
from simulation.database import Response

Json = dict[str, Any]

HOST = "127.0.0.1"
API_KEY_NAME = "api-key"
WEBHOOK_SECRET_NAME = "webhook-secret"  # noqa: S105 - a name
_SECRETS = {API_KEY_NAME: API_KEY, WEBHOOK_SECRET_NAME: WEBHOOK_SECRET}


class Services:
    """The services of a stage, over HTTP.

    Parameters
    ----------
    stage : Stage
        Use it only while no function runs.

    Attributes
    ----------
    recorded : list of tuple
        Operation, body and response of each call to DynamoDB since `recorded` was emptied.
    """

    def __init__(self, stage: Stage) -> None:
        self.recorded: list[tuple[str, Json, Json]] = []
        self._stage = stage
        self._lock = threading.Lock()
        self._responses: deque[Json] | None = None
        self._http = _Server((HOST, 0), _Handler)
        self._http.services = self

    @property
    def url(self) -> str:
        """The address of all services."""
        return f"http://{HOST}:{self._http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Services]:
        """Serve inside the block."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def play_back(self, responses: list[Json] | None) -> None:
        """Return these responses to the next calls to DynamoDB; None: those of the database."""
        self._responses = None if responses is None else deque(responses)

    def call_aws(self, target: str, body: Json) -> Response:
        """Handle a request of AWS's JSON protocol."""
        service, _, operation = target.partition(".")
        with self._lock:
            if service == "secretsmanager":
                return Response(200, {"SecretString": _SECRETS[body["SecretId"]]})
            if not service.startswith("DynamoDB"):
                return Response(200, {})
            if self._responses is not None:
                return Response(200, self._responses.popleft())
            response = self._stage.respond(operation, body)
            self.recorded.append((operation, body, response.body))
            return response

    def call_stripe(
        self, method: str, path: str, given: Json, headers: dict[str, str]
    ) -> tuple[int, Json, dict[str, str]]:
        """Handle a request to Stripe."""
        with self._lock:
            response = self._stage.request(method, path, given, headers)
        return response.status, response.body, response.headers


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    services: Services


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Nagle's algorithm would hold a response back until the client has acknowledged its headers.
    disable_nagle_algorithm = True
    server: _Server

    def handle_any(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        target = self.headers.get("X-Amz-Target")
        if target:
            response = self.server.services.call_aws(target, json.loads(text))
            self._respond(response.status, response.body, {})
            return
        parts = urlsplit(self.path)
        given = form.decode(text or parts.query)
        headers = dict(self.headers.items())
        self._respond(*self.server.services.call_stripe(self.command, parts.path, given, headers))

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

    def _respond(self, status: int, body: Json, headers: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
