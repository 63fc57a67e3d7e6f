from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools import localstripe


@pytest.fixture(scope="session")
def localstripe_url() -> Iterator[str]:
    """A Stripe of other authors."""
    with localstripe.serve() as url:
        yield url
