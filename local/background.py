"""Work that is repeated while something else goes on."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(call: Callable[[], None], pauses: Iterable[float]) -> Iterator[None]:
    """Call a function again and again during the block, in another thread.

    Parameters
    ----------
    call : callable
        What is called; an error that it raises ends the repetition.
    pauses : iterable of float
        The seconds before each call; there are no more calls than pauses.
    """
    ended = threading.Event()

    def repeat() -> None:
        for seconds in pauses:
            if ended.wait(seconds):
                return
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
