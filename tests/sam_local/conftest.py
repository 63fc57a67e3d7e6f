"""The functions in Lambda's own container, with the local cloud that `make serve` runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.running import RunningCloud
from tests.served import Terminal, served, terminal


@pytest.fixture(scope="session")
def opened() -> Iterator[Terminal]:
    with terminal() as opened:
        yield opened


@pytest.fixture(scope="session")
def cloud(opened: Terminal) -> Iterator[RunningCloud]:
    """A cloud whose stream invokes nothing, so that only the container applies events."""
    with served(opened) as cloud:
        functions = cloud.client("lambda")
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        yield cloud
