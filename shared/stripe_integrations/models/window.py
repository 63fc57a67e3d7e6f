"""Windows: the parts of a run, each a range of Stripe's `created` that one worker walks at a time.

The windows of a list cover everything, without a gap: the first is open below, and a window is
divided in one transaction. A window's cursor moves only after a page was written, under the
window's version. So a killed worker loses nothing: the next one reads its last page again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from string import hexdigits

from pynamodb.attributes import (
    JSONAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
    VersionAttribute,
)
from pynamodb.exceptions import PutError
from pynamodb.transactions import TransactWrite

from stripe_integrations.context import current
from stripe_integrations.errors import StaleRecordError
from stripe_integrations.models.fields import Choice, Flag, Integer, Text, required
from stripe_integrations.models.keys import run_key
from stripe_integrations.models.table import (
    CONDITION_FAILED,
    Record,
    error_code,
    stale_if_changed,
    transact,
    unavailable,
)

_LOST = "another worker has the window"
_PREFIX = "WINDOW#"
_LEASE_SECONDS = 120
"""How long a window belongs to a worker after its last page."""
_FIRST_CREATED = 1_293_840_000
"""2011: no customer is older. Only the division of a window that is open below assumes that."""
_MIN_SECONDS = 60
"""A shorter window is not divided."""


class WalkedList(StrEnum):
    """What a run reads, one after the other: Stripe's lists, from their newest object to their
    oldest, and before and after them the rows of the mapping, if there is one.
    """

    MAPPING = "mapping"
    CUSTOMERS = "customers"
    SUBSCRIPTIONS = "subscriptions"
    """Each needs the record of its customer."""
    CANDIDATES = "candidates"
    """Unassigned customers whose metadata names a user, by a digest of the user's id."""
    UNLISTED = "unlisted"
    """The rows of the mapping again: those whose customer no list had are looked up."""

    @property
    def has_rows(self) -> bool:
        """Whether it is read from the mapping, and not from Stripe."""
        return self in (WalkedList.MAPPING, WalkedList.UNLISTED)

    @property
    def is_divisible(self) -> bool:
        """Whether its windows can be divided: those of Stripe's lists can."""
        return self in (WalkedList.CUSTOMERS, WalkedList.SUBSCRIPTIONS)


