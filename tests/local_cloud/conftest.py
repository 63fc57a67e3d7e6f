"""One deployed local cloud for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import Cloud, built_functions, local_cloud
from tests.local_cloud.issuer import Issuer, served


@pytest.fixture(scope="session")
def functions() -> Iterator[Path]:
    """The built functions, which all clouds without custom handlers share."""
    with built_functions() as functions:
        yield functions


@pytest.fixture(scope="session")
def cloud(functions: Path) -> Iterator[Cloud]:
    # Tests call the schedule's function themselves: one moves Stripe's clock.
    with local_cloud(parameters={"ReconcileEveryMinutes": "60"}, functions=functions) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    documents: dict[str, Any] = {}
    with served(documents) as url:
        issuer = Issuer(url)
        documents |= issuer.documents()
        yield issuer


@pytest.fixture(autouse=True)
def no_faults(cloud: Cloud) -> Iterator[None]:
    yield
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    with cloud.stripe.double.use() as stripe:
        stripe.faults.clear()
