"""Fixtures of the tests of the event actions."""

from __future__ import annotations

import pytest

from tests.stripe_integrations.actions.events import custom_handlers


@pytest.fixture(autouse=True)
def forget_calls() -> None:
    """Let no test see the calls of the custom handler in another."""
    custom_handlers.called.clear()
    custom_handlers.seen.clear()
    custom_handlers.raising.clear()
    custom_handlers.meanwhile.clear()
