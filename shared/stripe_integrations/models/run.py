"""Runs: walks through the whole Stripe account, one at a time for each table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Any

from pynamodb.attributes import TTLAttribute, UnicodeAttribute, VersionAttribute
from pynamodb.exceptions import PutError
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import RunInProgressError, RunNotFoundError, StaleRecordError
from stripe_integrations.models.fields import Choice, Flag, Integer, Moment, Text, required
from stripe_integrations.models.keys import run_key
from stripe_integrations.models.table import (
    CONDITION_FAILED,
    ConditionFailedError,
    Record,
    error_code,
    stale_if_changed,
    transact,
    unavailable,
)
from stripe_integrations.models.window import WalkedList, Window

_SK = "RUN"
_RETENTION = timedelta(days=30)


class RunKind(StrEnum):
    """What a run does with the account's customers and subscriptions."""

    BACKFILL = "backfill"
    """Store what is missing, and update what is older."""
    VERIFY = "verify"
    """Compare, and write nothing but its report."""
    REPAIR = "repair"
    """Fetch again what the report of a verification names."""
    UNDO = "undo"
    """Release the customers that a backfill gave to users."""
    REBUILD = "rebuild"
    """Store the customers of this deployment that a restored table lacks."""
    METADATA = "metadata"
    """Write our metadata to the customers on Stripe that backfills gave to users."""

    @property
    def needs_earlier_run(self) -> bool:
        """Whether it repairs or undoes an earlier run: `of_run` is required."""
        return self in (RunKind.REPAIR, RunKind.UNDO)

    @property
    def expires(self) -> bool:
        """Whether its items are deleted after some time; a backfill may be undone at any time."""
        return self not in (RunKind.BACKFILL, RunKind.UNDO)


class RunState(StrEnum):
    """The state of a run."""

    RUNNING = "running"
    STOPPED = "stopped"
    """By an operator: it can be resumed."""
    FINISHED = "finished"


class PaymentMethodPolicy(StrEnum):
    """Whose payment methods a backfill lists: that takes a call for each customer."""

    ALL = "all"
    WITH_DEFAULT_OR_SUBSCRIPTION = "with-default-or-subscription"
    NONE = "none"


