"""A run through the Stripe account, watched until it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
)
from botocore.exceptions import (
    ConnectionError as Unreachable,
)
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.session import Session
from stripe_integrations_cli.stack import Stack

Json = dict[str, Any]

POLL_SECONDS = 2.0
_FAILURES = 60
"""How many times in a row AWS may fail before the display ends."""
_THROTTLED = ("TooManyRequestsException", "ThrottlingException", "Throttling")
_LINE_SECONDS = 30.0
"""How often a line is printed without a terminal."""
_NOT_STARTED = "there is no such run"
"""How the error ends for a run that its execution has not started yet."""
_NO_RUN = "no run has been started yet"
"""How the error ends before the first run."""
_WINDOW_COLUMNS = ("run", "state", "objects", "per_second", "windows", "left")


def status_of(stack: Stack, run_id: str | None) -> Json:
    """Return the progress of a run; by default, of the one that was started last."""
    which = {} if run_id is None else {"run_id": run_id}
    status: Json = stack.invoke("WalkAccount", {"action": "status", **which})
    return status


def latest_status(stack: Stack) -> Json | None:
    """Return the progress of the run that was started last; None before the first one."""
    try:
        return status_of(stack, None)
    except CommandError as error:
        if str(error).endswith(_NO_RUN):
            return None
        raise


def execute(stack: Stack, given: Json, name: str | None = None) -> str:
    """Start an execution of the state machine that walks the account, and return its ARN."""
    named = {} if name is None else {"name": name}
    started = stack.client("stepfunctions").start_execution(
        stateMachineArn=stack.outputs["WalkMachineArn"], input=json.dumps(given), **named
    )
    arn: str = started["executionArn"]
    return arn


def is_executed(stack: Stack) -> bool:
    """Whether an execution is running; there is one run at a time."""
    running = stack.client("stepfunctions").list_executions(
        stateMachineArn=stack.outputs["WalkMachineArn"], statusFilter="RUNNING", maxResults=1
    )
    return bool(running["executions"])


def watch(session: Session, run_id: str, execution: str | None = None) -> Json:
    """Show the progress of a run until it ends, and return its last status.

    Parameters
    ----------
    session : Session
        The command's.
    run_id : str
        The run.
    execution : str, optional
        The execution that starts it, whose failure ends this.

    Raises
    ------
    CommandError
        The execution has failed.
    BotoCoreError, ClientError
        AWS did not respond for minutes, or refused; the run goes on.
    KeyboardInterrupt
        Ctrl-C: the run continues, and a message shows how to return to it.
    """
    failures = 0
    try:
        with _shown(session) as show:
            while True:
                try:
                    status = _status_if_started(session.stack, run_id, execution)
                except (BotoCoreError, ClientError) as error:
                    # A run takes hours, and asking again changes nothing.
                    failures += 1
                    if failures == _FAILURES or not _is_transient(error):
                        raise
                    status = None
                else:
                    failures = 0
                if status:
                    show(status)
                    if status["state"] != "running":
                        return status
                time.sleep(POLL_SECONDS)
    except (KeyboardInterrupt, BotoCoreError, ClientError):
        session.output.say(
            f"the run continues in the stack. Watch it: stripe-customers backfill watch {run_id}. "
            f"Stop it, to be resumed: stripe-customers backfill stop {run_id}"
        )
        raise


def _is_transient(error: BotoCoreError | ClientError) -> bool:
    """Whether AWS may respond to the next call."""
    if not isinstance(error, ClientError):
        return isinstance(error, (Unreachable, HTTPClientError))
    metadata = error.response.get("ResponseMetadata", {})
    is_throttled = error.response["Error"]["Code"] in _THROTTLED
    return is_throttled or metadata.get("HTTPStatusCode", 0) >= 500


def _status_if_started(stack: Stack, run_id: str, execution: str | None) -> Json | None:
    """The status; None while the execution has not started the run."""
    if execution is not None:
        described = stack.client("stepfunctions").describe_execution(executionArn=execution)
        if described["status"] not in ("RUNNING", "SUCCEEDED"):
            raise CommandError(_failure(described))
    try:
        return status_of(stack, run_id)
    except CommandError as error:
        if execution is not None and str(error).endswith(_NOT_STARTED):
            return None
        raise


def _failure(execution: Json) -> str:
    """Why an execution has failed: the error of the function, if it is one."""
    cause = execution.get("cause", "")
    with suppress(ValueError, KeyError, TypeError):
        cause = json.loads(cause)["errorMessage"]
    return f"{execution.get('error', execution['status'])}: {cause}"


def seconds_left(status: Json) -> float | None:
    """Estimate the seconds to the end of a run, from the share of the windows that are done."""
    done: int = status["windows_done"]
    windows: int = status["windows"]
    if status["state"] != "running":
        return None
    seconds: float = status["seconds"]
    return seconds * (windows - done) / done if done else None


def duration(seconds: float | None) -> str:
    """Return a duration for people: ``2 h 5 min``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def line_of(status: Json) -> Json:
    """Return the progress of a run in columns."""
    return {
        "run": status["run_id"],
        "state": status["state"],
        "objects": status["objects"],
        "per_second": status["objects_per_second"],
        "windows": f"{status['windows_done']}/{status['windows']}",
        "left": duration(seconds_left(status)),
    }


@contextmanager
def _shown(session: Session) -> Iterator[Any]:
    """Yield a function that shows a status: a bar on a terminal, otherwise a line every 30 s."""
    output = session.output
    if not output.messages.is_terminal:
        last: list[float] = []

        def print_line(status: Json) -> None:
            now = time.monotonic()
            if not last or now - last[0] >= _LINE_SECONDS or status["state"] != "running":
                last[:] = [now]
                values = line_of(status)
                output.say("  ".join(f"{name} {values[name]}" for name in _WINDOW_COLUMNS))

        yield print_line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[objects]} objects, {task.fields[per_second]} a second"),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=output.messages) as progress:
        task = progress.add_task("starting", total=None, objects=0, per_second=0, left="")

        def move(status: Json) -> None:
            values = line_of(status)
            left = f"about {values['left']} left" if values["left"] else ""
            progress.update(
                task,
                description=f"{status['run_id']} {status['state']}",
                total=status["windows"],
                completed=status["windows_done"],
                objects=values["objects"],
                per_second=values["per_second"],
                left=left,
            )

        yield move
