from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools import stripe_mock


@pytest.fixture(scope="session")
def stripe_mock_url() -> Iterator[str]:
    """Stripe's own stripe-mock: refuses whatever Stripe's OpenAPI description does not have."""
    with stripe_mock.serve() as url:
        yield url
