"""The computed size of a zip."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from benchmarks.bundles import ZipSizes, digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "function"
    (root / "botocore" / "data" / "dynamodb").mkdir(parents=True)
    (root / "app.py").write_text("print('hello')\n" * 50)
    (root / "botocore" / "data" / "dynamodb" / "model.json").write_bytes(os.urandom(5000))
    (root / "botocore" / "client.py").write_text("x = 1\n" * 1000)
    return root


def zipped(folder: Path, target: Path) -> int:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target.stat().st_size


class TestZipSizes:
    def test_computes_the_size_of_the_zip(self, folder: Path, tmp_path: Path) -> None:
        size = ZipSizes().size(folder)
        assert size.zipped == zipped(folder, tmp_path / "function.zip")
        assert size.unzipped == 50 * 15 + 5000 + 6000

    def test_has_models_as_a_part(self, folder: Path) -> None:
        assert list(ZipSizes().size(folder).parts) == ["botocore/data", "botocore", "app"]


class TestDigest:
    def test_depends_on_names_and_contents_alone(self, folder: Path) -> None:
        before = digest(folder)
        (folder / "app.py").touch()
        assert digest(folder) == before
        (folder / "app.py").rename(folder / "other.py")
        assert digest(folder) != before
