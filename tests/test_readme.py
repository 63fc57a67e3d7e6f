"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from stripe_integrations.config import API_VERSION
from stripe_integrations.http import _PROBLEMS
from tests.world import World

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def test_the_python_example_runs(world: World) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102
    assert len(world.stripe_customers()) == 1


def test_every_problem_is_told() -> None:
    assert {slug for _, slug, _ in _PROBLEMS.values()} <= set(re.findall(r"`([a-z-]+)`", README))


def test_the_api_version_to_set_is_the_one_that_is_used() -> None:
    assert f"`{API_VERSION}`" in README
