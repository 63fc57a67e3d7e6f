"""localstripe, from PyPI: a stateful Stripe that we did not write.

It is GPL-3.0 and only ever run beside the product, in an environment of its own.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import engine

REQUIREMENTS = engine.ROOT / "requirements" / "localstripe.txt"
SERVER = engine.ROOT / "tools" / "localstripe_server.py"


def install() -> Path:
    """Fetch it where it isn't there yet; the Python of its environment."""
    lock = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = engine.CACHE / f"localstripe-{lock}"
    python = home / "bin" / "python"
    if not home.exists():
        uv = [sys.executable, "-m", "uv", "--no-config"]
        with engine.complete_folder(home) as building:
            engine.fetch(
                [*uv, "venv", "--quiet", "--clear", f"--python={sys.executable}", str(building)],
                registry="PyPI",
            )
            engine.fetch(
                [
                    *uv,
                    "pip",
                    "install",
                    "--quiet",
                    "--require-hashes",
                    f"--python={building / 'bin' / 'python'}",
                    f"--requirement={REQUIREMENTS}",
                ],
                registry="PyPI",
            )
    return python


@contextmanager
def serve() -> Iterator[str]:
    """Run it, empty, for the length of the block; yields the base address of its API."""
    python = install()
    port = engine.free_port()
    with engine.running(
        [str(python), "-P", str(SERVER), str(port)],
        name="localstripe",
        ready=lambda: engine.listens("127.0.0.1", port),
    ):
        yield f"http://127.0.0.1:{port}"
