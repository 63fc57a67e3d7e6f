"""Fixtures of the tests of the event actions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stripe_integrations.actions.events import custom_handlers


@pytest.fixture(autouse=True)
def forget_calls() -> Iterator[None]:
    """Let no test see the calls of the custom handler in another."""
    yield
    custom_handlers.called.clear()
    custom_handlers.seen.clear()
    custom_handlers.raising.clear()
    custom_handlers.meanwhile.clear()
