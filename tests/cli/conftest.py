"""The command line on a stack of moto's CloudFormation, whose functions run in this process."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from stripe_integrations.errors import StripeIntegrationsError
from stripe_integrations_cli.app import app
from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.stack import Stack
from tests.world import World
from tools.template import template

STACK = "stripe-customers-dev"

Json = dict[str, Any]
Run = Callable[..., Result]


def stack_template(world: World, parameters: Json) -> str:
    """A template with the parameters of template.yaml, and constant outputs."""
    outputs = {
        **{name: f"the-{name}" for name, output in template()["Outputs"].items()},
        "TableName": world.settings.table_name,
        "WebhookUrl": "https://hook",
    }
    types = ("Type", "Default")
    return json.dumps(
        {
            "Parameters": {
                name: {key: parameter[key] for key in types if key in parameter}
                | ({"Default": parameters[name]} if name in parameters else {})
                for name, parameter in template()["Parameters"].items()
            },
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
    )


@pytest.fixture
def stack_parameters() -> Json:
    """Parameters of the stack that differ from their defaults."""
    return {}


@pytest.fixture
def stack(
    aws: None, world: World, stack_parameters: Json, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A stack on the world's table; its functions run under their roles, in this process."""

    def invoke(_: Stack, logical_id: str, event: Json) -> Any:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in logical_id).lstrip("_")
        try:
            return world.invoke(importlib.import_module(f"functions.{name}.app"), event, 290_000)
        except StripeIntegrationsError as error:  # Lambda has its type and message alone
            raise CommandError(f"{type(error).__name__}: {error}") from None

    monkeypatch.setattr(Stack, "invoke", invoke)
    monkeypatch.setattr(Stack, "context", property(lambda _: world.context))
    client = boto3.client("cloudformation")
    client.create_stack(StackName=STACK, TemplateBody=stack_template(world, stack_parameters))
    yield STACK
    client.delete_stack(StackName=STACK)


@pytest.fixture
def run(stack: str) -> Run:
    """Run a command as in a pipe: without a terminal for prompts, and without colours."""

    def invoke(*arguments: str, **given: Any) -> Result:
        environment = {"STACK": stack, **given.pop("env", {})}
        return CliRunner().invoke(app, [*arguments], env=environment, **given)

    return invoke


def lines(result: Result) -> list[list[str]]:
    """The columns of what a command printed in a pipe."""
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def objects(result: Result) -> list[Json]:
    """The JSON objects that a command printed."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]
