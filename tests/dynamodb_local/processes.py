"""Processes of the product, and the commands that are sent to them: see `worker`."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tools.engine import ROOT

RESPONSE_SECONDS = 60.0
"""Seconds that a response may take."""

FROM_OUTSIDE = ("PATH", "LANG", "LC_ALL")


class NoResponseError(Exception):
    """A process has neither responded nor died."""


class Process:
    """A process of the product.

    Parameters
    ----------
    environment : mapping
        Where it finds the table and Stripe.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        kept = {name: os.environ[name] for name in FROM_OUTSIDE if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.dynamodb_local.worker"],
            cwd=ROOT,
            env={**kept, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._is_ready = False

    def send(self, command: Mapping[str, Any]) -> None:
        """Send a command; `receive_response` returns its response."""
        if not self._is_ready:
            assert self._line() == b"ready\n"
            self._is_ready = True
        stream = self._process.stdin
        assert stream
        with suppress(BrokenPipeError):  # it is dead, which `receive_response` finds out
            stream.write(json.dumps(command).encode() + b"\n")
            stream.flush()

    def receive_response(self) -> Any:
        """Receive the response to the last command; None if the process died."""
        line = self._line()
        if line:
            return json.loads(line)
        self._process.wait()
        return None

    @property
    def is_dead(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Kill it, if it is alive, and close its streams."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            with suppress(BrokenPipeError):
                stream.close()

    def _line(self) -> bytes:
        stream = self._process.stdout
        assert stream
        # A line is read as a whole and nothing is left in the buffer: a command has one response.
        ready, _, _ = select.select([stream], [], [], RESPONSE_SECONDS)
        if not ready:
            raise NoResponseError(f"no response within {RESPONSE_SECONDS:.0f} s")
        return stream.readline()
