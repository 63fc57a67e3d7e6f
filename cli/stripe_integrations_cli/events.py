"""``events``: list, show and replay Stripe's events, and empty the dead-letter queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer

from stripe_integrations.actions import StripeEvent, User
from stripe_integrations_cli.errors import CommandError, ExitCode, UsageError
from stripe_integrations_cli.output import timestamp
from stripe_integrations_cli.session import Session, Yes, command
from stripe_integrations_cli.stack import Stack
from stripe_integrations_cli.tail import changed_events
from stripe_integrations_cli.times import unix_range

events = typer.Typer(no_args_is_help=True, help="Stripe's events, and what became of them.")

COLUMNS = ("event", "created", "type", "state", "attempts", "customer", "user", "reason")

_QUEUED = ("pending", "waiting", "failed")
_LETTER_COLUMNS = ("event", "type", "customer", "attempts", "reason")
_VISIBILITY_SECONDS = 5
"""How long a message that was listed is hidden from other readers of the queue."""

UserOption = Annotated[str | None, typer.Option("--user", help="Only of this user's customers.")]
CustomerOption = Annotated[
    str | None, typer.Option("--customer", metavar="CUS", help="Only of this Stripe customer.")
]
TypeOption = Annotated[
    str | None,
    typer.Option("--type", help="Only of this type, or of a family such as 'invoice.*'."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="From this age or time on: 90m, 12h, 2d or ISO 8601."
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Up to this age or time, as for --since."),
]
EventArgument = Annotated[str, typer.Argument(metavar="EVENT", help="Its id, evt_….")]


@command(events, "list")
def list_events(
    session: Session,
    *,
    user: UserOption = None,
    customer: CustomerOption = None,
    state: Annotated[
        str | None,
        typer.Option(help="Only those that are pending, waiting, applied, ignored or failed."),
    ] = None,
    kind: TypeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List events of a user or a customer, in a state, or of a range of time.

    Without a user, a customer, or the state pending, waiting or failed, the whole table is read,
    whatever the time and the limit are, and --since is required.
    """
    is_indexed = user is not None or customer is not None or state in _QUEUED
    if user is not None and customer is not None:
        raise UsageError("give --user or --customer, not both")
    if not is_indexed and since is None:
        raise UsageError("give --user, --customer, --state failed (pending, waiting) or --since")
    created_from, created_to = unix_range(since, until)
    with session.stack.in_process():
        found = StripeEvent.find(
            None if user is None else User(user),
            customer,
            state=state,
            kind=kind,
            created_from=created_from,
            created_to=created_to,
        )
        session.output.limited(COLUMNS, map(summary, found), limit)


