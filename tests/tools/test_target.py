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
    'Error response from daemon: Get "…": dial tcp: lookup … on 127.0.0.1:53: no such host',
]
REFUSED = [
    "go: module@v9: reading …: 403 Forbidden\n\tserver response: This version is not available.",
    "Could not find artifact a:b:jar:9 in central (…)",
    "Could not transfer artifact a:b:jar:1 from/to central (…): Checksum validation failed",
    "error: Failed to download `a==1`\n  cause: Hash mismatch for `a==1`",
    "a.go:1:1: syntax error",
]


def client_that_says(message: str) -> list[str]:
    """A registry's client that fails with a message."""
    return [sys.executable, "-c", f"import sys; print({message!r}); sys.exit(1)"]


@pytest.mark.parametrize("message", UNREACHABLE)
def test_a_registry_that_does_not_answer_says_nothing_about_the_product(message: str) -> None:
    with pytest.raises(engine.NotRunError, match="the registry can't be reached"):
        engine.fetch(client_that_says(message), registry="the registry")


@pytest.mark.parametrize("message", REFUSED)
def test_a_registry_that_refuses_is_a_failure(message: str) -> None:
    with pytest.raises(engine.EngineError):
        engine.fetch(client_that_says(message), registry="the registry")


def run(monkeypatch: pytest.MonkeyPatch, install: object, code: int = 0) -> int:
    """The exit code of a target whose engine comes as told and whose command ends with `code`."""
    command = [sys.executable, "-c", f"import sys; sys.exit({code})"]
    monkeypatch.setitem(target.ENGINES, "docker", install)
    monkeypatch.setattr(sys, "argv", ["target", "test-it", "--needs", "docker", "--", *command])
    return target.main()


def failing_with(error: Exception) -> object:
    def install() -> None:
        raise error

    return install


def test_a_target_without_its_engine_says_so_in_one_line_and_succeeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = failing_with(engine.NotRunError("no engine is running"))
    assert run(monkeypatch, absent, code=1) == 0
    assert capsys.readouterr().out == "NOT RUN: test-it: no engine is running\n"


def test_a_target_whose_engine_is_broken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, failing_with(engine.EngineError("no such version"))) == 1


@pytest.mark.parametrize("code", [0, 1, 5])
def test_a_target_ends_as_its_command_does(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert run(monkeypatch, lambda: None, code) == code


def test_an_interrupted_fetch_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    home = tmp_path / "engine"
    with pytest.raises(KeyboardInterrupt), engine.complete_folder(home) as building:
        (building / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
