"""The double over HTTP, with webhook deliveries and the admin API."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from . import form
from .admin import PREFIX, Admin, AdminError
from .deliverer import Deliverer
from .double import LoggedRequest, Response, StripeDouble
from .errors import ApiError, Json, invalid
from .processes import ClientNotFoundError, client_pid, kill

logger = logging.getLogger(__name__)
_WAIT = "/_double/wait_until_delivered"
_DEFAULT_WAIT = 10.0


class StripeDoubleServer:
    """A double on a port of this machine.

    Parameters
    ----------
    double
        The double. While the server runs, access it only within `use`.
    host, port
        The address to listen on; port 0 for a free port.
    on_request
        Called after each API request, for a live log.

    Example
    -------
    >>> with StripeDoubleServer(StripeDouble()) as server:
    ...     client = stripe.StripeClient("sk_test_double", base_addresses={"api": server.url})
    """

    def __init__(
        self,
        double: StripeDouble,
        host: str = "127.0.0.1",
        port: int = 0,
        on_request: Callable[[LoggedRequest], None] | None = None,
    ) -> None:
        self.double = double
        self._lock = threading.Condition(threading.RLock())
        self._deliverer = Deliverer(double, self._lock)
        self._http = _Http((host, port), _Handler)
        self._http.double = double
        self._http.lock = self._lock
        self._http.deliverer = self._deliverer
        self._http.admin = Admin(double)
        self._http.on_request = on_request
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        address = self._http.server_address
        self.host, self.port = str(address[0]), int(address[1])

    @property
    def url(self) -> str:
        """The base address for clients."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start listening and delivering, in background threads."""
        self._thread.start()
        self._deliverer.start()

    def stop(self) -> None:
        """Stop delivering and listening, and close all connections."""
        self._deliverer.stop()
        self._http.shutdown()
        self._http.server_close()
        self._http.close_connections()
        self._thread.join()

    @contextmanager
    def use(self) -> Iterator[StripeDouble]:
        """Lock the double for this thread; new deliveries start after the block."""
        with self._lock:
            yield self.double
            self._lock.notify_all()

    def wait_until_delivered(self, timeout: float = _DEFAULT_WAIT) -> bool:
        """Wait until no delivery is pending; returns False after the timeout."""
        return self._deliverer.wait(timeout) == 0

    def __enter__(self) -> StripeDoubleServer:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    double: StripeDouble
    lock: threading.Condition
    deliverer: Deliverer
    admin: Admin
    on_request: Callable[[LoggedRequest], None] | None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exception(), ConnectionError):
            logger.debug("%s closed the connection", client_address)
            return
        super().handle_error(request, client_address)

    def close_connections(self) -> None:
        """Close the connections that clients keep open."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stripe-double"
    disable_nagle_algorithm: ClassVar[bool] = True
    wbufsize = -1
    server: _Http

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        logger.debug(format, *args)

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if parts.path.startswith(PREFIX):
            self._write_json(*self._admin(parts.path, parts.query, body))
            return
        response = self._stripe(parts.path, parts.query, body)
        if response.delay:
            time.sleep(response.delay)
        if response.kill is not None:
            self._kill_client(response)
        elif response.lost:
            self.close_connection = True
        else:
            self._write(response)

    def _stripe(self, path: str, query: str, body: bytes) -> Response:
        double = self.server.double
        try:
            given = form.decode(body.decode() if self.command == "POST" else query)
        except (ApiError, UnicodeDecodeError) as error:
            refusal = error if isinstance(error, ApiError) else invalid("The body isn't UTF-8.")
            return _refusal(refusal, double)
        with self.server.lock:
            try:
                response = double.request(self.command, path, given, dict(self.headers))
            except Exception:
                logger.exception("%s %s failed", self.command, path)
                return _refusal(ApiError(500, "api_error", "An unknown error occurred."), double)
            finally:
                self.server.lock.notify_all()
            logged = double.requests[-1]
        if self.server.on_request is not None:
            self.server.on_request(logged)
        return response

    def _admin(self, path: str, query: str, body: bytes) -> tuple[int, Json]:
        try:
            given = json.loads(body) if body else form.decode(query)
            if not isinstance(given, dict):
                return 400, {"error": "the body must be a JSON object"}
            if path == _WAIT:
                pending = self.server.deliverer.wait(float(given.get("timeout", _DEFAULT_WAIT)))
                return 200, {"delivered": pending == 0, "pending": pending}
            with self.server.lock:
                response = self.server.admin.handle(self.command, path, given)
                self.server.lock.notify_all()
        except AdminError as error:
            return error.status, {"error": str(error)}
        except ApiError as error:
            return error.status, {"error": error.message}
        except ValueError as error:
            return 400, {"error": str(error)}
        return 200, response

    def _kill_client(self, response: Response) -> None:
        self.close_connection = True
        try:
            pid = client_pid(self.client_address[:2], self.server.server_address[1])
        except ClientNotFoundError as error:
            self.server.double.bugs.append(error)
            self._write(response)
            return
        if response.kill == "after_response":
            self._write(response)
            self.wfile.flush()
        kill(pid)

    def _write(self, response: Response) -> None:
        self._write_json(response.status, response.body, response.headers)

    def _write_json(self, status: int, body: Json, headers: dict[str, str] | None = None) -> None:
        encoded = json.dumps(body, indent=2).encode()
        self.send_response(status)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)


def _refusal(error: ApiError, double: StripeDouble) -> Response:
    body = error.body("req_unread", double.account.livemode)
    headers = {"Content-Type": "application/json", "Stripe-Version": double.account.api_version}
    return Response(error.status, headers, body)
