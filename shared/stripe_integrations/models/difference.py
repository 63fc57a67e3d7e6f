"""What a verification finds: suspicions, which are checked later, and the differences they become.

Both are items of the run, and expire. They contain ids and names of fields, and no value.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum

from pynamodb.attributes import TTLAttribute
from pynamodb.exceptions import PutError

from stripe_integrations.context import current
from stripe_integrations.models.fields import Choice, Integer, Text, required
from stripe_integrations.models.keys import run_key
from stripe_integrations.models.table import Record, unavailable
from stripe_integrations.models.window import WalkedList

RECHECK_SECONDS = 900
"""How long a difference must last: by then the events of a change have been applied."""
_RETENTION = timedelta(days=30)


class DifferenceKind(StrEnum):
    """How the table differs from Stripe."""

    MISSING = "missing"
    """Stripe has it, and it should be stored."""
    EXTRA = "extra"
    """A customer that is active here, and that Stripe has deleted, or does not know."""
    STALE = "stale"
    """Fields of the stored state differ."""
    DUPLICATE = "duplicate"
    """A customer that is not stored, of a user who has another one."""
    ORPHAN = "orphan"
    """Claim, record and pointer of a customer don't belong together."""
    UNDECIDED = "undecided"
    """It differs, but its events were not applied, or it changed, at every check."""


class Suspicion(Record, discriminator="Suspicion"):
    """A difference that was seen, and counts once it is seen again.

    `record_pk` is the partition of the record that the index has, where no pointer may lead to it.
    `record_version` is the version of the record that differed; None where that is unknown.
    `observed_at` and `due_at` are in Unix seconds.
    """

    stripe_id = required(Text())
    customer_id = required(Text())
    record_pk = Text()
    kind = required(Choice(DifferenceKind))
    reason = Text()
    """The names of the fields that differ, or what does not belong together."""
    record_version = Integer()
    observed_at = required(Integer())
    due_at = required(Integer())
    checks = required(Integer())
    expires_at = TTLAttribute()

    @classmethod
    def new(cls, run_id: str, window_id: str, stripe_id: str, customer_id: str) -> Suspicion:
        """Make a suspicion of a window's object, not stored yet: `observe` completes it."""
        return cls(
            run_key(run_id),
            f"{_suspicions_of(window_id)}{stripe_id}",
            stripe_id=stripe_id,
            customer_id=customer_id,
            checks=0,
            expires_at=current().now() + _RETENTION,
        )

    @classmethod
    def of_window(cls, run_id: str, window_id: str) -> Iterator[Suspicion]:
        """The suspicions of a window, by their ids; strongly consistent."""
        return cls.with_prefix(run_key(run_id), _suspicions_of(window_id))

    def observe(self, kind: DifferenceKind, reason: str, record_version: int | None) -> None:
        """Note a difference that is seen now, and is to be seen again."""
        self.kind, self.reason, self.record_version = kind, reason, record_version
        self.observed_at = int(current().clock())
        self.due_at = self.observed_at + RECHECK_SECONDS

    def postpone(self) -> None:
        """Let it be checked later."""
        self.due_at = int(current().clock()) + RECHECK_SECONDS

    def store(self) -> None:
        """Store it, in place of an earlier one of the same object."""
        try:
            self.save()
        except PutError as error:
            raise unavailable(error) from error


class Difference(Record, discriminator="Difference"):
    """A difference between Stripe and the table, as a run's report has it."""

    stripe_id = required(Text())
    customer_id = required(Text())
    record_pk = Text()
    kind = required(Choice(DifferenceKind))
    reason = required(Text())
    expires_at = TTLAttribute()

    @classmethod
    def of(cls, run_id: str, walked_list: WalkedList, suspicion: Suspicion) -> Difference:
        """Make a difference of a suspicion that has been confirmed, not stored yet."""
        return cls(
            run_key(run_id),
            f"{_differences_in(walked_list)}{suspicion.stripe_id}",
            stripe_id=suspicion.stripe_id,
            customer_id=suspicion.customer_id,
            record_pk=suspicion.record_pk,
            kind=suspicion.kind,
            reason=suspicion.reason or "",
            expires_at=current().now() + _RETENTION,
        )

    @classmethod
    def in_list(
        cls, run_id: str, walked_list: WalkedList, after: str | None = None
    ) -> Iterator[Difference]:
        """The differences of a run in one list, by their Stripe ids; strongly consistent.

        Parameters
        ----------
        run_id, walked_list : str
            The run, and the list.
        after : str, optional
            The Stripe id after which they begin.
        """
        prefix = _differences_in(walked_list)
        return cls.with_prefix(run_key(run_id), prefix, f"{prefix}{after}" if after else None)


def _suspicions_of(window_id: str) -> str:
    return f"SUSPICION#{window_id}#"


def _differences_in(walked_list: WalkedList) -> str:
    return f"DIFFERENCE#{walked_list}#"
