"""The console's application, and its server on loopback."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, g, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

from stripe_integrations.errors import InvalidFieldError
from stripe_integrations_cli.console.charts import RANGES, charts
from stripe_integrations_cli.console.connection import connect
from stripe_integrations_cli.console.customers import customers
from stripe_integrations_cli.console.events import events
from stripe_integrations_cli.console.guard import HOST, guard
from stripe_integrations_cli.console.live import LiveEvents
from stripe_integrations_cli.console.runs import runs
from stripe_integrations_cli.errors import CommandError, UsageError
from stripe_integrations_cli.events import outcome, summary
from stripe_integrations_cli.output import plain, timestamp
from stripe_integrations_cli.session import explained
from stripe_integrations_cli.stack import Stack

TABS = (
    ("customers.list_customers", "Customers"),
    ("events.list_events", "Events"),
    ("events.live", "Live"),
    ("charts", "Charts"),
    ("runs.show", "Runs"),
)
"""The pages that every page has a link to: their endpoints and titles."""

_MOMENTS = ("current_period_end",)
"""The attributes that are Unix seconds."""

DONE = {
    "replayed": "Replayed: the events are applied again from the state that Stripe has now.",
    "resumed": "The run is resumed.",
    "started": "The run is started.",
    "stopping": "The run stops after the pages that are being read.",
    "synchronized": "The customer was synchronized with Stripe.",
}
"""What a page says after a form was sent."""


def application(
    stack: Stack, tabs: Sequence[tuple[str, str]] = (), parts: Sequence[Blueprint] = ()
) -> Flask:
    """Make the application of a stack's console.

    Parameters
    ----------
    stack : Stack
        The stack that it shows.
    tabs : sequence of tuple
        Further pages that every page has a link to: their endpoints and titles.
    parts : sequence of Blueprint
        Their pages.
    """
    app = Flask("stripe_integrations_cli.console", root_path=str(Path(__file__).parent))
    connect(app, stack, LiveEvents(stack, live_row))
    for part in (customers, events, runs, *parts):
        app.register_blueprint(part)
    app.jinja_env.filters.update(timestamp=timestamp, plain=plain, outcome=outcome)
    app.jinja_env.globals.update(
        stack=stack,
        tabs=[*TABS, *tabs],
        done_of=lambda: DONE.get(request.args.get("done", "")),
        stored_rows=_stored_rows,
        report_rows=lambda lines: [list(line.values()) for line in lines],
    )

    @app.before_request
    def connected() -> None:
        g.connection = ExitStack()
        g.connection.enter_context(stack.in_process())

    @app.teardown_request
    def disconnected(_: BaseException | None) -> None:
        if connection := g.pop("connection", None):
            connection.close()

    @app.get("/")
    def start() -> Any:
        return redirect(url_for("customers.list_customers"))

    @app.get("/charts", endpoint="charts")
    def show_charts() -> str:
        name = request.args.get("range", "1h")
        name = name if name in RANGES else "1h"
        return render_template("charts.html", charts=charts(stack, name), name=name, ranges=RANGES)

    app.register_error_handler(Exception, _error_page)
    return app


def _stored_rows(records: Iterable[Any], *names: str) -> list[list[Any]]:
    """Return attributes of records, with Unix seconds as times."""
    return [
        [
            timestamp(getattr(record, name)) if name in _MOMENTS else getattr(record, name)
            for name in names
        ]
        for record in records
    ]


def live_row(event: Any) -> dict[str, Any]:
    """Return what the live page shows of a changed event."""
    shown = {**summary(event), "outcome": outcome(event)}
    return {name: plain(value) for name, value in shown.items()}


def _error_page(error: Exception) -> tuple[str | Response, int]:
    status, message = 502, explained(error)
    if isinstance(error, HTTPException):
        status, message = error.code or 500, error.description or error.name
    elif isinstance(error, UsageError | InvalidFieldError):
        status = 400
    if message is None:
        status = 500
        # Its message may be personal: the operator sees it nowhere but here.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        print(f"a page failed: {where}", file=sys.stderr)  # noqa: T201 - the console's own log
        message = f"This is a bug: {where}"
    return render_template("error.html", status=status, message=message), status


@contextmanager
def served(app: Flask, port: int = 0) -> Iterator[str]:
    """Serve the console on loopback for the duration of the block.

    Parameters
    ----------
    app : Flask
        The console.
    port : int
        By default, one that is free.

    Yields
    ------
    str
        The address to open.

    Raises
    ------
    CommandError
        The port can't be used.
    """
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it would log addresses
    with _listening(port) as listening:
        server = make_server(HOST, port, app, threaded=True, fd=listening.fileno())
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    address = guard(app, server.port)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise CommandError(f"port {port} can't be used: {error.strerror}") from None
