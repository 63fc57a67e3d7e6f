"""Stripe's own stripe-mock, a Go module: responds by Stripe's published OpenAPI description.

It keeps no state. What it is good for: it refuses a path, a parameter or a value that the
description doesn't have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import engine

MODULE = "github.com/stripe/stripe-mock"
VERSION = "v0.203.0"


def install() -> Path:
    """Fetch and build it where it isn't there yet; the program."""
    home = engine.CACHE / f"stripe-mock-{VERSION}"
    if not home.exists():
        go = engine.require("go", "stripe-mock is a Go module")
        with engine.complete_folder(home) as building:
            engine.fetch(
                [go, "install", f"{MODULE}@{VERSION}"],
                registry="the Go module proxy",
                env={"GOBIN": str(building), "GOFLAGS": ""},
            )
    return home / "stripe-mock"


@contextmanager
def serve() -> Iterator[str]:
    """Run it for the length of the block; yields the base address of its API."""
    program = install()
    port = engine.free_port()
    command = [
        str(program),
        "-http-addr",
        f"127.0.0.1:{port}",
        # Named although no test uses it: without it, HTTPS is served on every interface.
        "-https-addr",
        "127.0.0.1:0",
    ]
    with engine.running(
        command, name="stripe-mock", ready=lambda: engine.listens("127.0.0.1", port)
    ):
        yield f"http://127.0.0.1:{port}"
