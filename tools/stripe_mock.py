"""Stripe's own stripe-mock, a Go module: it implements Stripe's published OpenAPI description.

It is stateless, and refuses paths, parameters and values that the description doesn't have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import engine

MODULE = "github.com/stripe/stripe-mock"
VERSION = "v0.203.0"


def install() -> Path:
    """Fetch and build it unless it is installed; returns the path of the program."""
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
    """Run it within the block; yields the base address of its API."""
    program = install()
    port = engine.free_port()
    command = [
        str(program),
        "-http-addr",
        f"127.0.0.1:{port}",
        # No test uses it, but without it HTTPS is served on every interface.
        "-https-addr",
        "127.0.0.1:0",
    ]
    with engine.running(
        command, name="stripe-mock", ready=lambda: engine.listens("127.0.0.1", port)
    ):
        yield f"http://127.0.0.1:{port}"
