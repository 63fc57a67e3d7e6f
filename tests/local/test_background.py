"""Work that is repeated during a block."""

from __future__ import annotations

import threading
from itertools import repeat

from local.background import repeated


def test_is_repeated_until_the_block_ends() -> None:
    calls: list[str] = []
    repeated_twice = threading.Event()

    def call() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 2:
            repeated_twice.set()

    with repeated(call, repeat(0.001)):
        assert repeated_twice.wait(10)
    made = len(calls)
    assert threading.current_thread().name not in calls
    assert not any(thread.name == calls[0] for thread in threading.enumerate())
    assert len(calls) == made


def test_ends_after_the_last_pause() -> None:
    threads: list[threading.Thread] = []
    begun = threading.Event()

    def call() -> None:
        threads.append(threading.current_thread())
        begun.set()

    with repeated(call, [0.001, 0.001]):
        assert begun.wait(10)
        threads[0].join(10)
        assert not threads[0].is_alive()
    assert len(threads) == 2
