"""Processes of the product, and how they are told what to do; see `worker` for what they are."""

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

PATIENCE = 60.0
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

    def tell(self, command: Mapping[str, Any]) -> None:
        """Let it do something; `hear` has the outcome."""
        if not self._is_ready:
            assert self._line() == b"ready\n"
            self._is_ready = True
        stream = self._process.stdin
        assert stream
        with suppress(BrokenPipeError):  # it is dead, which `hear` finds out
            stream.write(json.dumps(command).encode() + b"\n")
            stream.flush()

    def hear(self) -> Any:
        """The response to what it was told; None where it has died of it."""
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
        """End it, dead or alive."""
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
        ready, _, _ = select.select([stream], [], [], PATIENCE)
        if not ready:
            raise NoResponseError(f"no response within {PATIENCE:.0f} s")
        return stream.readline()
