"""Lays one function's folder out as it goes into Lambda: handler, package, dependencies, bytecode.

Run by build.mk for each function that SAM builds::

    python tools/bundle.py create_customer function-stripe .aws-sam/build/CreateCustomer

Dependencies are installed once for each requirements file, pruned and compiled into
``.build/dependencies``, and copied from there: six functions cost two installations, and an
unchanged set costs none.
"""

import compileall
import fcntl
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".build" / "dependencies"
TASK_ROOT = "/var/task"

BOTOCORE_SERVICES = {"dynamodb", "events", "secretsmanager", "sqs", "ssm"}
"""The services that the functions call; the models of all the others are 90 % of botocore."""

UNUSED = ("bin", "boto3/data", "boto3/examples", "stripe/events", "stripe/params")
"""Folders never imported: stripe/params is types alone, stripe/events the thin events' classes."""


def main(function: str, requirements: str, artifacts: str) -> None:
    """Fill the folder `artifacts` with everything that the zip of `function` holds."""
    target = Path(artifacts)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dependencies(requirements), target, copy_function=link_or_copy)
    sources = [ROOT / "functions" / function / "app.py", *sorted((ROOT / "shared").iterdir())]
    for source in sources:
        if source.suffix not in ("", ".py") or source.name == "__pycache__":
            continue
        copy = target / source.name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, copy)
        compile_tree(copy, target)


def link_or_copy(source: str, target: str) -> None:
    """Link a file of the cache, which nothing changes in place, or copy it across file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def dependencies(requirements: str) -> Path:
    """Return the folder with the pruned and compiled packages of ``requirements/<name>.txt``."""
    listed = ROOT / "requirements" / f"{requirements}.txt"
    key = hashlib.sha256(listed.read_bytes() + Path(__file__).read_bytes() + sys.version.encode())
    ready = CACHE / f"{requirements}-{key.hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # SAM builds functions in parallel, and two builds may run in one clone.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                filled = Path(scratch) / "filled"
                install(listed, filled, Path(scratch) / "pip")
                prune(filled)
                compile_tree(filled, filled)
                filled.rename(ready)
    return ready


def install(listed: Path, target: Path, pip: Path) -> None:
    """Install the listed packages, without compiled files so that one build fits every machine."""
    venv.create(pip, with_pip=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    universal = ["--platform", "any", "--implementation", "py", "--abi", "none"]
    command = [str(pip / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", *universal]
    command += ["--python-version", version, f"--target={target}", f"--requirement={listed}"]
    subprocess.run(command, check=True)


def prune(folder: Path) -> None:
    """Remove what no function reads: other services' models, commands, installation records."""
    for models in (folder / "botocore" / "data").iterdir():
        if models.is_dir() and models.name not in BOTOCORE_SERVICES:
            shutil.rmtree(models)
    # METADATA and licences stay: scanners of deployed functions find the packages by them.
    for record in [*folder.glob("*.dist-info/RECORD"), *folder.glob("*.dist-info/INSTALLER")]:
        record.unlink()
    for unused in UNUSED:
        shutil.rmtree(folder / unused, ignore_errors=True)


def compile_tree(path: Path, root: Path) -> None:
    """Compile `path` with paths as they are in Lambda, to bytecode that is never checked.

    SAM gives every file in the zip the same time stamp, so bytecode that is checked against its
    source's time would never be used.
    """
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compile_one = compileall.compile_dir if path.is_dir() else compileall.compile_file
    if not compile_one(
        path, quiet=1, stripdir=root, prependdir=TASK_ROOT, invalidation_mode=unchecked
    ):
        raise SystemExit(f"{path} does not compile")


if __name__ == "__main__":
    main(*sys.argv[1:])
