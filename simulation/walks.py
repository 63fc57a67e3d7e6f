"""Runs through the Stripe account, driven as the state machine in template.yaml drives them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from simulation.history import Action
from simulation.processes import Fleet, Outcome
from simulation.schedule import Schedule
from simulation.stripe_actor import StripeActor
from simulation.watch import Watch
from simulation.worker import REBUILD, UNDO
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY
from stripe_integrations.errors import RunInProgressError, StorageError, SweepMissingError

Json = dict[str, Any]

WALK = "walk_account"
"""The function."""
WALKING = (WALK, UNDO, REBUILD)
"""What runs through the account."""
_SECONDS = (0.01, 0.1)
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 5.0, 300.0
_REFUSED_SECONDS = 60.0
"""How long an operator waits after a refusal before the next attempt."""


class Bucket:
    """The S3 bucket of the deployment.

    Parameters
    ----------
    fleet : Fleet
        The processes that use it.

    Attributes
    ----------
    texts : dict
        The objects by key.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.texts: dict[str, str] = {}
        self._fleet = fleet

    def store(self, key: str, text: str) -> None:
        """Store an object.

        Raises
        ------
        StorageError
            The request failed, perhaps after its effect.
        """
        with self._call("PutObject"):
            self.texts[key] = text

    def read_lines(self, key: str, offset: int) -> Iterator[tuple[bytes, int]]:
        """Yield the lines of an object from a byte on, each with the offset of the next one."""
        with self._call("GetObject"):
            content = self.texts[key].encode()[offset:]
        for line in content.splitlines(keepends=True):
            offset += len(line)
            yield line.removesuffix(b"\n"), offset

    def _call(self, operation: str) -> _BucketCall:
        return _BucketCall(self._fleet, operation)


class _BucketCall:
    """One request to the bucket; its effect is the block."""

    def __init__(self, fleet: Fleet, operation: str) -> None:
        self._invocation = fleet.invocation()
        self._call = self._invocation.begin("bucket", operation, _SECONDS)
        fleet.trace(self._call.name, self._call.fault)

    def __enter__(self) -> None:
        if self._call.fault == "refused":
            raise StorageError("s3: EndpointConnectionError")

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self._invocation.end(self._call)
            if self._call.fault == "lost response":
                raise StorageError("s3: ReadTimeoutError")


@dataclass
class WalkedRun:
    """One run, and what is expected of it.

    Parameters
    ----------
    action : Action
        The action that started it; its name is the run's id.
    rows : list of tuple
        The mapping: the ids of a user and of a customer.
    present : set of str
        The customers without a token that Stripe had when it was started.
    """

    action: Action
    rows: list[tuple[str, str]]
    present: set[str]
    due: dict[str, str] = field(default_factory=dict)
    """Of a run that writes metadata: the tokens by the customers whose metadata it has to write."""
    is_finished: bool = False
    is_undone: bool = False
    is_over: bool = False
    """Whether nothing more happens to it."""
    workers: int = 0
    """How many work at it now."""
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.action.name