class Run(Record, discriminator="Run"):
    """One walk through the account.

    `created_before` is in Unix seconds: objects that were created since are reported by events.
    """

    run_id = required(Text())
    kind = required(Choice(RunKind))
    state = required(Choice(RunState))
    created_before = required(Integer())
    payment_methods = required(Choice(PaymentMethodPolicy))
    started_at = required(Moment())
    ended_at = Moment()
    mapping = Text()
    """The S3 key of the mapping; None without one, or where the caller stages it."""
    by_metadata = Flag()
    """Whether users get the unassigned customers whose metadata names them."""
    allows_refused = Flag()
    """Whether the run continues after invalid rows of the mapping."""
    of_run = Text()
    """The verification whose report a repair reads, or the run that is undone."""
    split_requested = Flag()
    """Whether a worker has found no window: another one splits its own."""
    expires_at = TTLAttribute(null=True)
    version = VersionAttribute()

    @classmethod
    def start(
        cls,
        kind: RunKind,
        payment_methods: PaymentMethodPolicy,
        lists: Iterable[WalkedList],
        run_id: str | None = None,
        **options: Any,
    ) -> Run:
        """Store a run with its first windows, unless another run is in progress.

        Where there is a run with this id, it is returned.

        Parameters
        ----------
        kind : RunKind
            What it does.
        payment_methods : PaymentMethodPolicy
            Whose payment methods are listed.
        lists : iterable of WalkedList
            What it reads.
        run_id : str, optional
            Its id; by default, a new one.
        **options
            Further fields.

        Raises
        ------
        RunInProgressError
            Another run is in progress.
        """
        now = int(current().clock())
        if run_id and (started := cls._find(run_id)):
            return started
        run_id = run_id or f"{now}-{current().new_token()[:8]}"
        run = cls(
            run_key(run_id),
            _SK,
            run_id=run_id,
            kind=kind,
            state=RunState.RUNNING,
            created_before=now,
            payment_methods=payment_methods,
            started_at=current().now(),
            expires_at=current().now() + _RETENTION if kind.expires else None,
            **options,
        )
        windows = [
            window
            for walked_list in lists
            for window in Window.first_of(run_id, walked_list, now, run.expires_at)
        ]
        lock = RunLock.read()
        latest = cls._find(lock.run_id) if lock else None
        if latest and latest.state is RunState.RUNNING:
            raise RunInProgressError(f"run {latest.run_id} is in progress")

        def compose(transaction: TransactWrite) -> None:
            RunLock.take_in(transaction, run_id, lock)
            transaction.save(run)
            for window in windows:
                transaction.save(window)

        try:
            transact(compose)
        except ConditionFailedError as error:
            if started := cls._find(run_id):
                return started
            raise RunInProgressError("another run has been started") from error
        return run

    @classmethod
    def read(cls, run_id: str) -> Run:
        """Read a run, strongly consistent.

        Raises
        ------
        RunNotFoundError
            There is none with this id.
        """
        run = cls._find(run_id)
        if run is None:
            raise RunNotFoundError("there is no such run")
        return run

    @classmethod
    def _find(cls, run_id: str) -> Run | None:
        """The run; None where it has expired, since some of its windows may be deleted already."""
        run = cls.read_one(run_key(run_id), _SK)
        has_expired = run and run.expires_at and run.expires_at <= current().now()
        return None if has_expired else run

    @classmethod
    def latest(cls) -> Run | None:
        """The run that was started last."""
        lock = RunLock.read()
        return cls._find(lock.run_id) if lock else None

    def stop(self) -> None:
        """Let its workers stop after the page that they are reading."""
        self._set_state(RunState.STOPPED)

    def resume(self) -> None:
        """Let workers continue it.

        Raises
        ------
        RunInProgressError
            Another run has been started since.
        StaleRecordError
            It was changed since it was read, or another run is being started.
        """
        lock = RunLock.read()
        if lock is None or lock.run_id != self.run_id:
            raise RunInProgressError("another run has been started since")
        if self.state is RunState.FINISHED:
            return
        self.state = RunState.RUNNING

        def compose(transaction: TransactWrite) -> None:
            RunLock.take_in(transaction, self.run_id, lock)
            transaction.save(self)

        with stale_if_changed("the run was changed since it was read"):
            transact(compose)

    def finish(self) -> None:
        """Note that all of its windows were walked."""
        self.ended_at = current().now()
        self._set_state(RunState.FINISHED)

    def request_split(self, *, is_requested: bool) -> None:
        """Note whether a worker has found no window to walk."""
        if bool(self.split_requested) is not is_requested:
            self.split_requested = is_requested
            self._save()

    def _set_state(self, state: RunState) -> None:
        if self.state is not RunState.FINISHED:
            self.state = state
            self._save()

    def _save(self) -> None:
        try:
            self.save()
        except PutError as error:
            if error_code(error) == CONDITION_FAILED:
                raise StaleRecordError("the run was changed since it was read") from error
            raise unavailable(error) from error


class RunLock(Record, discriminator="RunLock"):
    """The run that was started last: there is one at a time.

    Each start and each resumption writes it, on condition that no other one has since it was read.
    """

    run_id = UnicodeAttribute()
    version = VersionAttribute()

    _PK, _SK = "RUN", "CURRENT"

    @classmethod
    def read(cls) -> RunLock | None:
        """The stored lock, strongly consistent."""
        return cls.read_one(cls._PK, cls._SK)

    @classmethod
    def take_in(cls, transaction: TransactWrite, run_id: str, held: RunLock | None) -> None:
        """Add the write of the lock, on condition that it is the one that was read."""
        lock = held or cls(cls._PK, cls._SK)
        lock.run_id = run_id
        transaction.save(lock)
