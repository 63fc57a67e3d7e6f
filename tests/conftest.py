"""Fixtures that every test can ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stripe_integrations.context import use
from tests.engines import (
    aws,
    pytest_addoption,
    pytest_configure,
    pytest_ignore_collect,
    table_name,
)
from tests.world import World

__all__ = [
    "aws",
    "pytest_addoption",
    "pytest_configure",
    "pytest_ignore_collect",
    "table_name",
]


@pytest.fixture
def world(table_name: str) -> Iterator[World]:
    """The product on an empty table, with a Stripe and a clock of its own."""
    world = World(table_name)
    with use(world.context):
        yield world
