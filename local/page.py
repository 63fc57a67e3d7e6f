"""The API as a page of the local console: openapi.json in Swagger UI, with calls to try.

Swagger UI comes from Powertools, and the page loads nothing from other servers. The console
forwards its calls to the local cloud and signs them, so that the browser needs no credentials and
the API no CORS.
"""

import json
from collections.abc import Callable, Mapping
from http.client import HTTPException
from importlib.resources import files
from typing import Any

from aws_lambda_powertools.event_handler.openapi import swagger_ui
from flask import Blueprint, Response, abort, request, url_for

from local.cloud import ROOT
from local.cloud import Response as ApiResponse

DOCUMENT = ROOT / "openapi.json"
PREFIX = "/api"
API = "/customers"
"""The prefix of the API's paths."""

FILES = {
    "swagger-ui.js": ("swagger-ui-bundle.min.js", "text/javascript; charset=utf-8"),
    "swagger-ui.css": ("swagger-ui.min.css", "text/css; charset=utf-8"),
}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

POLICY = (
    # Swagger UI is started by a script in the page; the browser sends nothing to another server.
    "default-src 'none'; connect-src 'self'; img-src data:; script-src 'self' 'unsafe-inline';"
    " style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REQUEST_HEADERS = ("Idempotency-Key",)
RESPONSE_HEADERS = ("content-type", "retry-after")
"""The headers that are forwarded."""

Send = Callable[[str, str, bytes, Mapping[str, str]], ApiResponse]
"""Sends a call to the API: method, path, body and headers, as `Cloud.request` does."""


def api_pages(send: Send) -> Blueprint:
    """Make the pages of the API, whose calls are sent by a function."""
    pages = Blueprint("api", __name__, url_prefix=PREFIX)

    @pages.get("/")
    def show() -> Response:
        if request.args.get("format") == "json":  # the link to the document in Swagger UI
            return Response(document(), mimetype="application/json")
        return Response(html(), headers={"Content-Security-Policy": POLICY})

    @pages.get("/<name>")
    def file(name: str) -> Response:
        if name not in FILES:
            abort(404)
        stored, media_type = FILES[name]
        return Response(files(swagger_ui).joinpath(stored).read_bytes(), content_type=media_type)

    @pages.route(f"{API}", methods=METHODS)
    @pages.route(f"{API}/<path:rest>", methods=METHODS)
    def forward(rest: str = "") -> Response:  # noqa: ARG001 - it is taken from the request below
        body = request.get_data()
        if body and not request.is_json:
            abort(415, "the body must be application/json")
        # As the browser has sent it: an escaped slash is a part of a user's id.
        path = request.environ["RAW_URI"].removeprefix(f"{request.root_path}{PREFIX}")
        given = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
        try:
            response = send(request.method, path, body, given)
        except (OSError, ValueError, HTTPException):
            abort(502, "the local cloud does not respond")
        headers = {name.lower(): value for name, value in response.headers.items()}
        forwarded = {name: headers[name] for name in RESPONSE_HEADERS if name in headers}
        text = response.body if isinstance(response.body, str) else json.dumps(response.body)
        return Response(text, response.status, forwarded)

    return pages


def document() -> str:
    """The OpenAPI document with the console as its only server, and without authentication.

    It has the routes of a backend only: the local cloud has no issuer of JWTs.
    """
    api: dict[str, Any] = json.loads(DOCUMENT.read_text())
    api["paths"] = {path: item for path, item in api["paths"].items() if path.startswith(API)}
    url = f"{request.root_path}{PREFIX}"
    api["servers"] = [{"url": url, "description": "The local cloud; calls are signed for you."}]
    del api["security"], api["components"]["securitySchemes"]
    return json.dumps(api)


def html() -> str:
    """The page."""
    spec = document().replace("</", "<\\/")
    script, style = (url_for("api.file", name=name) for name in FILES)
    return swagger_ui.generate_swagger_html(spec, script, style, url_for("api.show"), None)
