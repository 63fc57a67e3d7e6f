"""What every engine of the slower tests needs: a folder, a port, a start and a stop.

An engine is a program that we did not write (AWS's DynamoDB Local, Stripe's stripe-mock, …). It
is fetched once by the ordinary client of its registry, cached under `.tools/`, and restarted for
every test run.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".tools"

# What go, mvn, pip and uv print if the registry is unreachable. A registry that responds with an
# error, or with a file other than the pinned one, is a failure and must not count as unreachable.
UNREACHABLE = re.compile(
    r"dial tcp|proxyconnect|no such host|i/o timeout|TLS handshake timeout"
    r"|Could not transfer artifact(?!.*(?:status: 4\d\d|[Cc]hecksum))"
    r"|UnknownHostException|Connection (?:refused|reset|timed out)|Network is unreachable"
    r"|NewConnectionError|Max retries exceeded|Temporary failure in name resolution"
    r"|error sending request|dns error|operation timed out|Client\.Timeout exceeded",
)


class NotRunError(Exception):
    """The engine is unavailable on this machine, which is no failure of the product."""


class EngineError(Exception):
    """The engine could not be installed or started."""


def require(program: str, why: str) -> str:
    """Return the path of a program; raise NotRunError if it is not installed."""
    found = shutil.which(program)
    if found is None:
        raise NotRunError(f"{program} is not installed ({why})")
    return found


def fetch(command: Sequence[str], *, registry: str, env: Mapping[str, str] | None = None) -> None:
    """Run a registry's client; raise NotRunError if the registry is unreachable."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    if UNREACHABLE.search(done.stdout):
        raise NotRunError(f"{registry} can't be reached")
    raise EngineError(f"{' '.join(command[:3])} … failed:\n{done.stdout[-4000:]}")


@contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder which becomes `target` only if the block succeeds.

    An interrupted fetch must not leave an incomplete engine behind that the next run would use.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield building
        if not target.exists():
            building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port on which no program listens."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def listens(host: str, port: int) -> bool:
    """Return whether a program listens on a port."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(
    command: Sequence[str],
    *,
    name: str,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Iterator[None]:
    """Run a server within the block.

    Parameters
    ----------
    command : sequence of str
    name : str
        Its log is `.tools/log/<name>-<something>.log`, left there if the block fails.
    ready : callable
        Called until it returns true.
    env : mapping, optional
        Added to the environment.
    timeout : float
        Seconds to wait for `ready`.

    Raises
    ------
    EngineError
        It exited or was not ready in time; with the end of its log.
    """
    logs = CACHE / "log"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        prefix=f"{name}-", suffix=".log", dir=logs, delete=False
    ) as out:
        log = Path(out.name)
        process = subprocess.Popen(
            command,
            cwd=logs,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + timeout
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"{name} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        yield
        log.unlink()
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
