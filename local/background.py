"""Work that is repeated while something else goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(call: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call a function again and again during the block, in another thread.

    Parameters
    ----------
    call : callable
        What is called; an error that it raises ends the repetition.
    seconds : float
        The pause before each call.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
