"""A target that can't run here says so; one that fails, fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import engine, target

UNREACHABLE = [
    'go: module@v1: Get "…": proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused',
    "Could not transfer artifact a:b:pom:1 from/to central (…): transfer failed for …",
    "error: Failed to fetch: `…`\n  cause: error sending request for url (…)",
]
REFUSED = [
    "go: module@v9: reading …: 403 Forbidden\n\tserver response: This version is not available.",
    "Could not transfer artifact a:b:jar:1 from/to central (…): Checksum validation failed",
    "error: Failed to download `a==1`\n  cause: Hash mismatch for `a==1`",
]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        *((message, engine.NotRunError) for message in UNREACHABLE),
        *((message, engine.EngineError) for message in REFUSED),
    ],
)
def test_error_of_registry(message: str, error: type[Exception]) -> None:
    command = [sys.executable, "-c", f"import sys; print({message!r}); sys.exit(1)"]
    with pytest.raises(error):
        engine.fetch(command, registry="the registry")


def run(monkeypatch: pytest.MonkeyPatch, install: object, code: int = 0) -> int:
    """The exit code of a target whose engine is installed so and whose command ends with `code`."""
    command = [sys.executable, "-c", f"import sys; sys.exit({code})"]
    monkeypatch.setitem(target.ENGINES, "docker", install)
    monkeypatch.setattr(sys, "argv", ["target", "test-it", "--needs", "docker", "--", *command])
    return target.main()


def failing_with(error: Exception) -> object:
    def install() -> None:
        raise error

    return install


def test_absent_engine_is_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = failing_with(engine.NotRunError("no engine is running"))
    assert run(monkeypatch, absent, code=1) == 0
    assert capsys.readouterr().out == "NOT RUN: test-it: no engine is running\n"


def test_broken_engine_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, failing_with(engine.EngineError("no such version"))) == 1


@pytest.mark.parametrize("code", [0, 5])
def test_exit_code_is_the_commands(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert run(monkeypatch, lambda: None, code) == code


def test_interrupted_fetch_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), engine.complete_folder(tmp_path / "engine") as building:
        (building / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
