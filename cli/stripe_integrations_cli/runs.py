"""``backfill``, ``verify``, ``repair`` and ``rebuild``: runs through the whole Stripe account."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stripe_integrations_cli.errors import CommandError, ExitCode, UsageError
from stripe_integrations_cli.mapping import CheckedMapping, check_mapping
from stripe_integrations_cli.session import Session, Yes, command
from stripe_integrations_cli.stack import Stack
from stripe_integrations_cli.watch import duration, execute, line_of, status_of, watch

Json = dict[str, Any]

backfill = typer.Typer(
    no_args_is_help=True, help="Walk the whole Stripe account, and store what the table lacks."
)

_REPORTED = ("refused", "conflict", "unreadable", "not-written")
"""The results of objects that were not stored, or written: the report has the reasons."""
_RUN = re.compile(r"[A-Za-z0-9_-]{1,96}")
PAYMENT_METHODS = ("all", "with-default-or-subscription", "none")
"""Whose payment methods a run may list."""

RunArgument = Annotated[
    str | None, typer.Argument(metavar="RUN", help="By default, the one that was started last.")
]
WatchOption = Annotated[
    bool, typer.Option("--watch/--no-watch", help="Show its progress until it ends.")
]
OfRunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id of the run.")]


@command(backfill, "start")
def start(
    session: Session,
    *,
    mapping: Annotated[
        Path | None,
        typer.Option("--mapping", help="A CSV or JSON Lines file of users and their customers."),
    ] = None,
    by_metadata: Annotated[
        bool, typer.Option("--by-metadata", help="Assign customers as their metadata says.")
    ] = False,
    payment_methods: Annotated[
        str, typer.Option(help="Of which customers: all, with-default-or-subscription or none.")
    ] = "with-default-or-subscription",
    allow_refused: Annotated[
        bool,
        typer.Option("--allow-refused", help="Report invalid rows, and continue without them."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    is_watched: WatchOption = True,
) -> None:
    """Store all customers and subscriptions of the account, and update older records."""
    if payment_methods not in PAYMENT_METHODS:
        raise UsageError(f"--payment-methods takes {', '.join(PAYMENT_METHODS)}")
    if mapping and by_metadata:
        raise UsageError("give --mapping or --by-metadata, not both")
    checked = _checked(session, mapping) if mapping else None
    if dry_run:
        session.output.fields(_plan(session, checked, payment_methods, by_metadata=by_metadata))
        if checked and not checked.is_clean:
            raise typer.Exit(ExitCode.FAILED)
        return
    if checked and checked.refused and not allow_refused:
        first = checked.refused[0]
        raise CommandError(
            f"{len(checked.refused)} rows are invalid, the first at byte {first.place}: "
            f"{first.reason}. Correct them, or give --allow-refused"
        )
    run_id = new_run("backfill")
    given: Json = {"payment_methods": payment_methods}
    if by_metadata:
        given["by_metadata"] = True
    if mapping:
        key = f"mappings/{run_id}{mapping.suffix}"
        bucket = session.stack.outputs["ReportsBucket"]
        session.stack.client("s3").put_object(Bucket=bucket, Key=key, Body=mapping.read_bytes())
        given |= {"mapping": key, **({"allow_refused": True} if allow_refused else {})}
    _run(session, run_id, given, is_watched=is_watched)


@command(backfill, "status")
def status(session: Session, run: RunArgument = None) -> None:
    """Show the progress of a run, and the results of its objects."""
    _print(session, status_of(session.stack, run))


@command(backfill, "watch")
def watch_run(session: Session, run: RunArgument = None) -> None:
    """Show the progress of a run until it ends."""
    run_id = run or status_of(session.stack, None)["run_id"]
    _end(session, watch(session, run_id))


@command(backfill, "stop")
def stop(session: Session, run: RunArgument = None) -> None:
    """Stop a run after the pages that are being read; it can be resumed."""
    run_id = run or status_of(session.stack, None)["run_id"]
    session.output.fields(session.stack.invoke("WalkAccount", {"action": "stop", "run_id": run_id}))


@command(backfill, "resume")
def resume(session: Session, run: RunArgument = None, *, is_watched: WatchOption = True) -> None:
    """Resume a run that was stopped, or whose execution has failed."""
    run_id = run or status_of(session.stack, None)["run_id"]
    execution = resume_run(session.stack, run_id)
    _wait_for_resumption(session, run_id, execution)
    _watched(session, run_id, execution, is_watched=is_watched)


@command(backfill, "report")
def report(session: Session, run: RunArgument = None) -> None:
    """List what a run did not store or write, or how the table differs from Stripe, and why."""
    run_id = run or status_of(session.stack, None)["run_id"]
    session.output.rows(("object", "result", "reason"), reported(session.stack, run_id))


@command(backfill, "write-metadata")
def write_metadata(
    session: Session, *, is_watched: WatchOption = True, is_confirmed: Yes = False
) -> None:
    """Write our metadata to the customers on Stripe that backfills gave to users.

    Each write is an event for all webhook endpoints of the account, so five are made a second. What
    is written already is left out: if the run is interrupted, resume it, or repeat the command.
    """
    session.confirm(
        "Write the ids of users to the metadata of their customers on Stripe?",
        is_confirmed=is_confirmed,
    )
    _run(session, new_run("metadata"), {"kind": "metadata"}, is_watched=is_watched)


@command(backfill, "undo")
def undo(
    session: Session,
    run: OfRunArgument,
    *,
    is_watched: WatchOption = True,
    is_confirmed: Yes = False,
) -> None:
    """Release the customers that a run gave to users, except those adopted or released since."""
    session.confirm(f"Release the customers that {run} gave to users?", is_confirmed=is_confirmed)
    given = {"kind": "undo", "of_run": run}
    _run(session, new_run("undo"), given, is_watched=is_watched)


def verify(session: Session, *, is_watched: WatchOption = True) -> None:
    """Compare the table with Stripe, and change neither; exits with 1 if they differ."""
    _run(session, new_run("verify"), {"kind": "verify"}, is_watched=is_watched)


def repair(
    session: Session,
    run: OfRunArgument,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be fetched again.")
    ] = False,
    is_watched: WatchOption = True,
) -> None:
    """Fetch again what the report of a verification names."""
    if dry_run:
        session.output.rows(("object", "result", "reason"), reported(session.stack, run))
        return
    given = {"kind": "repair", "of_run": run}
    _run(session, new_run("repair"), given, is_watched=is_watched)


def rebuild(session: Session, *, is_watched: WatchOption = True) -> None:
    """Store, after a restore, the customers of this deployment that the table lacks."""
    _run(session, new_run("rebuild"), {"kind": "rebuild"}, is_watched=is_watched)


def add_runs(app: typer.Typer) -> None:
    """Register the commands that have no group."""
    for name, function in (("verify", verify), ("repair", repair), ("rebuild", rebuild)):
        command(app, name)(function)


def new_run(kind: str) -> str:
    """Return the id of a run that is started now."""
    return f"{kind}-{int(time.time())}"


def resume_run(stack: Stack, run_id: str) -> str:
    """Start an execution that continues a run, and return its ARN.

    Raises
    ------
    CommandError
        It is finished, or there is no such run.
    """
    if status_of(stack, run_id)["state"] == "finished":
        raise CommandError(f"{run_id} is finished")
    return execute(stack, {"run_id": run_id})


def _run(session: Session, run_id: str, given: Json, *, is_watched: bool) -> None:
    execution = execute(session.stack, given, run_id)
    _watched(session, run_id, execution, is_watched=is_watched)


def _watched(session: Session, run_id: str, execution: str, *, is_watched: bool) -> None:
    if is_watched:
        _end(session, watch(session, run_id, execution))
    else:
        session.output.fields({"run_id": run_id})


def _wait_for_resumption(session: Session, run_id: str, execution: str) -> None:
    """Wait until the execution has set the run to running, or has ended."""
    states = session.stack.client("stepfunctions")
    while status_of(session.stack, run_id)["state"] == "stopped":
        if states.describe_execution(executionArn=execution)["status"] != "RUNNING":
            return
        time.sleep(0.5)


def _end(session: Session, status: Json) -> None:
    """Print how a run has ended, and exit with 1 where something is left to be done."""
    _print(session, status)
    run_id = status["run_id"]
    left = sum(status["results"].get(result, 0) for result in _REPORTED)
    if status["differences"]:
        session.output.say(
            f"the report has them: stripe-customers backfill report {run_id}. "
            f"Fetch them again: stripe-customers repair {run_id}"
        )
    elif left:
        session.output.say(f"the report has {left}: stripe-customers backfill report {run_id}")
    if status["state"] == "stopped":
        session.output.say(f"resume it: stripe-customers backfill resume {run_id}")
    if status["differences"] or left or status["state"] == "stopped":
        raise typer.Exit(ExitCode.FAILED)


def _print(session: Session, status: Json) -> None:
    if session.output.as_json:
        session.output.json(status)
        return
    results = {name: count for name, count in status["results"].items() if count}
    session.output.fields(
        {
            "run": status["run_id"],
            "kind": status["kind"],
            "state": status["state"],
            "took": duration(status["seconds"]),
            **{name: line_of(status)[name] for name in ("objects", "per_second", "windows")},
            **({"left": line_of(status)["left"]} if line_of(status)["left"] else {}),
            **({"next_check": status["next_check_at"]} if status.get("next_check_at") else {}),
            **results,
            **({"differences": "none"} if _found_nothing(status) else {}),
        }
    )


def _found_nothing(status: Json) -> bool:
    is_complete = status["kind"] == "verify" and status["state"] == "finished"
    return is_complete and not status["differences"]


def _checked(session: Session, mapping: Path) -> CheckedMapping:
    with session.stack.in_process():
        return check_mapping(mapping)


def _plan(
    session: Session, mapping: CheckedMapping | None, payment_methods: str, *, by_metadata: bool
) -> Json:
    """What a run would do, with the parameters that decide how."""
    parameters = session.stack.parameters
    rows: Json = {}
    if mapping:
        refused = [f"byte {row.place}: {row.reason}" for row in mapping.refused[:10]]
        rows = {
            "rows": mapping.rows,
            "refused_rows": len(mapping.refused),
            "first_refused": "; ".join(refused) or None,
            "users_with_several_customers": mapping.repeated_users,
            "customers_with_several_users": mapping.repeated_customers,
        }
    return {
        **rows,
        "by_metadata": by_metadata,
        "payment_methods": payment_methods,
        "unassigned_customers": parameters["UnassignedCustomers"],
        "workers": int(parameters["WalkWorkers"]),
        "percent_of_stripes_limits": int(parameters["WalkStripePercent"]),
        "write_units_per_second": int(parameters["WalkWriteUnitsPerSecond"]),
    }


def reported(stack: Stack, run_id: str) -> Iterator[Json]:
    """Yield the lines of a run's report, file by file."""
    if not _RUN.fullmatch(run_id):
        raise UsageError("a run is named by letters, digits, hyphens and underscores")
    is_empty = True
    bucket, store = stack.outputs["ReportsBucket"], stack.client("s3")
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"runs/{run_id}/")
    for page in pages:
        for found in page.get("Contents", ()):
            body = store.get_object(Bucket=bucket, Key=found["Key"])["Body"]
            for line in body.iter_lines():
                finding = json.loads(line)
                is_empty = False
                yield {
                    "object": finding["stripe_id"],
                    "result": finding["result"],
                    "reason": finding["reason"],
                }
    if is_empty:
        status_of(stack, run_id)  # fails if there is no such run
