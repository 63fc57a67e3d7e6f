"""The product in one process, with the logs that `make serve` reads on the local cloud."""

from __future__ import annotations

import io
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from local.cloud import REQUESTS, STACK
from local.function_logs import InvocationLog, invocation_log
from local.stored_events import StoredEvents
from tests.world import Json, World, database_client

PREFIX = "[2026-01-05 10:15:00 +0000] [4711] [INFO] "
API = "/_aws/execute-api/0a1b2c3d/$default"
WEBHOOK = "/_aws/lambda-url/0a1b2c3d/"
HANDLERS = """\
import json
from stripe_integrations.errors import UnprocessableEventError

def paid(event, customer):
    print("invoice of", customer.user_id)

def voided(event, customer):
    total({})

def total(invoice):
    return invoice["amount_paid"]

def updated(event, customer):
    print(json.dumps({"level": "INFO", "mine": 1}))
    json.loads("{")

def finalized(event, customer):
    raise UnprocessableEventError("no plan has this price")
"""
"""Custom handlers: what they print, and where they fail."""


class LiveCloud:
    """What `local.serve.Watcher` reads of a cloud.

    Each invocation has a log stream, in which the local AWS adds the lines of Lambda's platform.
    """

    webhook_url = "http://hook"

    def __init__(self, world: World, log: io.StringIO, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.table_name = world.settings.table_name
        self._log = log
        self._streams: defaultdict[str, list[list[Json]]] = defaultdict(list)
        (folder / REQUESTS).touch()

    def client(self, service: str) -> Any:
        """The client of a service."""
        return self if service == "logs" else database_client()

    def get_paginator(self, _: str) -> LiveCloud:
        """The paginator of `filter_log_events`."""
        return self

    def paginate(self, *, logGroupName: str, startTime: int) -> Iterator[Json]:  # noqa: N803
        """The entries of a log group from a time on, as CloudWatch returns them."""
        for number, stream in enumerate(self._streams[logGroupName]):
            events = [entry for entry in stream if entry["timestamp"] >= startTime]
            yield {"events": [{**entry, "logStreamName": str(number)} for entry in events]}

    @contextmanager
    def invoking(self, function: str, request: str = "") -> Iterator[None]:
        """Log what the block does as an invocation, an error as the local AWS does.

        With a request, the server logs it afterwards.
        """
        self._log.truncate(self._log.seek(0))
        with redirect_stdout(self._log):
            try:
                yield
            except Exception:
                traceback.print_exc(file=self._log)
        self.add(function, *self._log.getvalue().splitlines())
        if request:
            self.serve(request)

    def add(self, function: str, *lines: str) -> None:
        """Add an invocation with these lines."""
        now = int(self.world.time * 1000)
        platform = ("START RequestId: r-1 Version: 1", "END RequestId: r-1")
        report = "REPORT RequestId: r-1\tDuration: 12.30 ms\tBilled Duration: 13 ms"
        stream = [platform[0], *lines, platform[1], report]
        group = f"/aws/lambda/{STACK}/{function.replace('_', '-')}"
        self._streams[group].append([{"timestamp": now, "message": line} for line in stream])

    def serve(self, request: str) -> None:
        """Log a request, as the HTTP server of the local AWS does once it has responded."""
        with (self.folder / REQUESTS).open("a") as requests:
            requests.write(f"{PREFIX}{request}\n")

    @property
    def last_log(self) -> InvocationLog:
        """The log of the newest invocation of the only function that was invoked."""
        ((group, streams),) = self._streams.items()
        return invocation_log(group.rpartition("/")[2].replace("-", "_"), streams[-1])

    @property
    def stored(self) -> StoredEvents:
        """The events of the table, by the clock of the world."""
        return StoredEvents(database_client(), self.table_name, lambda: self.world.time)

    def emit(self, *kinds: str, customer: str) -> list[str]:
        """Receive events of invoices, whose records the stream has not reported yet; their ids."""
        return [
            self.world.stripe.account.emit(
                kind,
                {"id": f"in_{number}", "object": "invoice", "customer": customer, "amount_paid": 5},
            )
            for number, kind in enumerate(kinds)
        ]


@contextmanager
def custom_handlers(world: World, folder: Path) -> Iterator[None]:
    """Let the world have the handlers above, in a folder as `EVENT_HANDLERS` names it."""
    (folder / "billing.py").write_text(HANDLERS)
    names = ("paid", "voided", "updated", "finalized")
    world.configure(event_handlers={f"invoice.{name}": f"billing:{name}" for name in names})
    with (
        patch.object(sys, "path", [str(folder), *sys.path]),
        patch.dict("sys.modules"),
        patch.dict("os.environ", EVENT_HANDLERS=str(folder)),
    ):
        yield
