"""Invoked by the state machine and by an operator: walks the account, and returns its progress."""

import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from math import ceil
from typing import Any

from stripe_integrations.actions import StripeAccount
from stripe_integrations.context import current
from stripe_integrations.entrypoints.invocation import invocation_handler
from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models.run import PaymentMethodPolicy, RunKind, RunState
from stripe_integrations.observability import add_fields, print_line

_KEY = re.compile(r"mappings/[A-Za-z0-9_./-]{1,200}\.(csv|jsonl)")
_ID = re.compile(r"[A-Za-z0-9_-]{1,96}")


@invocation_handler
def handler(event: dict[str, Any]) -> dict[str, Any]:
    match event.get("action"):
        case "start":
            run_id = _id(event, "run_id")
            return _state(StripeAccount.start(run_id=run_id, **_options(event)).run_id)
        case "work":
            return _work(_id(event, "run_id"), _id(event, "worker"))
        case "status":
            return _progress(_id(event, "run_id") if "run_id" in event else None)
        case "finish":
            return _outcome(_id(event, "run_id"))
        case "stop":
            StripeAccount.stop(_id(event, "run_id"))
            return _state(event["run_id"])
        case "resume":
            StripeAccount.resume(_id(event, "run_id"))
            return _state(event["run_id"])
    raise InvalidFieldError("action", "must be start, work, status, finish, stop or resume")


def _work(run_id: str, worker: str) -> dict[str, Any]:
    for step in StripeAccount.work(run_id, worker):
        results = {str(result): count for result, count in step.page.results.items()}
        add_fields(run_id=run_id, window=step.window.id, **results)
        print_line("walked a page")
    progress = StripeAccount.progress(run_id)
    return {
        "run_id": run_id,
        "worker": worker,
        "is_done": progress.state is not RunState.RUNNING,
        "wait_seconds": _seconds_until(progress.next_check_at),
    }


def _seconds_until(moment: datetime | None) -> int:
    """How long the state machine waits, in place of the worker."""
    seconds = (moment - current().now()).total_seconds() if moment else 0
    return max(0, ceil(seconds))


def _state(run_id: str) -> dict[str, Any]:
    return {"run_id": run_id, "state": StripeAccount.progress(run_id).state}


def _outcome(run_id: str) -> dict[str, Any]:
    progress = StripeAccount.progress(run_id)
    return {
        "run_id": run_id,
        "state": progress.state,
        "differences": sum(progress.differences.values()),
    }


def _progress(run_id: str | None) -> dict[str, Any]:
    progress = StripeAccount.progress(run_id)
    shown = asdict(progress)
    del shown["findings"]  # those of each page are in the bucket
    for name in ("started_at", "ended_at", "next_check_at"):
        moment: datetime | None = shown[name]
        shown[name] = moment.isoformat(timespec="seconds") if moment else None
    return {
        **shown,
        "differences": progress.differences,
        "objects": progress.objects,
        "objects_per_second": round(progress.objects_per_second, 1),
    }


def _id(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidFieldError(name, "must be up to 96 letters, digits, hyphens and underscores")
    return value


def _options(event: dict[str, Any]) -> dict[str, Any]:
    options = event.get("options", {})
    if not isinstance(options, dict) or options.keys() - _OPTIONS.keys():
        raise InvalidFieldError("options", f"may have {', '.join(_OPTIONS)}")
    for name, value in options.items():
        if not _OPTIONS[name](value):
            raise InvalidFieldError(name, "has an invalid value")
    return options


_OPTIONS: dict[str, Callable[[Any], bool]] = {
    "payment_methods": lambda value: value in list(PaymentMethodPolicy),
    "mapping": lambda value: isinstance(value, str) and bool(_KEY.fullmatch(value)),
    "by_metadata": lambda value: isinstance(value, bool),
    "allow_refused": lambda value: isinstance(value, bool),
    "kind": lambda value: value in list(RunKind),
    "of_run": lambda value: isinstance(value, str) and bool(_ID.fullmatch(value)),
}
