"""`StripeAccount`: the public actions on all customers of the Stripe account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from stripe_integrations.actions.account.check import differences_of
from stripe_integrations.actions.account.mapping import RefusedRow, Row, checked, resolve_row, stage
from stripe_integrations.actions.account.page import Finding
from stripe_integrations.actions.account.rate_limiter import Limits, RateLimiter
from stripe_integrations.actions.account.undo import undo_assignment
from stripe_integrations.actions.account.walk import (
    Step,
    next_check_at,
    start_run,
    walk,
)
from stripe_integrations.context import current
from stripe_integrations.errors import MappingRefusedError, RunNotFoundError
from stripe_integrations.models.customer import created_between
from stripe_integrations.models.difference import DifferenceKind
from stripe_integrations.models.keys import user_of
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import PaymentMethodPolicy, Run, RunKind, RunState
from stripe_integrations.models.window import Window

_WORKER = "0"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Parameters
    ----------
    run_id : str
        The run.
    kind : RunKind
        What it does.
    state : RunState
        Whether it is running, stopped or finished.
    started_at, ended_at : datetime
        When it began, and when it finished.
    results : mapping
        How many objects were read so far, by what became of them: see `Result`.
    windows, windows_done : int
        The parts of the account, which grow in number, and how many of them are done.
    seconds : float
        The time since the start, or from the start to the end.
    next_check_at : datetime or None
        When a verification checks its next suspicion, if all objects were read; see `verify`.
    findings : sequence of Finding
        What was found, or not written, since the progress before, and why.
    """

    run_id: str
    kind: RunKind
    state: RunState
    started_at: datetime
    ended_at: datetime | None
    results: Mapping[str, int]
    windows: int
    windows_done: int
    seconds: float
    next_check_at: datetime | None = None
    findings: Sequence[Finding] = ()

    @property
    def differences(self) -> dict[DifferenceKind, int]:
        """How many differences a verification has found so far, by kind; empty without any."""
        found = {kind: self.results.get(kind, 0) for kind in DifferenceKind}
        return {kind: count for kind, count in found.items() if count}

    @property
    def objects(self) -> int:
        """How many customers and subscriptions were read."""
        return sum(self.results.values())

    @property
    def objects_per_second(self) -> float:
        """The average rate so far, with the time in which the run was stopped."""
        return self.objects / self.seconds if self.seconds else 0.0


