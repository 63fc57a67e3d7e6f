"""The commands of the documents, and a copy of the project to run them in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from local.cloud import ROOT, WORK

BLOCK = re.compile(
    r"^## (?P<section>[^\n]+)$|"
    r"(?:^<!-- not run: (?P<reason>.*?) -->\n+)?^ *```sh\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
NOT_OF_THE_PROJECT = (".*cache", ".aws-sam", ".build", ".git", ".tools", ".venv", "__pycache__")


@dataclass(frozen=True)
class Block:
    """A block of commands in a document, pasted into a terminal at once."""

    document: str
    section: str
    code: str
    reason: str | None


def blocks(*documents: str) -> Iterator[Block]:
    """All blocks of commands of these documents, in order."""
    for document in documents:
        section = ""
        for found in BLOCK.finditer((ROOT / document).read_text()):
            section = found["section"] or section
            if found["code"]:
                yield Block(document, section, dedent(found["code"]), found["reason"])


def copy_of_the_project(folder: Path) -> Path:
    """Copy the project as it is after a clone, with the packages that are already installed."""
    project = folder / "project"
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(*NOT_OF_THE_PROJECT))
    (WORK / "dependencies").mkdir(exist_ok=True)
    (project / ".build").mkdir()
    (project / ".build" / "dependencies").symlink_to(WORK / "dependencies")
    (project / ".venv").symlink_to(ROOT / ".venv")
    return project
