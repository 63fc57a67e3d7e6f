"""The dependencies of the actions in a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from stripe_integrations import context
from stripe_integrations.config import Settings


class TestCurrent:
    @pytest.fixture(autouse=True)
    def new_process(self) -> Iterator[None]:
        context._of_process.cache_clear()
        yield
        context._of_process.cache_clear()

    def test_reads_environment_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TABLE_NAME", "from-the-environment")
        assert context.current().settings.table_name == "from-the-environment"
        assert context.current() is context.current()


class TestContext:
    def test_tokens_are_distinct(self) -> None:
        made = context.Context(Settings(table_name="customers"))
        assert len({made.new_token() for _ in range(1000)}) == 1000


def test_import_needs_no_environment_and_loads_no_client() -> None:
    code = (
        "import sys\n"
        "import stripe_integrations.actions, stripe_integrations.entrypoints.http\n"
        "assert not {'stripe', 'requests', 'boto3'} & set(sys.modules), 'loaded too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={})
