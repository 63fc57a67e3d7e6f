"""Lays one function's folder out as it goes into Lambda: handler, package, dependencies, bytecode.

Run by build.mk for each function that SAM builds::

    python -m tools.bundle create_customer function-stripe .aws-sam/build/CreateCustomer

Dependencies are installed and compiled once for each requirements file, into
``.build/dependencies``, pruned there once for each set of AWS services that functions call, and
linked from there: an unchanged set costs nothing.

Functions that run custom handlers also get their code, packages and botocore models; the webhook's
function gets their declaration alone, by which it knows what to store.
"""

import compileall
import fcntl
import gzip
import hashlib
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Sequence
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from tools.custom_handlers import CustomHandlers

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".build" / "dependencies"
TASK_ROOT = "/var/task"

RUN_HANDLERS = ("apply_event", "reconcile_events", "replay_events")
"""The functions that apply events, and so call custom handlers."""
DECLARE_HANDLERS = ("link_customer",)
"""The functions that only know which types of event have custom handlers."""

READ_NO_SECRET = ("get_customer", "soft_delete_customer")
"""The functions that need neither Stripe's API key nor a signing secret."""
STORE_OBJECTS = ("walk_account",)
"""The functions that use S3."""
LOG_ERASURES = ("erase_customer", "reconcile_events")
"""The functions that write the erasure log, and so call CloudWatch Logs."""

UNUSED = ("bin", "boto3/examples", "stripe/events", "stripe/params", "urllib3/contrib/emscripten")
"""Patterns of folders that are never imported: stripe/params is types alone, stripe/events the thin
events' classes."""

STRIPE_AREAS = (
    "apps",
    "billing_portal",
    "checkout",
    "climate",
    "financial_connections",
    "forwarding",
    "identity",
    "issuing",
    "product_catalog",
    "radar",
    "reporting",
    "reserve",
    "sigma",
    "tax",
    "terminal",
    "treasury",
    "v2/billing",
    "v2/commerce",
    "v2/money_management",
    "v2/test_helpers",
)
"""Folders of Stripe's library, each with an area of the API that the product never calls. Events of
their objects may be listed nevertheless, for `PUBLISH_TYPES`: see `forget_classes`."""
POWERTOOLS_PARTS = (
    "event_handler",
    "logging/formatters",
    "logging/utils.py",
    "metrics/provider/datadog",
    "middleware_factory",
    "shared/cache_dict.py",
    "shared/cookies.py",
    "shared/dynamodb_deserializer.py",
    "shared/headers_serializer.py",
    "utilities/auth_alpha",
    "utilities/batch",
    "utilities/circuit_breaker",
    "utilities/data_classes",
    "utilities/data_masking",
    "utilities/feature_flags",
    "utilities/idempotency",
    "utilities/kafka",
    "utilities/metadata",
    "utilities/parameters",
    "utilities/parser",
    "utilities/streaming",
    "utilities/validation",
)
"""Parts of Powertools beside its logger and its metrics, which the product uses."""
UNUSED_BY_PRODUCT = (
    "boto3*",
    "s3transfer*",
    "dateutil/easter.py",
    "dateutil/rrule.py",
    "dateutil/tz/win.py",
    "dateutil/zoneinfo",
    "urllib3/contrib",
    "urllib3/http2/connection.py",
    *(f"stripe/{area}" for area in STRIPE_AREAS),
    *(f"aws_lambda_powertools/{part}" for part in POWERTOOLS_PARTS),
)
"""What the product never imports, as patterns: only custom handlers may need it."""


def services(function: str) -> set[str]:
    """Return the AWS services that a function calls, as botocore names them."""
    called = {"dynamodb"}
    if function not in READ_NO_SECRET:
        called |= {"secretsmanager", "ssm"}
    if function in RUN_HANDLERS:
        called |= {"events", "sqs"}
    if function in STORE_OBJECTS:
        called.add("s3")
    if function in LOG_ERASURES:
        called.add("logs")
    return called


def main(function: str, requirements: str, artifacts: str) -> None:
    """Fill the folder `artifacts` with everything that the zip of `function` holds."""
    target = Path(artifacts)
    handlers = CustomHandlers.from_environment(ROOT)
    bundled_handlers = handlers if function in RUN_HANDLERS else None
    requirements_files = [ROOT / "requirements" / f"{requirements}.txt"]
    if bundled_handlers and bundled_handlers.requirements:
        requirements_files.append(bundled_handlers.requirements)
    called = services(function).union(bundled_handlers.services if bundled_handlers else ())
    unused = UNUSED if bundled_handlers else (*UNUSED, *UNUSED_BY_PRODUCT)
    installed = dependencies(requirements_files, called, unused)
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
    requirements_files: Sequence[Path], called: Iterable[str], unused: Sequence[str]
) -> Path:
    """Return the folder with the pruned and compiled packages of requirements files.

    Parameters
    ----------
    requirements_files : sequence of Path
        The files: the product's, and that of the custom handlers.
    called : iterable of str
        The AWS services that are called.
    unused : sequence of str
        Patterns of the folders and modules that are left out.
    """
    called = sorted(called)
    return _cached(
        f"{requirements_files[0].stem}-pruned",
        [*requirements_files, Path(__file__)],
        f"{called} {unused}",
        lambda filled, _: _fill_pruned(installed(requirements_files), filled, called, unused),
    )


