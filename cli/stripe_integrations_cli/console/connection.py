"""What the pages of one console share: it belongs to their application."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app

from stripe_integrations_cli.console.live import LiveEvents
from stripe_integrations_cli.stack import Stack

_EXTENSION = "stripe-customers"


@dataclass(frozen=True)
class _Shared:
    stack: Stack
    live_events: LiveEvents


def connect(app: Flask, stack: Stack, live_events: LiveEvents) -> None:
    """Let the pages of an application show a stack."""
    app.extensions[_EXTENSION] = _Shared(stack, live_events)


def stack() -> Stack:
    """Return the stack that is shown."""
    return _shared().stack


def live_events() -> LiveEvents:
    """Return the changes of its events."""
    return _shared().live_events


def _shared() -> _Shared:
    shared: _Shared = current_app.extensions[_EXTENSION]
    return shared
