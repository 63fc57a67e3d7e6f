"""The processes of the functions on a local cloud."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil


def end_workers(folder: Path, function: str) -> None:
    """End the processes of a function, as Lambda does every now and then.

    Parameters
    ----------
    folder : Path
        The folder of the cloud.
    function : str
        The deployed name of the function.
    """
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a worker of an earlier version has ended
            if any(f"{folder}/ministack-lambda-{function}-" in a for a in process.cmdline()):
                process.kill()
