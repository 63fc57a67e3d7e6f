"""Clients of AWS services, which all threads of a process share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from stripe_integrations.adapters import aws


def test_threads_make_one_client_and_never_two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2)
    made = []

    class Session:
        def create_client(self, service: str, **_: Any) -> object:
            with pytest.raises(BrokenBarrierError):
                both.wait(0.2)  # another thread makes one too
            made.append(service)
            return object()

    monkeypatch.setattr(aws, "_session", Session)
    monkeypatch.setattr(aws, "_clients", {})
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(aws.client, ["ssm", "ssm"])
    assert first is second
    assert made == ["ssm"]