class StripeAccount:
    """The actions on all customers of the Stripe account.

    A run walks through the account's lists of customers and subscriptions. There is one run at a
    time for each table. What a run writes is written under the same conditions as everything else:
    webhooks, syncs and updates continue meanwhile.

    Every method may raise `DatabaseUnavailableError`; those that call Stripe, `StripeError`.
    """

    @staticmethod
    def backfill(
        mapping: Iterable[tuple[str, str]] = (),
        *,
        by_metadata: bool = False,
        run_id: str | None = None,
        payment_methods: PaymentMethodPolicy = PaymentMethodPolicy.WITH_DEFAULT_OR_SUBSCRIPTION,
        limits: Limits | None = None,
    ) -> Generator[Progress, None, None]:
        """Store what Stripe has and the table lacks, and update what is older, in this process.

        That suits an account of some ten thousand customers. If the process ends, call it again
        with the run's id and the same mapping.

        Parameters
        ----------
        mapping : iterable of tuple
            The id of a user, and of the Stripe customer that the user gets. Without one, no user
            gets a customer, except those that this deployment created or adopted before.
        by_metadata : bool
            Whether a user gets the one unassigned customer whose metadata names the user, under
            the key `Settings.adopt_from`. If several name one user, none is assigned. Ignored with
            `run_id`: the run has its options.
        run_id : str, optional
            A run that was stopped, or whose process ended: it is continued.
        payment_methods : PaymentMethodPolicy
            Whose payment methods are listed, which takes a call for each customer.
        limits : Limits, optional
            How many calls to Stripe and write units a second are used, at most; by default, those
            of the settings.

        Yields
        ------
        Progress
            After each page of up to 100 objects, and at the end.

        Raises
        ------
        RunInProgressError
            Another run is in progress.
        SweepMissingError
            The schedule has never swept Stripe's events.
        OtherAccountError
            Stripe knows none of the newest stored customers.
        MappingRefusedError
            A row of the mapping is invalid. Nothing was assigned.

        Examples
        --------
        >>> for progress in StripeAccount.backfill([("u-1", "cus_1")]):  # doctest: +SKIP
        ...     print(progress.objects, dict(progress.results))
        """
        rows = _rows(mapping)
        if run_id is None:
            run = StripeAccount.start(payment_methods, by_metadata=by_metadata)
        else:
            StripeAccount.resume(run_id)
            run = Run.read(run_id)
        conflicts = [finding for row in rows if (finding := stage(run, row))]
        yield replace(StripeAccount.progress(run.run_id), findings=conflicts)
        for step in StripeAccount.work(run.run_id, limits=limits):
            yield replace(StripeAccount.progress(run.run_id), findings=step.page.findings)
        if StripeAccount.progress(run.run_id).state is RunState.FINISHED:
            missing = [finding for row in rows if (finding := resolve_row(run, row))]
            yield replace(StripeAccount.progress(run.run_id), findings=missing)

    @staticmethod
    def undo(
        run_id: str,
        mapping: Iterable[tuple[str, str]] = (),
        limits: Limits | None = None,
    ) -> Generator[Progress, None, None]:
        """Release the customers that a run gave to users, in this process.

        Those that were adopted, created or released since keep what they have. Our metadata is
        removed on Stripe where `write_metadata` has written it. If the process ends, call it again
        with the same arguments.

        Parameters
        ----------
        run_id : str
            The run that is undone.
        mapping : iterable of tuple
            Its mapping, or a part of it: customers in it that Stripe does not list, which are those
            of test clocks, are released too.
        limits : Limits, optional
            As in `backfill`.

        Yields
        ------
        Progress
            Of the run that undoes it.

        Raises
        ------
        RunNotFoundError, RunInProgressError
            There is no such run; or a run is in progress, or a worker of the stopped run may still
            write.
        InvalidFieldError
            `run_id` is not a backfill.
        OtherAccountError
            As in `backfill`.
        MappingRefusedError
            A row of the mapping is invalid.
        """
        rows = _rows(mapping)
        undo_run_id = StripeAccount.start(kind=RunKind.UNDO, of_run=run_id).run_id
        for _ in StripeAccount.work(undo_run_id, limits=limits):
            yield StripeAccount.progress(undo_run_id)
        rate_limiter = RateLimiter(undo_run_id, limits or Limits.of_settings(current().settings))
        for row in rows:
            undo_assignment(row.stripe_id, run_id, rate_limiter.wait_for_metadata_write)
        yield StripeAccount.progress(undo_run_id)

    @staticmethod
    def verify(
        limits: Limits | None = None,
    ) -> Generator[Progress, None, None]:
        """Compare the table with Stripe, in this process, and change neither.

        A difference counts once it was seen twice, 15 minutes apart, with all events in between
        received and applied: so a run that sees any takes at least as long. The schedule must sweep
        Stripe's events meanwhile. Soft-deleted records, removed objects and customers of other
        deployments are not compared, nor are payment methods.

        Parameters
        ----------
        limits : Limits, optional
            As in `backfill`.

        Yields
        ------
        Progress
            After each page of up to 100 objects, after each batch of checks, and at the end;
            `differences` has the counts, and `findings` what was found since the one before.

        Raises
        ------
        RunInProgressError, SweepMissingError
            As in `backfill`.

        Examples
        --------
        >>> for progress in StripeAccount.verify():  # doctest: +SKIP
        ...     print(progress.objects, progress.differences)
        """
        return _progress_of(StripeAccount.start(kind=RunKind.VERIFY).run_id, limits)

    @staticmethod
    def differences(run_id: str) -> Iterator[Finding]:
        """Read the report of a verification: ids, kinds and names of fields, for 30 days.

        Parameters
        ----------
        run_id : str
            The run.

        Yields
        ------
        Finding
            A difference; `result` is its `DifferenceKind`.

        Raises
        ------
        RunNotFoundError
            There is no such run.
        """
        Run.read(run_id)
        yield from differences_of(run_id)

    @staticmethod
    def repair(
        run_id: str,
        limits: Limits | None = None,
    ) -> Generator[Progress, None, None]:
        """Fetch again what the report of a verification names, in this process.

        What is missing is stored, what is stale is updated, a customer that Stripe has deleted is
        soft-deleted, and claim, record and pointer are completed where a rebuild could do it.
        Nothing else is removed: a customer that Stripe does not know, and duplicates, are reported
        again.

        Parameters
        ----------
        run_id : str
            A verification that has finished.
        limits : Limits, optional
            As in `backfill`.

        Yields
        ------
        Progress
            After each batch, and at the end; `findings` has what remains, and why.

        Raises
        ------
        RunNotFoundError, RunNotFinishedError
            There is no such run, or it is not a verification that has finished.
        RunInProgressError, SweepMissingError, OtherAccountError
            As in `backfill`.
        """
        return _progress_of(StripeAccount.start(kind=RunKind.REPAIR, of_run=run_id).run_id, limits)

    @staticmethod
    def rebuild(
        limits: Limits | None = None,
    ) -> Generator[Progress, None, None]:
        """Store, after a restore, the customers of this deployment that the table lacks.

        They are recognized by the user's id and the deployment's name in Stripe's metadata. Of the
        customers of a user, the one that the user got last is active. What is stored is completed
        where a part is missing, and not updated otherwise: the sweep of Stripe's events does that.
        If the process ends, call it again.

        Parameters
        ----------
        limits : Limits, optional
            As in `backfill`.

        Yields
        ------
        Progress
            After each page of up to 100 customers, and at the end; `findings` has those that were
            left out, and why: a copy of another one's metadata, for example.

        Raises
        ------
        RunInProgressError
            Another run is in progress, or was when the table was backed up: stop it.
        OtherAccountError
            As in `backfill`.
        ConfigurationError
            The table is of another deployment.

        Examples
        --------
        >>> for progress in StripeAccount.rebuild():  # doctest: +SKIP
        ...     print(progress.objects, dict(progress.results))
        """
        return _progress_of(StripeAccount.start(kind=RunKind.REBUILD).run_id, limits)

    @staticmethod
    def write_metadata(
        limits: Limits | None = None,
    ) -> Generator[Progress, None, None]:
        """Write our metadata to the customers on Stripe that backfills gave to users.

        It names the user, so that a rebuild after a restore finds these customers. Each write
        causes an event, so there are only five per second by default. What is written already is
        left out: if the process ends, call it again. If Stripe refuses a write, the customer
        remains its user's.

        Parameters
        ----------
        limits : Limits, optional
            As in `backfill`; `metadata_writes` limits the writes.

        Yields
        ------
        Progress
            After each page of up to 100 customers, and at the end; `findings` has those whose
            metadata was not written, and why: it has 50 keys, for example, or names another owner.

        Raises
        ------
        RunInProgressError, OtherAccountError
            As in `backfill`.
        ConflictError
            A process that ended was writing the metadata of a customer less than about two minutes
            ago, or a release or an erasure is: call it again.

        Examples
        --------
        >>> for progress in StripeAccount.write_metadata():  # doctest: +SKIP
        ...     print(progress.objects, dict(progress.results))
        """
        return _progress_of(StripeAccount.start(kind=RunKind.METADATA).run_id, limits)

    @staticmethod
    def export_mapping() -> Iterator[tuple[str, str]]:
        """Read which user has which customer: all active ones, as a mapping for `backfill`.

        A backfill with it restores the users of customers whose metadata on Stripe does not name
        them. It is read from an index, eventually consistent.

        Yields
        ------
        tuple
            The id of a user, and of the user's Stripe customer; newest customer first.

        Examples
        --------
        >>> rows = list(StripeAccount.export_mapping())  # doctest: +SKIP
        """
        for entry in created_between(None, None):
            if user_id := user_of(entry.pk):
                yield user_id, entry.stripe_id

    @staticmethod
    def start(
        payment_methods: PaymentMethodPolicy = PaymentMethodPolicy.WITH_DEFAULT_OR_SUBSCRIPTION,
        run_id: str | None = None,
        *,
        mapping: str | None = None,
        by_metadata: bool = False,
        allow_refused: bool = False,
        kind: RunKind = RunKind.BACKFILL,
        of_run: str | None = None,
    ) -> Run:
        """Start a run, whose windows any number of workers then walk: see `work`.

        Parameters
        ----------
        payment_methods : PaymentMethodPolicy
            Whose payment methods are listed.
        run_id : str, optional
            Identifies the run: a start that is repeated with it returns the run as it is.
        mapping : str, optional
            The key of a file in the deployment's bucket that says which users get which customers:
            a CSV file, ``….csv``, with the header ``user_id,stripe_id``, or JSON lines with these
            two keys. Its rows are staged before the lists are read.
        by_metadata : bool
            As in `backfill`. It needs the settings `AdoptFrom` and `ExistingCustomers=check`.
        allow_refused : bool
            Whether the run continues after an invalid row. Otherwise it is stopped there.
        kind : RunKind
            What it does: see `backfill`, `verify`, `repair`, `undo`, `rebuild` and
            `write_metadata`.
        of_run : str, optional
            The verification that is repaired, or the backfill that is undone. An undo that was
            started earlier, and is not finished, is resumed.

        Raises
        ------
        RunInProgressError
            As in `backfill`; for an undo, also while a worker of `of_run` may still write.
        SweepMissingError, OtherAccountError
            As in `backfill`.
        InvalidFieldError
            `mapping` or `by_metadata` is given, and `kind` is not a backfill; `by_metadata` is
            given without the settings that it needs; `of_run` is missing for a repair or an undo,
            is given for another kind, or is not a backfill that can be undone.
        RunNotFoundError, RunNotFinishedError
            As in `repair`.
        MappingRefusedError
            The file has not the header of a mapping.
        StorageError
            The bucket has no such file, or did not return it.
        """
        policy, kind = PaymentMethodPolicy(payment_methods), RunKind(kind)
        return start_run(
            kind,
            run_id,
            payment_methods=policy,
            mapping=mapping,
            by_metadata=by_metadata,
            allows_refused=allow_refused,
            of_run=of_run,
        )

    @staticmethod
    def work(
        run_id: str,
        worker: str = _WORKER,
        limits: Limits | None = None,
    ) -> Generator[Step, None, None]:
        """Walk windows of a run, as one of its workers, until none is left or it is stopped.

        In a Lambda function, it ends before the invocation has too little time for another page.
        A worker may end at any point: another one repeats at most its last page.

        Parameters
        ----------
        run_id : str
            The run.
        worker : str
            Identifies the worker among those of the run.
        limits : Limits, optional
            What all workers of the run use together, the same for each; by default, those of the
            settings.

        Yields
        ------
        Step
            Each page that was written.

        Raises
        ------
        RunNotFoundError
            There is no such run.
        """
        return walk(run_id, worker, limits or Limits.of_settings(current().settings))

    @staticmethod
    def progress(run_id: str | None = None) -> Progress:
        """Return how far a run is; by default, the one that was started last.

        Raises
        ------
        RunNotFoundError
            There is no such run, or none was started yet.
        """
        run = Run.read(run_id) if run_id else Run.latest()
        if run is None:
            raise RunNotFoundError("no run has been started yet")
        windows = Window.all_of(run.run_id)
        results: Counter[str] = Counter()
        for window in windows:
            results.update(window.counts)
        ended = run.ended_at or current().now()
        return Progress(
            run.run_id,
            run.kind,
            run.state,
            run.started_at,
            run.ended_at,
            dict(results),
            len(windows),
            sum(window.is_done for window in windows),
            (ended - run.started_at).total_seconds(),
            datetime.fromtimestamp(due_at, UTC) if (due_at := next_check_at(windows)) else None,
        )

    @staticmethod
    def stop(run_id: str) -> None:
        """Let the workers of a run stop after the page that they are reading.

        Raises
        ------
        RunNotFoundError
            There is no such run.
        """
        retry_on_conflict(lambda _: Run.read(run_id).stop())

    @staticmethod
    def resume(run_id: str) -> None:
        """Let workers continue a run that was stopped.

        Raises
        ------
        RunNotFoundError
            There is no such run.
        RunInProgressError
            Another run has been started since.
        """
        retry_on_conflict(lambda _: Run.read(run_id).resume())


def _rows(mapping: Iterable[tuple[str, str]]) -> list[Row]:
    """Check all rows before the first is staged."""
    rows = [checked(number, *row) for number, row in enumerate(mapping, 1)]
    refused = [row for row in rows if isinstance(row, RefusedRow)]
    if refused:
        first = refused[0]
        raise MappingRefusedError(
            f"{len(refused)} rows are refused; the first is {first.place}: {first.reason}"
        )
    return [row for row in rows if isinstance(row, Row)]


def _progress_of(run_id: str, limits: Limits | None) -> Generator[Progress, None, None]:
    """Work on a run in this process, and report its progress."""
    for step in StripeAccount.work(run_id, limits=limits):
        yield replace(StripeAccount.progress(run_id), findings=step.page.findings)
    yield StripeAccount.progress(run_id)
