"""The demo can describe every record of the table."""

from __future__ import annotations

from local.demo import SUMMARIES
from stripe_integrations.models import KINDS


class TestSummaries:
    def test_cover_every_record(self) -> None:
        records = {"CustomerClaim", "Customer", "Event", "Pointer", "SweepCursor", "Deployment"}
        assert SUMMARIES.keys() == records | {kind.__name__ for kind in KINDS}
