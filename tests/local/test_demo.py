"""The demo can describe every record of the table."""

from __future__ import annotations

from local.demo import SUMMARIES
from stripe_integrations.models import KINDS, Customer, CustomerClaim, Event, Pointer, SweepCursor


class TestSummaries:
    def test_cover_every_record(self) -> None:
        records = (CustomerClaim, Customer, *KINDS, Event, Pointer, SweepCursor)
        assert SUMMARIES.keys() == {record.__name__ for record in records}