def installed(requirements_files: Sequence[Path]) -> Path:
    """Return the folder with the packages of requirements files, complete and compiled."""

    def fill(filled: Path, scratch: Path) -> None:
        install(requirements_files, filled, scratch / "pip")
        compile_tree(filled, filled)

    return _cached(requirements_files[0].stem, [*requirements_files, Path(__file__)], "", fill)


def _fill_pruned(source: Path, target: Path, called: Sequence[str], unused: Iterable[str]) -> None:
    shutil.copytree(source, target, copy_function=link_or_copy)
    prune(target, called, unused)


def _cached(
    name: str, files: Iterable[Path], options: str, fill: Callable[[Path, Path], None]
) -> Path:
    """Return a folder of the cache, filled unless files and options are as they were."""
    read = b"".join(path.read_bytes() for path in files)
    key = hashlib.sha256(read + f"{options} {sys.version}".encode())
    ready = CACHE / f"{name}-{key.hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # SAM builds functions in parallel, and two builds may run in one clone.
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                filled = Path(scratch) / "filled"
                fill(filled, Path(scratch))
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


def prune(folder: Path, called: Sequence[str], unused: Iterable[str]) -> None:
    """Remove what no function reads: other services' models, commands, installation records.

    Raises
    ------
    SystemExit
        botocore has no model of a service.
    """
    models = folder / "botocore" / "data"
    for name in called:
        if not (models / name).is_dir():
            raise SystemExit(f"botocore has no service {name}")
    for model in [*models.iterdir(), *folder.glob("boto3/data/*")]:
        if model.is_dir() and model.name not in called:
            shutil.rmtree(model)
    reduce_models(models)
    # METADATA and licences stay: scanners of deployed functions find the packages by them.
    for record in [*folder.glob("*.dist-info/RECORD"), *folder.glob("*.dist-info/INSTALLER")]:
        record.unlink()
    remove(folder, unused)
    if (folder / "stripe").exists():
        forget_classes(folder)


def remove(folder: Path, unused: Iterable[str]) -> None:
    """Remove folders, and modules with their bytecode, that patterns name."""
    for pattern in unused:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
                Path(cache_from_source(path)).unlink(missing_ok=True)


def reduce_models(models: Path) -> None:
    """Reduce botocore's data to what clients read, which they parse in every INIT.

    Its documentation and its examples are most of a model, and the endpoints of other services most
    of the list of endpoints.
    """
    prefixes = set()
    for path in sorted(models.rglob("service-2.json.gz")):
        model = _without_documentation(json.loads(gzip.decompress(path.read_bytes())))
        prefixes.add(model["metadata"]["endpointPrefix"])
        path.unlink()
        path.with_suffix("").write_text(_compact(model))
    for path in models.rglob("examples-1.json*"):
        path.unlink()
    endpoints = json.loads((models / "endpoints.json").read_text())
    for partition in endpoints["partitions"]:
        found = partition["services"]
        partition["services"] = {name: found[name] for name in found if name in prefixes}
    _replace(models / "endpoints.json", _compact(endpoints))


def forget_classes(folder: Path) -> None:
    """Remove the classes whose modules are left out from the list in Stripe's library.

    The library then makes a plain `StripeObject` of such an object, as of one that it doesn't know,
    and the product reads the JSON.
    """

    def is_bundled(module: str) -> bool:
        return folder.joinpath(*module.split(".")).with_suffix(".py").exists()

    path = folder / "stripe" / "_object_classes.py"
    text = path.read_text()
    _replace(path, _OBJECT_CLASS.sub(lambda entry: entry[0] if is_bundled(entry[1]) else "", text))
    compile_tree(path, folder)


def _replace(path: Path, text: str) -> None:
    """Replace a file, which may be a link to one of the cache."""
    path.unlink()
    path.write_text(text)


_OBJECT_CLASS = re.compile(r'^ +"[\w.]+": \(\s*"([\w.]+)",\s*"\w+",?\s*\),\n', re.MULTILINE)


def _without_documentation(value: Any) -> Any:
    """Empty the texts, which botocore reads; a shape may have a member of this name."""
    if isinstance(value, list):
        return [_without_documentation(each) for each in value]
    if not isinstance(value, dict):
        return value
    reduced = {name: _without_documentation(each) for name, each in value.items()}
    if isinstance(reduced.get("documentation"), str):
        reduced["documentation"] = ""
    return reduced


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


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
