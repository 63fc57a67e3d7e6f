"""The pages of events: what is left to do, one event, and each change as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from queue import Empty
from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for

from stripe_integrations.actions import StripeEvent
from stripe_integrations_cli.console.connection import live_events, stack
from stripe_integrations_cli.console.paging import ID, PAGE_ROWS
from stripe_integrations_cli.events import details, invoke_replay, summary
from stripe_integrations_cli.output import printable

events = Blueprint("events", __name__)

_STATES = ("failed", "waiting", "pending")
_KEEPALIVE_SECONDS = 10


@events.get("/events")
def list_events() -> str:
    """Show the events in a state that is not final, those that are due last first."""
    state = request.args.get("state", "failed")
    if state not in _STATES:
        abort(404)
    found = list(islice(StripeEvent.find(state=state), PAGE_ROWS + 1))
    return render_template(
        "events.html",
        rows=found[:PAGE_ROWS],
        has_more=len(found) > PAGE_ROWS,
        state=state,
        states=_STATES,
    )


@events.get(f"/events/{ID.format('event_id')}")
def show(event_id: str) -> str:
    """Show an event: its state, its attempts, what it changed or why not, and its payload."""
    event = StripeEvent.get(event_id)
    if event is None:
        abort(404, f"{event_id} never arrived, or has expired")
    payload = event.webhook_message
    return render_template(
        "event.html",
        event=event,
        shown={**summary(event), **details(event)},
        payload=None if payload is None else _lines_of(payload),
    )


def _lines_of(payload: dict[str, Any]) -> str:
    """Return a payload as JSON, without characters that change how the others are shown."""
    lines = json.dumps(payload, indent=2, ensure_ascii=False).split("\n")
    return "\n".join(map(printable, lines))


@events.post(f"/events/{ID.format('event_id')}/replay")
def replay(event_id: str) -> Any:
    """Apply an event again, from the state that Stripe has now."""
    invoke_replay(stack(), {"event_id": event_id})
    return redirect(url_for("events.show", event_id=event_id, done="replayed"))


@events.post("/events/replay-failed")
def replay_failed() -> Any:
    """Apply all failed events again."""
    invoke_replay(stack(), {"failed": True})
    return redirect(url_for("events.list_events", state="failed", done="replayed"))


@events.get("/live")
def live() -> str:
    """Show each change of an event as it happens."""
    return render_template("live.html")


@events.get("/live/changes")
def changes() -> Response:
    """Send each change of an event as a server-sent event."""
    subscribed = live_events().subscribed()

    def lines() -> Iterator[str]:
        with subscribed as page:
            yield ": connected\n\n"
            while True:
                try:
                    row = page.get(timeout=_KEEPALIVE_SECONDS)
                except Empty:
                    yield ": nothing\n\n"  # fails if the page is closed
                    continue
                yield f"data: {json.dumps(row)}\n\n"
                if "error" in row:
                    return

    return Response(lines(), mimetype="text/event-stream")
