"""How far Stripe's list of events has been swept for those that never arrived."""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import NumberAttribute, UnicodeAttribute, VersionAttribute
from pynamodb.exceptions import PutError

from stripe_integrations.context import current
from stripe_integrations.errors import StaleRecordError
from stripe_integrations.models.table import CONDITION_FAILED, Record, error_code, unavailable

_PK, _SK = "SWEEP", "CURSOR"


class Sweep(Record, discriminator="Sweep"):
    """The cursor: where the last whole sweep began, and how far the one under way has come.

    Stripe lists the newest event first, so a sweep has reached its goal only when it has gone
    through the whole list. `after` is the last event that it has seen on its way.
    """

    swept_until = NumberAttribute()
    began = NumberAttribute(null=True)
    after = UnicodeAttribute(null=True)
    version = VersionAttribute()

    @classmethod
    def read(cls) -> Sweep:
        """The cursor as it stands; where there is none yet, sweeping begins now."""
        return cls.read_one(_PK, _SK) or cls(_PK, _SK, swept_until=int(current().clock()))

    def begin(self) -> None:
        """Begin a sweep, unless one is under way, which then goes on."""
        if self.began is None:
            self._move(began=int(current().clock()))

    def reach(self, stripe_id: str) -> None:
        """Note that everything down to this event was seen."""
        self._move(after=stripe_id)

    def restart(self) -> None:
        """Begin at the top again: the event to go on from is listed no longer."""
        self._move(after=None)

    def end(self) -> None:
        """Note that everything until the begin of this sweep was seen."""
        self._move(swept_until=self.began, began=None, after=None)

    def _move(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        try:
            self.save()
        except PutError as error:
            if error_code(error) == CONDITION_FAILED:
                raise StaleRecordError("another sweep is under way") from error
            raise unavailable(error) from error