class Window(Record, discriminator="Window"):
    """A half-open range of `created` in one list, with the progress in it; Unix seconds.

    `created_from` is None where the window is open below. `cursor_created` and `cursor_id` are of
    the last object that was written. `counts` has what became of the objects, by outcome.

    The mapping has one window, whose cursor is `offset`: the byte at which the next row begins.
    Candidates have a window for each `digest_digit`, with which the digests of their users begin.
    """

    walked_list = required(Choice(WalkedList))
    created_from = Integer()
    created_before = required(Integer())
    cursor_created = Integer()
    cursor_id = Text()
    offset = Integer()
    digest_digit = Text()
    cursor_second_ids = JSONAttribute(null=True)
    """Only of a verification: the ids of the cursor's second so far, which may have more."""
    is_read = Flag()
    """Whether its last page was read; a verification checks its suspicions after that."""
    due_at = Integer()
    """When the next of its suspicions is due, in Unix seconds."""
    is_done = required(Flag())
    worker = UnicodeAttribute(null=True)
    leased_until = NumberAttribute(null=True)
    counts = JSONAttribute()
    expires_at = TTLAttribute(null=True)
    version = VersionAttribute()

    @classmethod
    def new(
        cls,
        run_id: str,
        walked_list: WalkedList,
        created_from: int | None,
        created_before: int,
        expires_at: datetime | None = None,
    ) -> Window:
        """Make a window that is not stored yet."""
        return cls(
            run_key(run_id),
            f"{_PREFIX}{walked_list}#{created_before:011d}",
            walked_list=walked_list,
            created_from=created_from,
            created_before=created_before,
            is_done=False,
            counts={},
            expires_at=expires_at,
        )

    @classmethod
    def first_of(
        cls, run_id: str, walked_list: WalkedList, now: int, expires_at: datetime | None
    ) -> list[Window]:
        """The windows with which the walk of a list begins, not stored yet."""
        if walked_list is not WalkedList.CANDIDATES:
            return [cls.new(run_id, walked_list, None, now, expires_at)]
        windows = []
        for digit in hexdigits.lower()[:16]:
            window = cls.new(run_id, walked_list, None, now, expires_at)
            window.sk, window.digest_digit = f"{_PREFIX}{walked_list}#{digit}", digit
            windows.append(window)
        return windows

    @classmethod
    def all_of(cls, run_id: str) -> list[Window]:
        """The windows of a run, strongly consistent."""
        return list(cls.with_prefix(run_key(run_id), _PREFIX))

    @property
    def id(self) -> str:
        """What identifies it in its run."""
        return self.sk.removeprefix(_PREFIX).replace("#", "-")

    @property
    def page(self) -> str:
        """What identifies the page after the cursor in the window."""
        parts = (self.cursor_created, self.cursor_id, self.offset)
        return "-".join(str(part) for part in parts if part) or "0"

    @property
    def created_until(self) -> int:
        """The upper bound, excluded, of what is left where the cursor's object is gone."""
        return self.created_before if self.cursor_created is None else self.cursor_created + 1

    @property
    def created_since(self) -> int:
        """The lower bound, included, in Unix seconds; without one, a time before all objects."""
        return _FIRST_CREATED if self.created_from is None else self.created_from

    @property
    def is_leased(self) -> bool:
        """Whether a worker holds a lease that has not expired."""
        return not self.is_done and (self.leased_until or 0) > current().clock()

    def is_free_for(self, worker: str) -> bool:
        """Return whether a worker may lease it: no other has it, and something is to be done."""
        now = current().clock()
        is_leased = (self.leased_until or 0) > now
        is_due = (self.due_at or 0) <= now
        return not self.is_done and is_due and (not is_leased or self.worker == worker)

    def lease(self, worker: str) -> None:
        """Lease it, or lease it for longer.

        Raises
        ------
        StaleRecordError
            Another worker has leased it since it was read.
        """
        self.worker = worker
        self.leased_until = int(current().clock()) + _LEASE_SECONDS
        self._save()

    def release(self) -> None:
        """Let any worker lease it at once.

        Raises
        ------
        StaleRecordError
            Another worker has leased it in the meantime.
        """
        self.leased_until = 0
        self._save()

    def advance(
        self,
        cursor: tuple[int, str | None] | int | None,
        counts: Mapping[str, int],
        cursor_second_ids: Iterable[str] = (),
        due_at: int | None = None,
    ) -> None:
        """Note that a page was written, and lease the window for longer.

        Parameters
        ----------
        cursor : tuple, int or None
            Stripe's `created` and id of the last object of the page; of rows, the byte at which the
            next one begins; None at the end of the window. Without an id, the whole second is to be
            read.
        counts : mapping
            How many objects of the page had each outcome.
        cursor_second_ids : iterable of str
            See the class.
        due_at : int, optional
            At the end of the window: when its suspicions are due. Without any, it is done.

        Raises
        ------
        StaleRecordError
            Another worker has leased it in the meantime, and reads the page again.
        """
        self.counts = dict(Counter(self.counts) + Counter(counts))
        if cursor is None:
            self.is_read = True
            self.wait_until(due_at)
            return
        if isinstance(cursor, int):
            self.offset = cursor
        else:
            self.cursor_created, self.cursor_id = cursor
        self.cursor_second_ids = list(cursor_second_ids) or None
        self.leased_until = int(current().clock()) + _LEASE_SECONDS
        self._save()

    def wait_until(self, due_at: int | None) -> None:
        """Note when its suspicions are due, and let any worker lease it then.

        Parameters
        ----------
        due_at : int or None
            Unix seconds; None where it has no suspicion, and is done.

        Raises
        ------
        StaleRecordError
            Another worker has leased it in the meantime.
        """
        self.due_at, self.is_done = due_at, due_at is None
        self.leased_until = None
        self._save()

    def record_checks(
        self, changes: Mapping[str, int], stored: Iterable[Record], deleted: Iterable[Record]
    ) -> None:
        """Write the outcome of checks, in one transaction, and lease the window for longer.

        Parameters
        ----------
        changes : mapping
            By how many the count of each outcome changes.
        stored, deleted : iterable of Record
            Suspicions and differences, 99 at most.

        Raises
        ------
        StaleRecordError
            Another worker has leased it in the meantime.
        """
        counts = Counter(self.counts)
        counts.update(changes)
        self.counts = dict(+counts)
        self.leased_until = int(current().clock()) + _LEASE_SECONDS

        def compose(transaction: TransactWrite) -> None:
            transaction.save(self)
            for record in stored:
                transaction.save(record)
            for record in deleted:
                transaction.delete(record)

        with stale_if_changed(_LOST):
            transact(compose)

    def forget_cursor_id(self) -> None:
        """Read the cursor's second again from its newest object, since the cursor's is gone.

        Raises
        ------
        StaleRecordError
            Another worker has leased it in the meantime.
        """
        self.cursor_id = None
        self._save()

    def divide(self, run_id: str, parts: int) -> bool:
        """Divide what is left, keep the newest part, and return whether it was divided.

        The parts are of equal length, and at most `parts`. The others are left to other workers.
        One transaction shortens the window and adds the rest, so that the windows have no gap.

        Raises
        ------
        StaleRecordError
            Another worker has leased it in the meantime.
        """
        if not WalkedList(self.walked_list).is_divisible:
            return False
        seconds = self.created_until - self.created_since
        parts = min(parts, seconds // _MIN_SECONDS)
        if parts < 2:
            return False
        bounds = [self.created_since + seconds * number // parts for number in range(1, parts)]
        lower = [self.created_from, *bounds[:-1]]
        older = [
            Window.new(run_id, self.walked_list, first, before, self.expires_at)
            for first, before in zip(lower, bounds, strict=True)
        ]
        self.created_from = bounds[-1]

        def compose(transaction: TransactWrite) -> None:
            for window in (self, *older):
                transaction.save(window)

        with stale_if_changed(_LOST):
            transact(compose)
        return True

    def _save(self) -> None:
        try:
            self.save()
        except PutError as error:
            if error_code(error) == CONDITION_FAILED:
                raise StaleRecordError(_LOST) from error
            raise unavailable(error) from error
