"""The demo can describe every record of the table."""

from __future__ import annotations

from local.demo import SUMMARIES
from stripe_integrations.models import KINDS, Customer, CustomerClaim, Event, Pointer, SweepCursor
from stripe_integrations.models.table import Record


class TestSummaries:
    def test_cover_every_record(self) -> None:
        records: tuple[type[Record], ...] = (
            CustomerClaim,
            Customer,
            *KINDS,
            Event,
            Pointer,
            SweepCursor,
        )
        assert SUMMARIES.keys() == {record.__name__ for record in records}
