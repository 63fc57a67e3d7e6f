"""`make serve` in a copy of the project, and a second terminal, as docs/local.md describes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from local.cloud import ROOT, SAM, stack_outputs, work_folder
from local.running import RunningCloud
from tests.documents import blocks, copy_of_the_project

DOCUMENT = "docs/local.md"
TIMEOUT_SECONDS = 600.0

MAKE = """\
#!/bin/sh
# The packages are installed already.
exec {make} -o .venv/ready -o .tools/sam/ready -o .tools/ministack/ready "$@"
"""


def commands(section: str) -> list[str]:
    """The blocks of commands in a section of the document."""
    return [block.code for block in blocks(DOCUMENT) if block.section == section]


@dataclass(frozen=True)
class Terminal:
    """A terminal in the project's folder."""

    project: Path

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run commands in bash until one of them fails."""
        return subprocess.run(
            ["bash", "-euc", code],  # noqa: S607
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def response(self, code: str) -> Any:
        """Run commands that print the response of a function, and return it."""
        done = self.run(code)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    @contextmanager
    def running(self, code: str, until: str) -> Iterator[str]:
        """Run commands until Ctrl-C; yields what they have printed when this text is printed."""
        with NamedTemporaryFile(dir=self.project, suffix=".log", delete=False) as out:
            log = Path(out.name)
            process = subprocess.Popen(
                ["bash", "-euc", code],  # noqa: S607
                cwd=self.project,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while until not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield log.read_text()
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=TIMEOUT_SECONDS)

    @property
    def environment(self) -> dict[str, str]:
        """The caller's variables, without those of an AWS or a Stripe account."""
        path = [self.project / "bin", SAM.parent]
        # As from a terminal: where make runs these tests, MAKE… and ARGS would be set.
        unset = ("AWS_", "STRIPE_", "MAKE", "ARGS")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(unset)}
        return {
            **kept,
            "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
            "NO_PROXY": "localhost,127.0.0.1",
            "no_proxy": "localhost,127.0.0.1",
            "PYTHON": sys.executable,
        }


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Open a terminal in a copy of the project."""
    with work_folder("served") as folder:
        project = copy_of_the_project(folder)
        (project / ".tools").symlink_to(ROOT / ".tools")
        (project / "bin").mkdir()
        make = project / "bin" / "make"
        make.write_text(MAKE.format(make=shutil.which("make")))
        make.chmod(0o755)
        yield Terminal(project)


@contextmanager
def served(opened: Terminal) -> Iterator[RunningCloud]:
    """Serve a local cloud with the command in the document."""
    (command,) = commands("Start the local cloud")
    with opened.running(command, "until Ctrl-C:") as printed:
        (endpoint,) = re.findall(r"^Local AWS +(\S+)", printed, re.MULTILINE)
        yield RunningCloud(endpoint)


def documented_responses() -> dict[str, str]:
    """The response to the example of each function, as the document has it."""
    text = (ROOT / DOCUMENT).read_text()
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE))


def check_response(function: str, response: Any) -> None:
    """Compare a response with the documented one.

    Its numbers in JSON, and ids, are examples; a list may have more ids.
    """
    documented = re.findall(r"`([^`]+)`", documented_responses()[function])
    if "statusCode" in response:
        assert str(response["statusCode"]) in documented, response
        return
    (expected,) = documented
    number = r"\d+"
    pattern = re.sub(r"(?<=: )\d+", lambda _: number, re.escape(expected).replace(r"\ ", " "))
    pattern = pattern.replace('"cus_…"', r'"cus_\w+"(, "cus_\w+")*')
    assert re.fullmatch(pattern, json.dumps(response)), response


def body(response: dict[str, Any]) -> dict[str, Any]:
    """The body of an HTTP response."""
    decoded: dict[str, Any] = json.loads(response["body"])
    return decoded


class ExampleEvent:
    """The Stripe event of the examples, as it is stored."""

    def __init__(self, cloud: RunningCloud) -> None:
        self.table = cloud.client("dynamodb")
        key = {"pk": {"S": "EVENT#evt_1ExampleCustomerUpdated"}, "sk": {"S": "EVENT"}}
        self.location = {"TableName": stack_outputs(cloud.endpoint)["TableName"], "Key": key}

    def __getitem__(self, name: str) -> str:
        """One of its string attributes."""
        found = self.table.get_item(**self.location, ConsistentRead=True)
        value: str = found["Item"][name]["S"]
        return value

    def delete(self) -> None:
        """Delete it, so that it can be stored again."""
        self.table.delete_item(**self.location)


every_function = pytest.mark.parametrize("function", documented_responses())
