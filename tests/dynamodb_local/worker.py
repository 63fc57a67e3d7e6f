"""One process of the product. It invokes a function for each line of JSON on standard input:

    {"function": "create_customer", "event": {…}, "seconds": 29, "settings": {…},
     "ahead": 0, "begin": 1234.5, "die": ["after", 1]}

`settings` override the environment's; an `event_bus_name` is the path of a file that replaces the
bus. `ahead` is how far the clock is ahead of the machine's, `begin` the monotonic time at which to
begin. `die` kills the process at its n-th request to DynamoDB of this invocation, before it is sent
or after its response arrived. The response is also a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models.table import Record
from tools.lambda_events import lambda_context


@dataclass
class Death:
    """When this process dies: before or after its n-th request to DynamoDB; never, by default."""

    when: str = ""
    number: int = 0
    sent: int = 0

    def before(self, **_: Any) -> None:
        """Count a request that is about to be sent."""
        self.sent += 1
        if (self.when, self.number) == ("before", self.sent):
            die()

    def after(self, **_: Any) -> None:
        """Handle the response to a request."""
        if (self.when, self.number) == ("after", self.sent):
            die()


def die() -> NoReturn:
    """End this process as the machine under it does, with no chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit  # never reached


@dataclass
class Bus:
    """A file that replaces an event bus."""

    path: str

    def publish(self, detail: Mapping[str, Any]) -> None:
        """Add a line to it; the system writes that in one piece."""
        with Path(self.path).open("a") as bus:
            bus.write(json.dumps(dict(detail)) + "\n")


def invoke(settings: Settings, command: dict[str, Any]) -> object:
    """Invoke a function; an exception is returned as an error response, as Lambda does."""
    own = replace(settings, **command["settings"])
    context = Context(
        own,
        clock=lambda: time.time() + command["ahead"],
        publish=Bus(own.event_bus_name or "").publish,
    )
    death = Death(*command.get("die") or ())
    with use(context):
        events = Record.connection().client.meta.events
        events.register_first("before-send.dynamodb", death.before)
        events.register_first("response-received.dynamodb", death.after)
        handler = import_module(f"functions.{command['function']}.app").handler
        time.sleep(max(0.0, command["begin"] - time.monotonic()))
        try:
            return handler(command["event"], lambda_context(command["seconds"] * 1000))
        except Exception as error:
            return {"error": repr(error)}
        finally:
            events.unregister("before-send.dynamodb", death.before)
            events.unregister("response-received.dynamodb", death.after)


def main() -> None:
    """Invoke until the input ends."""
    # The functions log to standard output, which is for the responses here.
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = Settings.from_environment()
    print("ready", file=responses, flush=True)
    for line in sys.stdin:
        print(json.dumps(invoke(settings, json.loads(line))), file=responses, flush=True)


if __name__ == "__main__":
    main()
