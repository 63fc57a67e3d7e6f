"""The page of a run through the Stripe account: its progress and its report."""

from __future__ import annotations

from itertools import islice
from typing import Any

from flask import Blueprint, abort, redirect, render_template, url_for

from stripe_integrations_cli.console.connection import stack
from stripe_integrations_cli.console.paging import PAGE_ROWS
from stripe_integrations_cli.runs import new_run, reported, resume_run
from stripe_integrations_cli.watch import duration, execute, is_executed, latest_status, line_of

runs = Blueprint("runs", __name__)

Json = dict[str, Any]


@runs.get("/runs")
def show() -> str:
    """Show the run that was started last."""
    status = latest_status(stack())
    report = [] if status is None else list(islice(reported(stack(), status["run_id"]), PAGE_ROWS))
    return render_template("runs.html", status=status, report=report, **_shown(status))


@runs.get("/runs/progress")
def progress() -> str:
    """Show its progress alone, for the page to be refreshed."""
    status = latest_status(stack())
    return render_template("progress.html", status=status, **_shown(status))


@runs.post("/runs/verify")
def verify() -> Any:
    """Start a verification."""
    last = latest_status(stack())
    if last and last["state"] == "running":
        abort(409, f"{last['run_id']} is in progress: wait for its end, or stop it")
    run_id = new_run("verify")
    execute(stack(), {"kind": "verify"}, run_id)
    return redirect(url_for("runs.show", done="started"))


@runs.post("/runs/<run_id>/stop")
def stop(run_id: str) -> Any:
    """Stop a run after the pages that are being read."""
    stack().invoke("WalkAccount", {"action": "stop", "run_id": run_id})
    return redirect(url_for("runs.show", done="stopping"))


@runs.post("/runs/<run_id>/resume")
def resume(run_id: str) -> Any:
    """Resume a run that was stopped, or whose execution has failed."""
    resume_run(stack(), run_id)
    return redirect(url_for("runs.show", done="resumed"))


def _shown(status: Json | None) -> Json:
    if status is None:
        return {}
    return {
        "line": line_of(status),
        "took": duration(status["seconds"]),
        "is_interrupted": status["state"] == "running" and not is_executed(stack()),
    }
