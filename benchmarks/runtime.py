"""Runs a built function under AWS's runtime client, and measures its process.

A process of Lambda asks its Runtime API for the next invocation as soon as its INIT is over, and
again after each response; here the API is this module's. At each of these moments it notes the
processor time of the function's process, its peak memory, and what it has printed.
Follows https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from benchmarks.services import HOST
from benchmarks.stage import has_failed
from tools.template import ROOT

Json = dict[str, Any]

PYTHON = ROOT / ".tools" / "bench" / "bin" / "python"
_SECONDS = 60.0
"""For an INIT or an invocation, after which the benchmark fails."""
_CPUCLOCK_SCHED = 2
_IMPORT = re.compile(rb"^import time: +(\d+) \|[ \d]+\| +(\S+)", re.MULTILINE)


class FunctionError(Exception):
    """A function failed, or did not respond in time; the message has what it printed."""


@dataclass(frozen=True)
class Moment:
    """The state of a process when it asks for an invocation.

    Parameters
    ----------
    wall, cpu : float
        Seconds, of the machine's clock and of the process's processor time.
    memory : int
        The peak of its memory, in bytes.
    log_lines : int
        Lines that it has printed.
    imports : int
        Modules that it has imported, if that is traced.
    """

    wall: float
    cpu: float
    memory: int
    log_lines: int
    imports: int


class FunctionProcess:
    """A process of a function, from its start to its end; a context manager.

    Parameters
    ----------
    folder : Path
        The built function. The process can't write bytecode into it, as in Lambda.
    environment : mapping
        The variables of the function.
    timeout : int
        Milliseconds that an invocation has.
    traces_imports : bool
        Whether imports are counted, which makes them slower.

    Attributes
    ----------
    started, ready : Moment
        The start of the process, and the end of its INIT.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        timeout: int,
        *,
        traces_imports: bool = False,
    ) -> None:
        self._folder = folder
        self._out, self._error = TemporaryFile(), TemporaryFile()  # noqa: SIM115 - by __exit__
        self._api = _Api((HOST, 0), _ApiHandler)
        self._api.timeout_milliseconds = timeout
        self._thread = threading.Thread(target=self._api.serve_forever, args=(0.05,), daemon=True)
        self._environment = {
            "AWS_LAMBDA_RUNTIME_API": f"{HOST}:{self._api.server_address[1]}",
            "AWS_LAMBDA_FUNCTION_NAME": folder.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "LAMBDA_TASK_ROOT": str(folder),
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_PROXY": HOST,
            **({"PYTHONPROFILEIMPORTTIME": "1"} if traces_imports else {}),
            **environment,
        }
        self.started: Moment
        self.ready: Moment

    def __enter__(self) -> Self:
        """Start the process, and wait for the end of its INIT."""
        self._thread.start()
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [PYTHON, "-m", "awslambdaric", "app.handler"],
            cwd=self._folder,
            env=self._environment,
            stdout=self._out,
            stderr=self._error,
        )
        self.started = Moment(began, 0.0, 0, 0, 0)
        self.ready = self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._api.events.put(None)
        self._api.shutdown()
        self._api.server_close()
        self._thread.join()
        self._out.close()
        self._error.close()

    def invoke(self, event: Json) -> tuple[Json, Moment, Moment]:
        """Invoke the function; returns its response, and the moments before and after.

        Raises
        ------
        FunctionError
            It failed.
        """
        before = self._moment()
        self._api.events.put(json.dumps(event).encode())
        after = self._wait()
        kind, text = self._api.results.get_nowait()
        response = json.loads(text)
        if kind != "response" or has_failed(response):
            raise FunctionError(f"{self._folder.name}: {response}\n{self.output()}")
        return response, before, after

    def import_seconds(self) -> dict[str, float]:
        """Return the time of each import so far, without those that it has caused, if traced."""
        found = _IMPORT.findall(_read(self._error))
        return {module.decode(): int(microseconds) / 1e6 for microseconds, module in found}

    def output(self) -> str:
        """Return what the process has printed."""
        return (_read(self._out) + _read(self._error)).decode("utf-8", "replace")

    def _wait(self) -> Moment:
        """Wait until the process asks for an invocation."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                asked = self._api.asked.get(timeout=0.5)
            except queue.Empty:
                if self._process.poll() is None and time.monotonic() < deadline:
                    continue
                raise FunctionError(f"{self._folder.name}\n{self.output()}") from None
            return self._moment(asked)

    def _moment(self, wall: float | None = None) -> Moment:
        return Moment(
            wall=wall if wall is not None else time.perf_counter(),
            cpu=_processor_seconds(self._process.pid),
            memory=_peak_memory(self._process.pid),
            log_lines=_read(self._out).count(b"\n"),
            imports=len(_IMPORT.findall(_read(self._error))),
        )


def _processor_seconds(pid: int) -> float:
    """The processor time of all threads of another process, by the clock that Linux has for it."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def _peak_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(kilobytes) * 1024


def _read(file: Any) -> bytes:
    file.seek(0)
    contents: bytes = file.read()
    return contents


class _Api(HTTPServer):
    """The Runtime API of one process."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.events: queue.Queue[bytes | None] = queue.Queue()
        self.asked: queue.Queue[float] = queue.Queue()
        self.results: queue.Queue[tuple[str, str]] = queue.Queue()
        self.timeout_milliseconds = 0


class _ApiHandler(BaseHTTPRequestHandler):
    server: _Api

    def do_GET(self) -> None:
        """Wait for the next invocation."""
        self.server.asked.put(time.perf_counter())
        event = self.server.events.get()
        if event is None:
            return
        self.send_response(200)
        deadline = int(time.time() * 1000) + self.server.timeout_milliseconds
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:function:live"
        for name, value in {
            "Lambda-Runtime-Aws-Request-Id": "00000000-0000-0000-0000-000000000000",
            "Lambda-Runtime-Deadline-Ms": str(deadline),
            "Lambda-Runtime-Invoked-Function-Arn": arn,
            "Content-Type": "application/json",
            "Content-Length": str(len(event)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        """Receive a response, or an error."""
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.results.put((self.path.rpartition("/")[2], text))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""
