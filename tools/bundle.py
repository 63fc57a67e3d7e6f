"""Lays one function's folder out as it goes into Lambda: handler, package, dependencies, bytecode.

Run by build.mk for each function that SAM builds::

    python -m tools.bundle create_customer function-stripe .aws-sam/build/CreateCustomer

Dependencies are installed once for each requirements file, pruned and compiled into
``.build/dependencies``, and copied from there: six functions cost two installations, and an
unchanged set costs none.

Functions that run custom handlers also get their code, packages and botocore models; the webhook's
function gets their declaration alone, by which it knows what to store.
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
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.custom_handlers import CustomHandlers

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".build" / "dependencies"
TASK_ROOT = "/var/task"

BOTOCORE_SERVICES = {"dynamodb", "events", "secretsmanager", "sqs", "ssm"}
"""The services that the product calls; the models of all the others are 90 % of botocore."""

STORE_OBJECTS = ("walk_account",)
"""The functions that use S3: the others do without its model, which is the largest."""

LOG_ERASURES = ("erase_customer", "reconcile_events")
"""The functions that write the erasure log, and so call CloudWatch Logs."""

RUN_HANDLERS = ("apply_event", "reconcile_events", "replay_events")
"""The functions that apply events, and so call custom handlers."""
DECLARE_HANDLERS = ("link_customer",)
"""The functions that only know which types of event have custom handlers."""

UNUSED = ("bin", "boto3/examples", "stripe/events", "stripe/params")
"""Patterns of folders that are never imported: stripe/params is types alone, stripe/events the thin events' classes."""

UNUSED_BY_PRODUCT = ("boto3*", "s3transfer*", "dateutil/zoneinfo")
"""What the product never imports, as patterns: only custom handlers may need it."""


def main(function: str, requirements: str, artifacts: str) -> None:
    """Fill the folder `artifacts` with everything that the zip of `function` holds."""
    target = Path(artifacts)
    handlers = CustomHandlers.from_environment(ROOT)
    bundled_handlers = handlers if function in RUN_HANDLERS else None
    requirements_files = [ROOT / "requirements" / f"{requirements}.txt"]
    if bundled_handlers and bundled_handlers.requirements:
        requirements_files.append(bundled_handlers.requirements)
    services = BOTOCORE_SERVICES.union(
        bundled_handlers.services if bundled_handlers else (),
        {"s3"} if function in STORE_OBJECTS else (),
        {"logs"} if function in LOG_ERASURES else (),
    )
    unused = UNUSED if bundled_handlers else (*UNUSED, *UNUSED_BY_PRODUCT)
    installed = dependencies(requirements_files, services, unused)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(installed, target, copy_function=link_or_copy)
    copied = [target / "app.py", target / "stripe_integrations"]
    shutil.copyfile(ROOT / "functions" / function / "app.py", copied[0])
    package = ROOT / "shared" / "stripe_integrations"
    shutil.copytree(package, copied[1], ignore=shutil.ignore_patterns("__pycache__"))
    if bundled_handlers:
        copied += bundled_handlers.copy_code(target)
        bundled_handlers.check_types(target)
    elif handlers and function in DECLARE_HANDLERS:
        copied += handlers.write_declaration(target)
    for copy in copied:
        compile_tree(copy, target)


def link_or_copy(source: str, target: str) -> None:
    """Link a file of the cache, which nothing changes in place, or copy it across file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def dependencies(
    requirements_files: Sequence[Path], services: Iterable[str], unused: Sequence[str]
) -> Path:
    """Return the folder with the pruned and compiled packages of requirements files.

    Parameters
    ----------
    requirements_files : sequence of Path
        The files: the product's, and that of the custom handlers.
    services : iterable of str
        The AWS services that are called.
    unused : sequence of str
        Patterns of the folders that are left out.
    """
    services = sorted(services)
    read = [path.read_bytes() for path in [*requirements_files, Path(__file__)]]
    key = hashlib.sha256(b"".join(read) + f"{services} {unused} {sys.version}".encode())
    ready = CACHE / f"{requirements_files[0].stem}-{key.hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # SAM builds functions in parallel, and two builds may run in one clone.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                filled = Path(scratch) / "filled"
                install(requirements_files, filled, Path(scratch) / "pip")
                prune(filled, services, unused)
                compile_tree(filled, filled)
                filled.rename(ready)
    return ready


def install(requirements_files: Sequence[Path], target: Path, pip: Path) -> None:
    """Install the listed packages, without compiled files so that one build fits every machine."""
    venv.create(pip, with_pip=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    universal = ["--platform", "any", "--implementation", "py", "--abi", "none"]
    command = [str(pip / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", *universal]
    command += ["--python-version", version, f"--target={target}"]
    command += [f"--requirement={path}" for path in requirements_files]
    subprocess.run(command, check=True)


def prune(folder: Path, services: Iterable[str], unused: Iterable[str]) -> None:
    """Remove what no function reads: other services' models, commands, installation records.

    Raises
    ------
    SystemExit
        botocore has no model of a service.
    """
    models = folder / "botocore" / "data"
    for name in services:
        if not (models / name).is_dir():
            raise SystemExit(f"botocore has no service {name}")
    for model in [*models.iterdir(), *folder.glob("boto3/data/*")]:
        if model.is_dir() and model.name not in services:
            shutil.rmtree(model)
    # METADATA and licences stay: scanners of deployed functions find the packages by them.
    for record in [*folder.glob("*.dist-info/RECORD"), *folder.glob("*.dist-info/INSTALLER")]:
        record.unlink()
    for pattern in unused:
        for path in folder.glob(pattern):
            shutil.rmtree(path)


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
