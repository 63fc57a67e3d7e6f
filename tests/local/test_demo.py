"""The demo can describe every record of the table."""

from __future__ import annotations

import stripe_integrations.actions.stripe_account  # noqa: F401 - defines all records
from local.demo import SUMMARIES
from stripe_integrations.models import KINDS
from stripe_integrations.models.table import Record


class TestSummaries:
    def test_cover_every_record(self) -> None:
        records = {record.__name__ for record in Record.__subclasses__()} - {"Child"}
        assert SUMMARIES.keys() == records | {kind.__name__ for kind in KINDS}
