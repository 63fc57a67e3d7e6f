"""Work that is repeated during a block."""

from __future__ import annotations

import threading

from local.background import repeated


def test_is_repeated_until_the_block_ends() -> None:
    calls: list[str] = []
    repeated_twice = threading.Event()

    def call() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 2:
            repeated_twice.set()

    with repeated(call, 0.001):
        assert repeated_twice.wait(10)
    made = len(calls)
    assert threading.current_thread().name not in calls
    assert not any(thread.name == calls[0] for thread in threading.enumerate())
    assert len(calls) == made
