"""The folder of custom handlers that a build includes, outside the product's own folders.

``EVENT_HANDLERS`` names it, relative to the root of the project or absolute. Its module
`stripe_event_handlers` declares `HANDLERS` and, beside it, `SERVICES`: the AWS services whose
botocore models the handlers need. The build reads the declaration, so that module may import only
the standard library and its own folder.
"""

from __future__ import annotations

import json
import os
import pprint
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DECLARATION = "stripe_event_handlers"

NOT_BUNDLED = ("__pycache__", ".*", "tests", "test_*.py", "conftest.py", "requirements.*")
"""What is left out of the folder: hidden files, tests, and lists of packages."""

_READ_DECLARATION = """
import json, sys
sys.path[:0] = sys.argv[1:]
result, sys.stdout = sys.stdout, sys.stderr
import stripe_event_handlers
from stripe_integrations.config import custom_handlers
services = getattr(stripe_event_handlers, "SERVICES", ())
print(json.dumps([dict(custom_handlers()), services]), file=result)
"""

_READ_UNKNOWN_TYPES = """
import json, sys, typing
patterns = json.loads(sys.argv[1])
sys.path[:0] = sys.argv[2:]
from stripe import Event
from stripe_integrations.config import matches_pattern
types = typing.get_args(Event.__annotations__["type"])
print(json.dumps([p for p in patterns if not any(matches_pattern(t, p) for t in types)]))
"""


@dataclass(frozen=True)
class CustomHandlers:
    """The custom handlers of a deployment, as their folder declares them.

    Parameters
    ----------
    folder : Path
        The folder.
    handlers : dict
        `HANDLERS`: types of event, or patterns of them, to functions.
    services : tuple of str
        `SERVICES`: names of AWS services, as `boto3.client` takes them.
    """

    folder: Path
    handlers: dict[str, str]
    services: tuple[str, ...]

    @classmethod
    def from_environment(cls, root: Path) -> CustomHandlers | None:
        """Read the declaration in the folder that ``EVENT_HANDLERS`` names; None without one.

        Parameters
        ----------
        root : Path
            The root of the project.

        Raises
        ------
        SystemExit
            There is no such folder, or its declaration is invalid.
        """
        named = os.environ.get("EVENT_HANDLERS")
        if not named:
            return None
        folder = (root / named).resolve()
        if not (folder / f"{DECLARATION}.py").is_file():
            raise SystemExit(f"EVENT_HANDLERS: {folder} has no {DECLARATION}.py")
        handlers, services = _isolated(_READ_DECLARATION, folder, root / "shared")
        if not isinstance(services, list) or not all(isinstance(name, str) for name in services):
            raise SystemExit(f"{DECLARATION}.SERVICES must be names like ses and s3")
        return cls(folder, handlers, tuple(services))

    @property
    def requirements(self) -> Path | None:
        """The list of the packages that the handlers need, if there is one."""
        path = self.folder / "requirements.txt"
        return path if path.is_file() else None

    def copy_code(self, target: Path) -> list[Path]:
        """Copy the code into a bundle, and return what was copied at its top level.

        Raises
        ------
        SystemExit
            The bundle has a file of the same name, or a handler's module is missing.
        """
        ignored = shutil.ignore_patterns(*NOT_BUNDLED)
        entries = sorted(path.name for path in self.folder.iterdir())
        names = [name for name in entries if name not in ignored(str(self.folder), entries)]
        for name in names:
            if (target / name).exists():
                raise SystemExit(
                    f"{self.folder / name}: the bundle already has a file of this name"
                )
        shutil.copytree(self.folder, target, ignore=ignored, dirs_exist_ok=True)
        for reference in self.handlers.values():
            module = target.joinpath(*reference.partition(":")[0].split("."))
            if not module.with_name(f"{module.name}.py").is_file() and not module.is_dir():
                raise SystemExit(
                    f"{DECLARATION}.HANDLERS: the bundle has no module for {reference}"
                )
        return [target / name for name in names]

    def write_declaration(self, target: Path) -> list[Path]:
        """Write the declaration alone into a bundle that runs no handler."""
        copy = target / f"{DECLARATION}.py"
        copy.write_text(f"HANDLERS = {pprint.pformat(self.handlers)}\n")
        return [copy]

    def check_types(self, *paths: Path) -> None:
        """Check the types of event against those that the bundled release of Stripe's library has.

        Webhooks and Stripe's list of events have snapshot events only. A thin event (``v1.…``,
        ``v2.…``) reaches an event destination of another kind: its handler would never be called.

        Parameters
        ----------
        *paths : Path
            Folders that have Stripe's library and `stripe_integrations`: the bundle's.

        Raises
        ------
        SystemExit
            A handler is declared for a type that no snapshot event has.
        """
        unknown: list[str] = _isolated(_READ_UNKNOWN_TYPES, json.dumps([*self.handlers]), *paths)
        if unknown:
            raise SystemExit(
                f"{DECLARATION}.HANDLERS: no snapshot event matches {', '.join(unknown)}: the type "
                "is misspelled, or it is a thin event's, which the stack does not receive"
            )


def _isolated(code: str, *arguments: str | Path) -> list[Any]:
    """Run code with the standard library alone; return the JSON that it prints."""
    command = [sys.executable, "-I", "-S", "-B", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise SystemExit(f"{DECLARATION} can't be read: {reason}")
    result: list[Any] = json.loads(done.stdout)
    return result
