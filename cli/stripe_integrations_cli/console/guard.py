"""Who may use the console: the browser of the operator, on this machine.

It listens on loopback alone, where every other program and page on the machine can reach it too:

- The address that the command prints has a token, which becomes a cookie. Nothing is shown without.
- `Host` has to be this server: a foreign name may resolve to this machine.
- `Origin`, and what the browser says of the request's site, have to be this server: a page of
  another server, on this machine too, gets no response and changes nothing.
"""

from __future__ import annotations

import secrets
from typing import Any

from flask import Flask, Response, abort, redirect, request
from werkzeug.datastructures import Headers

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_TOKEN = "token"  # noqa: S105 - the name of the parameter
_MAX_FORM_BYTES = 64 * 1024

HEADERS = {
    # The browser loads nothing from other servers, and runs no script but ours.
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src 'self' data:;"
    " script-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: the browser would hide the origin of forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def guard(app: Flask, port: int) -> str:
    """Let an application respond to the operator's browser alone.

    Parameters
    ----------
    app : Flask
        The application.
    port : int
        The port that it is served on.

    Returns
    -------
    str
        The address to open, with the token.
    """
    token = secrets.token_urlsafe(32)
    # Cookies are shared by all ports of a host.
    cookie = f"stripe-customers-console-{port}"
    hosts = {f"{name}:{port}" for name in _NAMES}
    app.config["MAX_CONTENT_LENGTH"] = _MAX_FORM_BYTES

    @app.before_request
    def check() -> Any:
        if request.headers.get("Host") not in hosts or not _is_own_page(request.headers):
            abort(403, "only pages of this console may send requests here")
        given = request.args.get(_TOKEN)
        if request.method == "GET" and given and secrets.compare_digest(given, token):
            entered = redirect(request.path)
            entered.set_cookie(cookie, token, httponly=True, samesite="Strict")
            return entered
        if not secrets.compare_digest(request.cookies.get(cookie, ""), token):
            abort(403, "open the address that the command has printed: it has a token")
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return f"http://{HOST}:{port}/?{_TOKEN}={token}"


def _is_own_page(headers: Headers) -> bool:
    origin = headers.get("Origin")
    is_own_origin = origin in (None, f"http://{headers.get('Host')}")
    return is_own_origin and headers.get("Sec-Fetch-Site") in (None, "none", "same-origin")
