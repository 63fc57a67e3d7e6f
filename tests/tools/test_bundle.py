"""What goes into a function's zip."""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import bundle
from tools.template import of_type


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one function whose packages are installed without a registry."""

    def install(requirements_files: Sequence[Path], target: Path, pip: Path) -> None:
        for name in (*bundle.BOTOCORE_SERVICES, "ec2", "logs", "s3"):
            for library in ("botocore", "boto3"):
                (target / library / "data" / name).mkdir(parents=True)
        for name in ("stripe", "stripe/params", "stripe-1.dist-info"):
            (target / name).mkdir()
        for name in ("boto3-1.dist-info", "s3transfer", "dateutil/zoneinfo"):
            (target / name).mkdir(parents=True)
            (target / name / "__init__.py").write_text("")
        (target / "stripe" / "__init__.py").write_text("")
        (target / "stripe-1.dist-info" / "RECORD").write_text("")
        (target / "stripe-1.dist-info" / "METADATA").write_text("")

    root = tmp_path / "project"
    (root / "functions" / "greet" / "__pycache__").mkdir(parents=True)
    (root / "functions" / "greet" / "app.py").write_text("from stripe_integrations import word\n")
    (root / "shared" / "stripe_integrations").mkdir(parents=True)
    (root / "shared" / "stripe_integrations" / "__init__.py").write_text("word = 'hello'\n")
    (root / "requirements").mkdir()
    (root / "requirements" / "function.txt").write_text("stripe==1\n")
    monkeypatch.setattr(bundle, "ROOT", root)
    monkeypatch.setattr(bundle, "CACHE", root / ".build")
    monkeypatch.setattr(bundle, "install", install)
    return root


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_holds_handler_package_and_pruned_libraries(project: Path, tmp_path: Path) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))

    tag = sys.implementation.cache_tag
    assert files(tmp_path / "out") == {
        "app.py",
        f"__pycache__/app.{tag}.pyc",
        "stripe_integrations/__init__.py",
        f"stripe_integrations/__pycache__/__init__.{tag}.pyc",
        "stripe/__init__.py",
        f"stripe/__pycache__/__init__.{tag}.pyc",
        "stripe-1.dist-info/METADATA",
    }
    models = {path.name for path in (tmp_path / "out" / "botocore" / "data").iterdir()}
    assert models == bundle.BOTOCORE_SERVICES


def test_holds_s3_where_objects_are_stored(project: Path, tmp_path: Path) -> None:
    (name,) = bundle.STORE_OBJECTS
    (project / "functions" / "greet").rename(project / "functions" / name)
    bundle.main(name, "function", str(tmp_path / "out"))
    models = {path.name for path in (tmp_path / "out" / "botocore" / "data").iterdir()}
    assert models == {*bundle.BOTOCORE_SERVICES, "s3"}


@pytest.mark.parametrize("name", bundle.LOG_ERASURES)
def test_holds_logs_where_erasures_are_logged(project: Path, tmp_path: Path, name: str) -> None:
    (project / "functions" / "greet").rename(project / "functions" / name)
    bundle.main(name, "function", str(tmp_path / "out"))
    models = {path.name for path in (tmp_path / "out" / "botocore" / "data").iterdir()}
    assert models == {*bundle.BOTOCORE_SERVICES, "logs"}


def test_erasures_are_logged_by_the_functions_that_have_the_log_group() -> None:
    logging = {
        Path(function["Properties"]["CodeUri"]).name
        for function in of_type("AWS::Serverless::Function").values()
        if "ERASURE_LOG_GROUP" in function["Properties"].get("Environment", {}).get("Variables", {})
    }
    assert logging == {*bundle.LOG_ERASURES}


def test_bytecode_is_unchecked_and_of_lambdas_paths(project: Path, tmp_path: Path) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))

    compiled = Path(importlib.util.cache_from_source(str(tmp_path / "out" / "app.py")))
    content = compiled.read_bytes()
    (flags,) = struct.unpack("<I", content[4:8])
    assert flags == 0b01, "hash-based, unchecked"
    assert b"/var/task/app.py" in content
    assert str(tmp_path).encode() not in content


def test_change_in_shared_reaches_next_bundle(project: Path, tmp_path: Path) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))
    (project / "shared" / "stripe_integrations" / "__init__.py").write_text("word = 'changed'\n")

    bundle.main("greet", "function", str(tmp_path / "out"))

    shipped = tmp_path / "out" / "stripe_integrations" / "__init__.py"
    assert shipped.read_text() == "word = 'changed'\n"


def test_libraries_are_installed_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))
    monkeypatch.setattr(bundle, "install", None)

    bundle.main("greet", "function", str(tmp_path / "other"))

    assert files(tmp_path / "out") == files(tmp_path / "other")


def test_syntax_error_fails_the_build(project: Path, tmp_path: Path) -> None:
    (project / "functions" / "greet" / "app.py").write_text("def\n")

    with pytest.raises(SystemExit, match="does not compile"):
        bundle.main("greet", "function", str(tmp_path / "out"))
