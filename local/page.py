"""The API as a web page on this machine: openapi.json in Swagger UI, with calls to try.

Swagger UI comes from Powertools, and the page loads nothing from other servers. This server
forwards its calls to the local cloud and signs them, so that the browser needs no credentials and
the API no CORS.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from aws_lambda_powertools.event_handler.openapi import swagger_ui

from local.cloud import HOST, ROOT, Response

DOCUMENT = ROOT / "openapi.json"
API = "/customers"
"""The prefix of the API's paths."""

SCRIPT, STYLE = "/swagger-ui.js", "/swagger-ui.css"
FILES = {
    SCRIPT: ("swagger-ui-bundle.min.js", "text/javascript; charset=utf-8"),
    STYLE: ("swagger-ui.min.css", "text/css; charset=utf-8"),
}

HEADERS = {
    # The browser sends no request to another server, whatever the page contains.
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:;"
    " script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
MAX_BODY_BYTES = 1024 * 1024
REQUEST_HEADERS = ("Idempotency-Key",)
RESPONSE_HEADERS = ("retry-after",)
"""The headers that are forwarded, besides the content type."""

Send = Callable[[str, str, bytes, Mapping[str, str]], Response]
"""Sends a call to the API: method, path, body and headers, as `Cloud.request` does."""


@contextmanager
def api_page(send: Send) -> Iterator[str]:
    """Serve the page for the duration of the block; yields its address."""
    with ThreadingHTTPServer((HOST, 0), partial(Handler, send)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def document() -> str:
    """The OpenAPI document with this server as its only server, and without authentication.

    It has the routes of a backend only: the local cloud has no issuer of JWTs.
    """
    api: dict[str, Any] = json.loads(DOCUMENT.read_text())
    api["paths"] = {path: item for path, item in api["paths"].items() if path.startswith(API)}
    api["servers"] = [{"url": "/", "description": "The local cloud; calls are signed for you."}]
    del api["security"], api["components"]["securitySchemes"]
    return json.dumps(api)


def html() -> str:
    """The page."""
    spec = document().replace("</", "<\\/")
    return swagger_ui.generate_swagger_html(spec, SCRIPT, STYLE, "/", None)


class Handler(BaseHTTPRequestHandler):
    """Serves the page and forwards its calls."""

    server: ThreadingHTTPServer

    def __init__(self, send: Send, *args: Any) -> None:
        self.send = send
        super().__init__(*args)

    def dispatch(self) -> None:
        """Respond with the page or one of its files, or forward a call of the API."""
        path, _, query = self.path.partition("?")
        length = self.headers.get("Content-Length") or "0"
        if not self.is_same_origin():
            self.close_connection = True  # its body is not read
            self.respond(403, b"only this page may send requests here\n")
        elif not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self.respond(413, b"a body is at most a megabyte\n")
        elif path == API or path.startswith(f"{API}/"):
            self.forward(self.rfile.read(int(length)))
        elif self.command != "GET":
            self.respond(404, b"not an operation of the API\n")
        elif path == "/" and query == "format=json":  # the link to the document in Swagger UI
            self.respond(200, document().encode(), "application/json")
        elif path == "/":
            self.respond(200, html().encode(), "text/html; charset=utf-8")
        elif path in FILES:
            name, media_type = FILES[path]
            self.respond(200, files(swagger_ui).joinpath(name).read_bytes(), media_type)
        else:
            self.respond(404, b"not found\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = dispatch  # noqa: N815 - the names that the base class calls

    def is_same_origin(self) -> bool:
        """Return whether the request comes from this page and not from another page in the browser.

        A foreign host name may resolve to this machine (`Host` differs then), and a browser sends
        simple requests of any page to any address (`Origin` differs then).
        """
        here = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        return host in here and origin in (None, f"http://{host}")

    def forward(self, body: bytes) -> None:
        """Send a call to the API and return its response."""
        media_type = self.headers.get("Content-Type", "")
        if body and media_type.partition(";")[0].strip().lower() != "application/json":
            self.respond(415, b"the body must be application/json\n")
            return
        try:
            given = {name: self.headers[name] for name in REQUEST_HEADERS if name in self.headers}
            response = self.send(self.command, self.path, body, given)
        except (OSError, ValueError, HTTPException):
            self.respond(502, b"the local cloud does not respond\n")
            return
        headers = {name.lower(): value for name, value in response.headers.items()}
        forwarded = {name: headers[name] for name in RESPONSE_HEADERS if name in headers}
        text = response.body if isinstance(response.body, str) else json.dumps(response.body)
        self.respond(response.status, text.encode(), headers.get("content-type"), forwarded)

    def respond(
        self,
        status: int,
        body: bytes,
        media_type: str | None = "text/plain; charset=utf-8",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a response."""
        self.send_response(status)
        for name, value in {**HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        if media_type and body:
            self.send_header("Content-Type", media_type)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: `make serve` prints the requests that reach a function."""
