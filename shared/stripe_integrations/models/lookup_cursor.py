"""How far the first lookups of waiting events have got."""

from __future__ import annotations

from typing import Self

from pynamodb.attributes import NumberAttribute
from pynamodb.exceptions import PutError

from stripe_integrations.models.table import Record, unavailable

_PK, _SK = "SWEEP", "LOOKUP"


class LookupCursor(Record, discriminator="LookupCursor"):
    """The time, in Unix seconds, before which all received events were looked up once."""

    looked_up_until = NumberAttribute()

    @classmethod
    def read(cls) -> Self:
        """Read the stored cursor, or return one at 0: no event was looked up."""
        return cls.read_one(_PK, _SK) or cls(_PK, _SK, looked_up_until=0)

    def advance(self, moment: int) -> None:
        """Note that all events received before a time were looked up.

        A concurrent run may write an earlier time: those events are looked up again.
        """
        self.looked_up_until = moment
        try:
            self.save()
        except PutError as error:
            raise unavailable(error) from error
