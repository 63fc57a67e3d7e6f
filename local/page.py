"""The API as a page on this machine: openapi.json, with every call of it to be tried.

The page is Swagger UI, as Powertools ships it, and needs nothing from elsewhere. Its calls come
back here and are passed on to the local cloud, signed: no browser has to know how that is done, and
the API needs no CORS.
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

from local.cloud import HOST, ROOT, Answer

DOCUMENT = ROOT / "openapi.json"
API = "/customers"
"""How the paths begin that are the API's."""

SCRIPT, STYLE = "/swagger-ui.js", "/swagger-ui.css"
FILES = {
    SCRIPT: ("swagger-ui-bundle.min.js", "text/javascript; charset=utf-8"),
    STYLE: ("swagger-ui.min.css", "text/css; charset=utf-8"),
}

HEADERS = {
    # Whatever the page is made to show, the browser sends nothing anywhere else.
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:;"
    " script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
MAX_BODY_BYTES = 1024 * 1024
FORWARDED_HEADERS = ("content-type", "retry-after")

Send = Callable[[str, str, bytes, Mapping[str, str]], Answer]
"""Sends a call to the API: method, path, body and headers, as `Cloud.request` takes them."""


@contextmanager
def api_page(send: Send) -> Iterator[str]:
    """Serve the page for the length of the block; yields its address."""
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
    """The API as the page shows it: calls go to where it came from, and nobody signs them."""
    shown: dict[str, Any] = json.loads(DOCUMENT.read_text())
    shown["servers"] = [{"url": "/", "description": "The local cloud; calls are signed for you."}]
    del shown["security"], shown["components"]["securitySchemes"]
    return json.dumps(shown)


def html() -> str:
    """The page itself."""
    spec = document().replace("</", "<\\/")
    return swagger_ui.generate_swagger_html(spec, SCRIPT, STYLE, "/", None)


class Handler(BaseHTTPRequestHandler):
    """Answers the one browser that has the page open."""

    server: ThreadingHTTPServer

    def __init__(self, send: Send, *args: Any) -> None:
        self.send = send
        super().__init__(*args)

    def answer(self) -> None:
        """Give the page and what belongs to it, and pass calls of the API on."""
        path, _, query = self.path.partition("?")
        length = self.headers.get("Content-Length") or "0"
        if not self.is_same_origin():
            self.close_connection = True  # its body is not read
            self.respond(403, b"this page answers nobody but itself\n")
        elif not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self.respond(413, b"a body is at most a megabyte\n")
        elif path == API or path.startswith(f"{API}/"):
            self.forward(self.rfile.read(int(length)))
        elif self.command != "GET":
            self.respond(404, b"not of the API\n")
        elif path == "/" and query == "format=json":  # where Swagger UI says that it has it from
            self.respond(200, document().encode(), "application/json")
        elif path == "/":
            self.respond(200, html().encode(), "text/html; charset=utf-8")
        elif path in FILES:
            name, media_type = FILES[path]
            self.respond(200, files(swagger_ui).joinpath(name).read_bytes(), media_type)
        else:
            self.respond(404, b"not here\n")

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that the library calls

    def is_same_origin(self) -> bool:
        """Whether it isn't another page, open in the same browser, that asks.

        A name of somebody else's may be made to lead to this machine, and a browser sends simple
        requests to any address: `Host` tells of the one, `Origin` of the other.
        """
        here = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        return host in here and origin in (None, f"http://{host}")

    def forward(self, body: bytes) -> None:
        """Send a call to the API, and give back what it answers."""
        media_type = self.headers.get("Content-Type", "")
        if body and media_type.partition(";")[0].strip().lower() != "application/json":
            self.respond(415, b"the body must be application/json\n")
            return
        try:
            answer = self.send(self.command, self.path, body, {})
        except (OSError, ValueError, HTTPException):
            self.respond(502, b"the local cloud does not answer\n")
            return
        headers = {name.lower(): value for name, value in answer.headers.items()}
        told = {name: headers[name] for name in FORWARDED_HEADERS if name in headers}
        said = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        self.respond(answer.status, said.encode(), told.pop("content-type", None), told)

    def respond(
        self,
        status: int,
        body: bytes,
        media_type: str | None = "text/plain; charset=utf-8",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer."""
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
        """Say nothing: the log of `make serve` shows what has reached a function."""
