"""Fixtures that every test can ask for."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.context import use
from stripe_integrations.models import Customer
from stripe_integrations.observability import logger
from tests.engines import (
    aws,
    deselect_tests_without_database,
    dynamodb,
    pytest_addoption,
    pytest_configure,
    pytest_ignore_collect,
    table_name,
)
from tests.world import EMAIL, USER, World

__all__ = [
    "aws",
    "dynamodb",
    "pytest_addoption",
    "pytest_configure",
    "pytest_ignore_collect",
    "table_name",
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select tests by the database, and measure no coverage of exhaustive tests.

    Coverage makes these slow, and other tests reach the same lines.
    """
    deselect_tests_without_database(config, items)
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker("no_cover")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the functions log."""
    stream = io.StringIO()
    handler = logger.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    usual = handler.setStream(stream)
    yield stream
    handler.setStream(usual)


@pytest.fixture
def world(table_name: str) -> Iterator[World]:
    """The product on an empty table, with its own Stripe double and clock."""
    world = World(table_name)
    with use(world.context):
        yield world
    assert world.schema_errors == []


@pytest.fixture
def customer(world: World) -> Customer:
    """The customer of the first user, as `create` returned it."""
    return StripeCustomer.create(USER, EMAIL)
