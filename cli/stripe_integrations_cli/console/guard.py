"""Who may use the console: the browser of the operator, on this machine.

It listens on loopback alone, where every other program and page on the machine can reach it too:

- The address that the command prints has a token, which becomes a cookie. Nothing is shown without.
- The pages are below a random path, and the cookie is of this path: browsers send a cookie to all
  ports of a host, so that every other server on this machine would get it.
- `Host` has to be this server: a foreign name may resolve to this machine.
- `Origin`, and what the browser says of the request's site, have to be this server: a page of
  another server, on this machine too, gets no response and changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, TypeVar

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

R = TypeVar("R", bound=Response)

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_TOKEN = "token"  # noqa: S105 - the name of the parameter
_COOKIE = "stripe-customers-console"
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
    base = f"/{secrets.token_urlsafe(6)}"
    hosts = {f"{name}:{port}" for name in _NAMES}
    unguarded = app.wsgi_app
    app.config["MAX_CONTENT_LENGTH"] = _MAX_FORM_BYTES

    # Before the application: it does nothing for others, and its error pages name the stack.
    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        if request.headers.get("Host") not in hosts or not _is_own_page(request.headers):
            refusal = "only pages of this console may send requests here"
            return _refused(refusal)(environ, start_response)
        is_below = f"{request.path}/".startswith(f"{base}/")
        if is_below and request.method == "GET" and _is(request.args.get(_TOKEN), token):
            entered = redirect(request.path)
            entered.set_cookie(_COOKIE, token, path=base, httponly=True, samesite="Strict")
            return with_headers(entered)(environ, start_response)
        if not is_below or not _is(request.cookies.get(_COOKIE), token):
            refusal = "open the address that the command has printed: it has a token"
            return _refused(refusal)(environ, start_response)
        environ["SCRIPT_NAME"] = base
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(base)
        return unguarded(environ, start_response)

    app.wsgi_app = guarded  # type: ignore[method-assign]
    app.after_request(with_headers)
    return f"http://{HOST}:{port}{base}/?{_TOKEN}={token}"


def with_headers(response: R) -> R:
    """Add what every response has, except where it has its own."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _refused(why: str) -> Response:
    return with_headers(Response(f"{why}\n", 403, mimetype="text/plain"))


def _is(given: str | None, token: str) -> bool:
    # As bytes: the comparison of texts fails for other characters than ASCII.
    return secrets.compare_digest((given or "").encode(errors="replace"), token.encode())


def _is_own_page(headers: Headers) -> bool:
    origin = headers.get("Origin")
    is_own_origin = origin in (None, f"http://{headers.get('Host')}")
    return is_own_origin and headers.get("Sec-Fetch-Site") in (None, "none", "same-origin")
