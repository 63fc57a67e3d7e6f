"""One deployed local cloud for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.cloud import Cloud, local_cloud


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    with local_cloud() as cloud:
        yield cloud


@pytest.fixture(autouse=True)
def no_faults(cloud: Cloud) -> Iterator[None]:
    yield
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    with cloud.stripe.double.use() as stripe:
        stripe.faults.clear()
