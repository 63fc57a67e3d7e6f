"""How other programs find the local cloud that `make serve` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import running
from local.cloud import CloudError
from local.running import REGISTRATION, logical_id, registered, running_cloud
from tools.template import of_type


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(running, "WORK", tmp_path)
    return tmp_path


def folder(work: Path, name: str) -> Path:
    """A cloud's folder."""
    created = work / f"cloud-{name}"
    created.mkdir()
    return created


class TestRunningCloud:
    def test_is_found_while_it_is_registered(self, work: Path) -> None:
        with registered(folder(work, "a"), "http://127.0.0.1:1"):
            assert running_cloud().endpoint == "http://127.0.0.1:1"

    def test_newest_is_found(self, work: Path) -> None:
        with (
            registered(folder(work, "b"), "http://127.0.0.1:1"),
            registered(folder(work, "a"), "http://127.0.0.1:2"),
        ):
            assert running_cloud().endpoint == "http://127.0.0.1:2"

    def test_killed_cloud_is_not_found(self, work: Path) -> None:
        with registered(folder(work, "a"), "http://127.0.0.1:1"):
            (folder(work, "b") / REGISTRATION).write_text("http://127.0.0.1:2")
            assert running_cloud().endpoint == "http://127.0.0.1:1"
        with pytest.raises(CloudError, match="`make serve`"):
            running_cloud()

    def test_starting_cloud_is_not_found(self, work: Path) -> None:
        folder(work, "starting")
        with pytest.raises(CloudError, match="`make serve`"):
            running_cloud()


def test_every_function_is_in_the_template() -> None:
    assert sorted(map(logical_id, running.FUNCTIONS)) == sorted(
        of_type("AWS::Serverless::Function")
    )
