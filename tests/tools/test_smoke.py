"""Which stacks ``make smoke`` refuses to check."""

from __future__ import annotations

import pytest

from tools.smoke import refusal

CLOSED = "the stack is closed for maintenance"
LIVE = "the stack is in live mode: pass --live to create customers there"


@pytest.mark.parametrize(
    ("mode", "closed", "is_live_allowed", "reason"),
    [
        ("test", "false", False, None),
        ("test", "true", True, CLOSED),
        ("live", "false", False, LIVE),
        ("live", "false", True, None),
    ],
)
def test_closed_and_live_stacks_are_refused(
    mode: str, closed: str, is_live_allowed: bool, reason: str | None
) -> None:
    parameters = {"StripeMode": mode, "Closed": closed}
    assert refusal(parameters, is_live_allowed=is_live_allowed) == reason
