"""`StripeAccount`: the public actions on all customers of the Stripe account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from stripe_integrations.actions.account.pace import Limits
from stripe_integrations.actions.account.walk import Step, start_run, walk
from stripe_integrations.context import current
from stripe_integrations.errors import RunNotFoundError
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import PaymentMethodPolicy, Run, RunState
from stripe_integrations.models.window import Window

_WORKER = "0"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Parameters
    ----------
    run_id : str
        The run.
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
    """

    run_id: str
    state: RunState
    started_at: datetime
    ended_at: datetime | None
    results: Mapping[str, int]
    windows: int
    windows_done: int
    seconds: float

    @property
    def objects(self) -> int:
        """How many customers and subscriptions were read."""
        return sum(self.results.values())


class StripeAccount:
    """The actions on all customers of the Stripe account.

    A run walks through the account's lists of customers and subscriptions. There is one run at a
    time for each table. What a run writes is written under the same conditions as everything else:
    webhooks, syncs and updates go on beside it.

    Every method may raise `DatabaseUnavailableError`; those that call Stripe, `StripeError`.
    """

    @staticmethod
    def backfill(
        payment_methods: PaymentMethodPolicy = PaymentMethodPolicy.WITH_DEFAULT_OR_SUBSCRIPTION,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> Iterator[Progress]:
        """Store what Stripe has and the table lacks, and update what is older, in this process.

        That suits an account of some ten thousand customers. If the process ends, `resume` and
        `work` continue the run.

        Parameters
        ----------
        payment_methods : PaymentMethodPolicy
            Whose payment methods are listed, which takes a call for each customer.
        limits : Limits
            How many calls to Stripe and write units a second are used, at most.

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

        Examples
        --------
        >>> for progress in StripeAccount.backfill():  # doctest: +SKIP
        ...     print(progress.objects, dict(progress.results))
        """
        run_id = StripeAccount.start(payment_methods).run_id
        for _ in StripeAccount.work(run_id, limits=limits):
            yield StripeAccount.progress(run_id)
        yield StripeAccount.progress(run_id)

    @staticmethod
    def start(
        payment_methods: PaymentMethodPolicy = PaymentMethodPolicy.WITH_DEFAULT_OR_SUBSCRIPTION,
    ) -> Run:
        """Start a run, whose windows any number of workers then walk: see `work`.

        Raises
        ------
        RunInProgressError, SweepMissingError
            As in `backfill`.
        """
        return start_run(PaymentMethodPolicy(payment_methods))

    @staticmethod
    def work(
        run_id: str,
        worker: str = _WORKER,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> Iterator[Step]:
        """Walk windows of a run, as one of its workers, until none is left or it is stopped.

        A worker may end at any point: another one repeats at most its last page.

        Parameters
        ----------
        run_id : str
            The run.
        worker : str
            Identifies the worker among those of the run.
        limits : Limits
            What all workers of the run use together; the same for each.

        Yields
        ------
        Step
            Each page that was written.

        Raises
        ------
        RunNotFoundError
            There is no such run.
        """
        return walk(run_id, worker, limits)

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
            run.state,
            run.started_at,
            run.ended_at,
            results,
            len(windows),
            sum(window.is_done for window in windows),
            (ended - run.started_at).total_seconds(),
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
