"""The functions as they are deployed: built by build.mk, and the sizes of their zips."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

from tools.template import ROOT, of_type

WORK = ROOT / ".build" / "bench"
BUNDLES = WORK / "bundles"
_ENTRY_BYTES = 76
"""The bytes of a zip's entry besides its contents and its name, which it has twice."""
_END_BYTES = 22
_LARGEST = 5


@dataclass(frozen=True)
class Function:
    """A function of template.yaml.

    Parameters
    ----------
    logical_id : str
        Its name in the template, such as GetCustomer.
    name : str
        Its folder, such as get_customer.
    memory : int
        In MB.
    """

    logical_id: str
    name: str
    memory: int


def functions() -> list[Function]:
    """Return the functions of template.yaml, sorted by their folders."""
    found = [
        Function(logical_id, PurePath(properties["CodeUri"]).name, int(properties["MemorySize"]))
        for logical_id, resource in of_type("AWS::Serverless::Function").items()
        for properties in [resource["Properties"]]
    ]
    return sorted(found, key=lambda function: function.name)


def build(project: Path, folder: Path) -> None:
    """Build all functions of a project, each into a folder of its name.

    Raises
    ------
    subprocess.CalledProcessError
        One of them can't be built.
    """

    def build_one(function: Function) -> None:
        artifacts = f"ARTIFACTS_DIR={folder / function.name}"
        target = f"build-{function.logical_id}"
        python = f"PYTHON={sys.base_prefix}/bin/python3"
        command = ["make", "--silent", "-f", "build.mk", target, artifacts, python]
        subprocess.run(command, cwd=project, check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(build_one, functions()))


def build_again(folder: Path) -> None:
    """Build all functions once more from a copy of the project, with newly installed packages."""
    with TemporaryDirectory() as scratch:
        project = Path(scratch) / "project"
        for name in ("functions", "shared", "tools", "requirements"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, project / name, ignore=ignored)
        shutil.copy(ROOT / "build.mk", project)
        build(project, folder)


@dataclass(frozen=True)
class Size:
    """The size of a zip.

    Parameters
    ----------
    zipped, unzipped : int
        In bytes.
    parts : dict
        The largest parts of the zip, in compressed bytes.
    """

    zipped: int
    unzipped: int
    parts: dict[str, int]


def digest(folder: Path) -> str:
    """Return the digest of the files of a folder: their names and their contents."""
    found = hashlib.sha256()
    for path in _files(folder):
        found.update(str(path.relative_to(folder)).encode() + b"\0")
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


class ZipSizes:
    """Computes the sizes of zips; a file that several folders link to is compressed once."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def size(self, folder: Path) -> Size:
        """Return the size of the zip of a folder."""
        zipped, unzipped = _END_BYTES, 0
        parts: Counter[str] = Counter()
        for path in _files(folder):
            name = path.relative_to(folder)
            entry = self._deflated(path) + _ENTRY_BYTES + 2 * len(str(name).encode())
            zipped += entry
            unzipped += path.stat().st_size
            parts[_part(name)] += entry
        return Size(zipped, unzipped, dict(parts.most_common(_LARGEST)))

    def _deflated(self, path: Path) -> int:
        """The compressed size of a file in a zip, in bytes."""
        inode = path.stat().st_ino
        if inode not in self._known:
            # A zip has neither zlib's header of two bytes nor its checksum of four.
            self._known[inode] = len(zlib.compress(path.read_bytes())) - 6
        return self._known[inode]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _part(name: Path) -> str:
    """The part of a bundle that a file belongs to: a package, or botocore's models."""
    parts = name.parts
    if parts[:2] == ("botocore", "data"):
        return "botocore/data"
    return parts[0].removesuffix(".py")