@command(events, "failed")
def failed(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List the events that have failed, with their reasons."""
    with session.stack.in_process():
        found = StripeEvent.find(state="failed")
        session.output.limited(COLUMNS, map(summary, found), limit)


@command(events, "show")
def show(
    session: Session,
    event_id: EventArgument,
    payload: Annotated[
        bool, typer.Option("--payload", help="Print what Stripe sent too: it has personal data.")
    ] = False,
) -> None:
    """Show one event: its state, its attempts, and what it changed or why not."""
    with session.stack.in_process():
        event = StripeEvent.get(event_id)
    if event is None:
        raise CommandError(f"there is no event {event_id}: it never arrived, or has expired")
    shown = {**summary(event), **details(event)}
    session.output.fields({**shown, "payload": event.webhook_message} if payload else shown)


@command(events, "replay")
def replay(
    session: Session,
    event_ids: Annotated[
        list[str] | None, typer.Argument(metavar="EVENT", help="Their ids.")
    ] = None,
    *,
    all_failed: Annotated[bool, typer.Option("--failed", help="All failed events.")] = False,
    since: SinceOption = None,
    until: UntilOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the events, and replay none.")
    ] = False,
    is_confirmed: Yes = False,
) -> None:
    """Apply events again, from the state that Stripe has now.

    A range of time is looked for in the whole table. If it is interrupted, repeat the command:
    events may be applied again any number of times.
    """
    is_range = since is not None or until is not None
    if (bool(event_ids) + all_failed + is_range) != 1:
        raise UsageError("give events, --failed, or --since with or without --until")
    if is_range and since is None:
        raise UsageError("--until needs --since")
    created_from, created_to = unix_range(since, until or "0s")
    if dry_run:
        with session.stack.in_process():
            found = _to_replay(event_ids or [], all_failed, created_from, created_to)
            session.output.rows(COLUMNS, map(summary, found))
        return
    requests: list[dict[str, Any]]
    if event_ids:
        requests = [{"event_id": event_id} for event_id in event_ids]
    elif all_failed:
        requests = [{"failed": True}]
    else:
        session.confirm(
            f"Replay every event from {timestamp(created_from)} to {timestamp(created_to)}?",
            is_confirmed=is_confirmed,
        )
        requests = [{"created_from": created_from, "created_to": created_to}]
    replayed, failures = 0, 0
    for request in requests:
        try:
            replayed += invoke_replay(session.stack, request, session.output.say)
        except CommandError as error:  # the next event may be replayed all the same
            session.output.fail(str(error))
            failures += 1
    session.output.fields({"replayed": replayed})
    if failures:
        raise typer.Exit(ExitCode.FAILED)


def invoke_replay(
    stack: Stack, request: Mapping[str, Any], say: Callable[[str], None] = lambda _: None
) -> int:
    """Invoke the replay until nothing is left, and return how many events were replayed.

    An interruption between two invocations loses nothing.

    Parameters
    ----------
    stack : Stack
        The stack.
    request : mapping
        Which events: see the function replay_events.
    say : callable
        Called with the progress, as text.
    """
    replayed, cursor = 0, dict[str, Any]()
    while True:
        result = stack.invoke("ReplayEvents", {**request, **cursor})
        replayed += int(result["replayed"])
        if result["resume_from"] is None:
            return replayed
        cursor = {"resume_from": result["resume_from"]}
        say(f"{replayed} replayed so far")


def _to_replay(
    event_ids: list[str], all_failed: bool, created_from: int | None, created_to: int | None
) -> Iterator[Any]:
    if event_ids:
        yield from filter(None, map(StripeEvent.get, event_ids))
    elif all_failed:
        yield from StripeEvent.find(state="failed")
    else:
        yield from StripeEvent.find(created_from=created_from, created_to=created_to)


@command(events, "dead-letters")
def dead_letters(
    session: Session,
    purge: Annotated[
        bool, typer.Option("--purge", help="Empty the queue, unless an event is failed.")
    ] = False,
    is_confirmed: Yes = False,
) -> None:
    """List up to ten messages of the dead-letter queue, or empty it."""
    queue = session.stack.client("sqs")
    url = session.stack.outputs["DeadLettersUrl"]
    if not purge:
        received = queue.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=_VISIBILITY_SECONDS
        )
        letters = (json.loads(message["Body"]) for message in received.get("Messages", ()))
        session.output.rows(_LETTER_COLUMNS, map(_letter, letters))
        return
    with session.stack.in_process():
        left = next(StripeEvent.find(state="failed"), None)
    if left is not None:
        raise CommandError(f"not emptied: {left.stripe_id} is failed. Replay it first")
    session.confirm("Delete all messages of the dead-letter queue?", is_confirmed=is_confirmed)
    queue.purge_queue(QueueUrl=url)
    session.output.fields({"purged": url})


def _letter(message: Mapping[str, Any]) -> dict[str, Any]:
    if "event_id" not in message:
        return {"reason": "the stream has discarded records: the schedule applies their events"}
    named = {"event": "event_id", "type": "type", "customer": "customer_id"}
    shown = {column: message.get(name) for column, name in named.items()}
    return {**shown, "attempts": message.get("attempts"), "reason": message.get("reason")}


@command(events, "tail")
def tail(
    session: Session,
    kind: TypeOption = None,
    user: UserOption = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="End after this number of lines; by default, at Ctrl-C."),
    ] = None,
) -> None:
    """Print each change of an event as it happens: stored, applied, ignored, retried, failed.

    It reads the table's stream, as one of the two readers that a stream has room for.
    """
    columns = ("at", *COLUMNS)
    with session.stack.in_process():
        lines = (
            {"at": timestamp(datetime.now().astimezone()), **summary(event)}
            for event in changed_events(session.stack, kind=kind, user_id=user)
        )
        for line in islice(lines, count):
            session.output.row(columns, line)


def summary(event: Any) -> dict[str, Any]:
    """Return what a list has of an event: no payload."""
    return {
        "event": event.stripe_id,
        "created": timestamp(event.created),
        "type": event.kind,
        "state": str(event.state),
        "attempts": event.attempts,
        "customer": event.customer_id,
        "user": event.user_id,
        "reason": event.reason or event.last_error,
    }


def details(event: Any) -> dict[str, Any]:
    """Return the fields of one event that its summary lacks, without its payload."""
    payload = event.webhook_message or {}
    previous = payload.get("data", {}).get("previous_attributes") or {}
    is_queued = str(event.state) in ("pending", "waiting")
    return {
        "outcome": outcome(event),
        "changed_on_stripe": ", ".join(sorted(previous)) or None,
        "received_at": timestamp(event.received_at),
        "effect_at": timestamp(event.effected_at),
        "published_at": timestamp(event.published_at),
        "replayed_at": timestamp(event.replayed_at),
        "next_attempt_at": timestamp(event.next_attempt) if is_queued else None,
        "last_error": event.last_error,
        "api_version": event.api_version,
        "livemode": event.livemode,
        "stripe_request": (event.request or {}).get("id"),
        "expires_at": timestamp(event.expires_at),
        "has_payload": event.webhook_message is not None,
    }


def outcome(event: Any) -> str:
    """Describe what became of an event."""
    of_user = f" of user {event.user_id}" if event.user_id else ""
    repeats = f"its attempt failed with {event.last_error}, and will be repeated"
    outcomes = {
        "applied": f"applied to {event.customer_id or 'no customer'}{of_user}",
        "ignored": f"changed nothing: {event.reason}",
        "failed": f"failed: {event.reason}. Correct the cause, then replay it",
        "waiting": "waits for its customer, which is unknown so far",
        "pending": repeats if event.last_error else "will be applied",
    }
    return outcomes[str(event.state)]
