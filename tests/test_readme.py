"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from stripe_integrations.config import Settings
from stripe_integrations.entrypoints.http import _PROBLEMS
from stripe_integrations.entrypoints.serialization import customer_to_json
from stripe_integrations.models import Customer
from stripe_integrations.models.fields import fields_of
from tests.world import World

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(world: World) -> None:
    run(EXAMPLES[0], {})
    assert len(world.stripe_customers()) == 1


def run(example: str, names: dict[str, object]) -> None:
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102


def test_every_problem_is_documented() -> None:
    assert {slug for _, slug, _ in _PROBLEMS.values()} <= set(re.findall(r"`([a-z-]+)`", README))


def test_the_fields_of_a_customer_are_those_of_the_table(world: World) -> None:
    paragraph = README.partition("`POST` takes these fields")[2].partition("In `metadata`")[0]
    taken, returned = (
        re.findall(r"`(\w+)`", part) for part in paragraph.split("A customer in a response")
    )
    settable = [name for name, field in fields_of(Customer).items() if field.settable]
    assert sorted(taken) == sorted(settable)
    assert sorted(taken + returned) == sorted(customer_to_json(Customer()))


def test_every_variable_of_the_environment_is_documented() -> None:
    asked: list[str] = []

    class Environment(dict[str, str]):
        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            asked.append(name)
            return "t" if name == "TABLE_NAME" else default

    Settings.from_environment(Environment())
    table = README.partition("| variable |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`([A-Z_]+)`", table)) == sorted(asked)
