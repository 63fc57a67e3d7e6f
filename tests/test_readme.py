"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stripe_integrations.actions import StripeEvent
from stripe_integrations.config import Settings
from stripe_integrations.context import use
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


def test_the_example_of_a_handler_is_called(
    table_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, declaration, definition = EXAMPLES
    for name, example in (("stripe_event_handlers", declaration), ("billing_hooks", definition)):
        module = ModuleType(name)
        run(example, vars(module))
        monkeypatch.setitem(sys.modules, name, module)
    settings = Settings.from_environment({"TABLE_NAME": table_name})
    handlers = {"invoice.paid": settings.event_handlers["invoice.paid"]}
    world = World(table_name, event_handlers=handlers)
    with use(world.context):
        StripeEvent.receive(
            {
                "id": "evt_1",
                "object": "event",
                "type": "invoice.paid",
                "livemode": False,
                "data": {"object": {"object": "invoice", "id": "in_1"}},
            }
        )
        StripeEvent.apply("evt_1")
    assert capsys.readouterr().out.splitlines()[-1] == "evt_1 in_1 None"


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