class Walks:
    """All runs of a history.

    Parameters
    ----------
    schedule : Schedule
        Virtual time.
    fleet : Fleet
        The processes.
    actor : StripeActor
        Knows the customers that users may get.
    watch : Watch
        Is told what each mapping allows.
    check_outcome : callable
        Called with the name of a function and the outcome of its invocation.
    note_change : callable
        Called when a run has ended.

    Attributes
    ----------
    runs : list of WalkedRun
        The backfills, in the order of their starts.
    metadata_runs : list of WalkedRun
        The runs that write our metadata to Stripe, in the order of their starts.
    bucket : Bucket
        Has the mappings and the reports.
    """

    def __init__(
        self,
        *,
        schedule: Schedule,
        fleet: Fleet,
        actor: StripeActor,
        watch: Watch,
        check_outcome: Callable[[str, Outcome], None],
        note_change: Callable[[], None],
    ) -> None:
        self.runs: list[WalkedRun] = []
        self.metadata_runs: list[WalkedRun] = []
        self._rebuilds: list[WalkedRun] = []
        self.bucket = Bucket(fleet)
        self._schedule = schedule
        self._fleet = fleet
        self._actor = actor
        self._watch = watch
        self._check_outcome = check_outcome
        self._note_change = note_change

    @property
    def are_over(self) -> bool:
        """Whether no run is in progress, and none is to be resumed or undone."""
        return all(run.is_over for run in (*self.runs, *self.metadata_runs, *self._rebuilds))

    @property
    def has_abandoned_run(self) -> bool:
        """Whether a run that writes metadata was not resumed: its last write may lack a note."""
        return any(run.is_over and not run.is_finished for run in self.metadata_runs)

    def findings(self, run: WalkedRun) -> set[str]:
        """The ids in a run's report."""
        return {
            json.loads(line)["stripe_id"]
            for key, text in self.bucket.texts.items()
            if key.startswith(f"runs/{run.run_id}/")
            for line in text.splitlines()
        }

    def begin(self, action: Action) -> None:
        """Start a run, with its mapping as a file in the bucket."""
        rows = [
            (f"u-{user}", self._actor.customer_at(which, is_prior=is_prior))
            for user, which, is_prior in action.values["rows"]
        ]
        run = WalkedRun(action, rows, self._actor.without(TOKEN_KEY))
        self.runs.append(run)
        self._watch.mapped |= set(rows)
        options: Json = {"payment_methods": action.values["policy"]}
        if rows:
            key = options["mapping"] = f"mappings/{run.run_id}.csv"
            lines = ["user_id,stripe_id", *(",".join(row) for row in rows)]
            self.bucket.texts[key] = "\n".join(lines) + "\n"
        self._ask(run, "start", self._work_all, options=options)

    def write_metadata(self, action: Action) -> None:
        """Start a run that writes our metadata to the customers that backfills have assigned."""
        run = WalkedRun(action, [], set())
        self.metadata_runs.append(run)

        def then(_: WalkedRun, response: Json) -> None:
            run.due = self._watch.assigned_by_runs
            self._work_all(run, response)

        self._ask(run, "start", then, options={"kind": "metadata"})

    def rebuild(self, action: Action) -> None:
        """Store the customers of this deployment that the table lacks."""
        run = WalkedRun(action, [], set())
        self._rebuilds.append(run)

        def then(_: Json) -> None:
            run.is_over = True
            self._note_change()

        self._invoke(run, REBUILD, {"run_id": run.run_id}, run.run_id, then)

    def _ask(
        self, run: WalkedRun, step: str, then: Callable[[WalkedRun, Json], None], **event: Any
    ) -> None:
        """Invoke the function until it succeeds."""
        event |= {"action": step, "run_id": run.run_id}
        self._invoke(run, WALK, event, f"{run.run_id} {step}", partial(then, run))

    def _invoke(
        self,
        run: WalkedRun,
        function: str,
        event: Json,
        name: str,
        then: Callable[[Json], None],
    ) -> None:
        def ended(outcome: Outcome) -> None:
            self._check_outcome(function, outcome)
            if isinstance(outcome.error, RunInProgressError) and event.get("action") == "resume":
                self._abandon(run)
            elif outcome.died or outcome.error:
                self._schedule.after(self._pause(run, name, outcome), again)
            else:
                run.failures[name] = 0
                then(outcome.response)

        again = partial(self._invoke, run, function, event, name, then)
        self._fleet.invoke(function, event, name, ended)

    @staticmethod
    def _pause(run: WalkedRun, name: str, outcome: Outcome) -> float:
        if isinstance(outcome.error, RunInProgressError | SweepMissingError):
            return _REFUSED_SECONDS
        run.failures[name] += 1
        seconds = _FIRST_RETRY_SECONDS * 2.0 ** (run.failures[name] - 1)
        return min(seconds, _LONGEST_RETRY_SECONDS)

    def _work_all(self, run: WalkedRun, _: Json) -> None:
        values = run.action.values
        run.workers = values["workers"]
        for number in range(run.workers):
            self._work(run, f"{run.run_id}-{number}")
        if values["stop"] is not None and not run.failures["stops"]:
            run.failures["stops"] = 1
            self._schedule.after(values["stop"], lambda: self._ask(run, "stop", lambda *_: None))

    def _work(self, run: WalkedRun, worker: str) -> None:
        def then(response: Json) -> None:
            if not response["is_done"]:
                self._work(run, worker)
                return
            run.workers -= 1
            if not run.workers:
                self._ask(run, "finish", self._finish)

        event = {"action": "work", "run_id": run.run_id, "worker": worker}
        self._invoke(run, WALK, event, worker, then)

    def _finish(self, run: WalkedRun, response: Json) -> None:
        values = run.action.values
        if response["state"] == "stopped":
            resume = partial(self._ask, run, "resume", self._work_all)
            self._schedule.after(values["resume"], resume)
            return
        run.is_finished = True
        self._note_change()
        if values["undo"] is None:
            run.is_over = True
        else:
            self._schedule.after(values["undo"], lambda: self._undo(run))

    def _abandon(self, run: WalkedRun) -> None:
        """Undo a backfill that can't be resumed, since another run has been started."""
        if run in self.metadata_runs:
            run.is_over = True
            self._note_change()
            return
        self._schedule.after(_REFUSED_SECONDS, lambda: self._undo(run))

    def _undo(self, run: WalkedRun) -> None:
        def then(_: Json) -> None:
            run.is_undone = run.is_over = True
            self._note_change()

        self._watch.undone.add(run.run_id)
        event = {"run_id": run.run_id, "mapping": run.rows}
        self._invoke(run, UNDO, event, f"{run.run_id} undo", then)
