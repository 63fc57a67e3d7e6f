"""How far Stripe's list of events has been swept for events that never arrived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pynamodb.attributes import JSONAttribute, NumberAttribute, UnicodeAttribute, VersionAttribute
from pynamodb.exceptions import PutError

from stripe_integrations.context import current
from stripe_integrations.errors import StaleRecordError
from stripe_integrations.models.table import CONDITION_FAILED, Record, error_code, unavailable

_PK, _SK = "SWEEP", "CURSOR"


class SweepCursor(Record, discriminator="SweepCursor"):
    """When the last complete sweep began, and the progress of the current one.

    Stripe takes few event types a call, so a sweep lists them in chunks, one after the other, and
    each list newest first: a sweep is complete when every list was read to its end. Times are Unix
    seconds; `after` is the last event that was read of the chunk's list.
    """

    swept_until = NumberAttribute()
    started_at = NumberAttribute(null=True)
    event_types = JSONAttribute(null=True)
    chunk = NumberAttribute(default=0)
    after = UnicodeAttribute(null=True)
    version = VersionAttribute()

    @classmethod
    def read(cls) -> SweepCursor:
        """Read the stored cursor; without one, sweeping begins now."""
        return cls.read_one(_PK, _SK) or cls(_PK, _SK, swept_until=int(current().clock()))

    @classmethod
    def is_stored(cls) -> bool:
        """Return whether a sweep has been completed."""
        return cls.read_one(_PK, _SK) is not None

    def start(self, event_types: Sequence[str]) -> None:
        """Start a sweep, unless one of these event types is in progress, which is resumed."""
        if self.started_at is None or self.event_types != list(event_types):
            now = int(current().clock())
            self._save(started_at=now, event_types=list(event_types), chunk=0, after=None)

    def advance(self, stripe_id: str) -> None:
        """Note that the chunk's list was read down to this event."""
        self._save(after=stripe_id)

    def restart_chunk(self) -> None:
        """Read the chunk's list again from its newest event, since `after` is not listed now."""
        self._save(after=None)

    def finish_chunk(self) -> None:
        """Note that the chunk's list was read to its end."""
        self._save(chunk=int(self.chunk) + 1, after=None)

    def finish(self) -> None:
        """Note that every event from before the start of this sweep was seen."""
        self._save(
            swept_until=self.started_at, started_at=None, event_types=None, chunk=0, after=None
        )

    def _save(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        try:
            self.save()
        except PutError as error:
            if error_code(error) == CONDITION_FAILED:
                raise StaleRecordError("another run is sweeping") from error
            raise unavailable(error) from error
