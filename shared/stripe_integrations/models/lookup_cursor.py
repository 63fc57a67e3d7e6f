"""Until when the customers of waiting events have been looked up for the first time."""

from __future__ import annotations

from typing import Self

from pynamodb.attributes import NumberAttribute
from pynamodb.exceptions import PutError

from stripe_integrations.models.table import Record, unavailable

_PK, _SK = "SWEEP", "LOOKUP"


class LookupCursor(Record, discriminator="LookupCursor"):
    """All events received before this time, in Unix seconds, were looked up once."""

    looked_up_until = NumberAttribute()

    @classmethod
    def read(cls) -> Self:
        """Read the stored cursor; without one, no event was looked up."""
        return cls.read_one(_PK, _SK) or cls(_PK, _SK, looked_up_until=0)

    def advance(self, moment: int) -> None:
        """Note that all events received before a time were looked up.

        A concurrent run may write an earlier time: what it covers is looked up again.
        """
        self.looked_up_until = moment
        try:
            self.save()
        except PutError as error:
            raise unavailable(error) from error
