"""What the documents name is there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.config import API_VERSION
from stripe_integrations.observability import Metric
from stripe_integrations_cli.app import app
from tests.cloudwatch import metrics_of
from tests.world import World
from tools.template import ROOT, of_type, template

README = (ROOT / "README.md").read_text()
FAILURES = (ROOT / "docs" / "failures.md").read_text()
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text()
OPERATE = (ROOT / "docs" / "operate.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
ENVIRONMENTS = {
    name: commands["deploy"]["parameters"]
    for name, commands in tomllib.loads((ROOT / "samconfig.toml").read_text()).items()
    if name not in ("version", "default")
}
COMMANDS = [
    command
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", OPERATE, re.MULTILINE | re.DOTALL)
    for command in block.replace("\\\n", "").splitlines()
]


def test_every_failure_names_a_test_that_is_there() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^ *def (test_\w+)\(", sources, re.MULTILINE))
    assert set(re.findall(r"`(test_\w+)`", FAILURES)) <= defined
    tables = re.findall(r"^\|---.*\n((?:\|.*\n)+)", FAILURES, re.MULTILINE)
    shown = [row.split("|")[-2] for table in tables for row in table.splitlines()]
    assert len(shown) > 40
    assert all("`test_" in cell or "`make simulate`" in cell for cell in shown)


def test_every_target_that_the_documents_name_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = re.findall(r"(?m)(?:^|`)make ([a-z-]+)", "\n".join(p.read_text() for p in PAGES))
    named += re.findall(r"\(`(test-[a-z-]+)`\)", FAILURES)
    assert set(named) <= targets


def test_the_runbook_has_a_line_for_every_alarm_and_for_no_other() -> None:
    (lines,) = tables(OPERATE, "alarm")
    assert keys(lines) == sorted(of_type("AWS::CloudWatch::Alarm"))


def test_the_runbook_has_every_metric_with_its_unit() -> None:
    (lines,) = tables(OPERATE, "metric")
    documented = {name: (unit, meaning) for name, unit, meaning in lines}
    assert documented == {f"`{m.title}`": (m.unit.value, m.meaning) for m in Metric}


def test_every_parameter_is_documented_with_its_default() -> None:
    (lines,) = tables(DEPLOY, "parameter")
    documented = {name: default for name, default, _ in lines}
    parameters = template()["Parameters"]
    assert documented == {f"`{n}`": shown(p.get("Default", "")) for n, p in parameters.items()}


def test_the_environments_are_those_of_samconfig() -> None:
    assert keys(tables(DEPLOY, "")[0]) == sorted(f"--config-env {name}" for name in ENVIRONMENTS)
    for name, stack, mode, api_key, secret, rollout in tables(DEPLOY, "")[0]:
        deploy = ENVIRONMENTS[name.strip("`").removeprefix("--config-env ")]
        defaults = {n: p.get("Default") for n, p in template()["Parameters"].items()}
        given = dict(entry.split("=") for entry in deploy["parameter_overrides"].split())
        chosen = {**defaults, **given}
        assert stack == f"`{deploy['stack_name']}`"
        assert mode == chosen["StripeMode"]
        assert api_key == f"`{chosen['StripeApiKeyName']}`"
        assert secret == f"`{chosen['StripeWebhookSecretName']}`"
        assert rollout == ("step by step" if chosen["Canary"] == "true" else "at once")


def test_the_runbook_has_the_environments_of_samconfig() -> None:
    documented = re.findall(r"ENVIRONMENT=(\S+) STACK=([\w-]+)", OPERATE)
    assert documented == [(name, deploy["stack_name"]) for name, deploy in ENVIRONMENTS.items()]


def test_the_runbooks_commands_go_to_the_environment_that_was_chosen_first() -> None:
    first, *others = COMMANDS
    assert first == "export ENVIRONMENT=dev STACK=stripe-customers-dev"
    text = "\n".join(others)
    assert set(re.findall(r"--config-env (\S+)", text)) == {'"${ENVIRONMENT:?}"'}
    # What stacks, tables and secrets are called: none is spelled out.
    assert not re.findall(r"stripe/|stripe-customers-", text)
    named = r"--(?:stack-name|secret-id|name|table-name|queue-url|table|from|to) (\S+)"
    assert all(value.startswith('"') for value in re.findall(named, text))


def test_the_runbook_changes_nothing_where_a_variable_is_empty() -> None:
    """Its own helpers take their argument, and that may not be empty either."""
    changing = re.compile(
        r"sam deploy|delete-|update-|put-|purge|copy_table|restore-table|webhook delete"
    )
    found = [command for command in COMMANDS if changing.search(command)]
    assert len(found) > 12
    for command in found:
        assert not re.findall(r"\$\w+", command), command


def test_the_table_is_emptied_only_where_the_stack_is_closed() -> None:
    (place,) = (n for n, command in enumerate(COMMANDS) if "--empty-target" in command)
    guard = '   if [ "$(parameter Closed) ${TABLE:?}" = "true $(output TableName)" ]; then'
    assert COMMANDS[place - 1] == guard


def test_what_an_idle_stack_is_charged_for_is_documented() -> None:
    secrets = [name for name in template()["Parameters"] if re.fullmatch(r"Stripe\w+Name", name)]
    always, of_a_canary = (
        [
            len(metrics_of(alarm["Properties"]))
            for alarm in of_type("AWS::CloudWatch::Alarm").values()
            if ("Condition" in alarm) is is_conditional
        ]
        for is_conditional in (False, True)
    )
    charged = {
        "alarms": len(always),
        "custom metrics": len(Metric),
        "routes": sum("Condition" not in r for r in of_type("AWS::ApiGatewayV2::Route").values()),
        "secrets": len(secrets),
    }
    words = " ".join(DEPLOY.split())
    assert f"each of the {sum(always)} metrics that they watch" in words
    assert f"{len(of_a_canary)} more with `Canary=true` ({sum(of_a_canary)} metrics)" in words
    for what, count in charged.items():
        assert f" {count} {what}" in words
    assert len(of_type("AWS::CloudWatch::Dashboard")) == 1
    assert " a dashboard," in DEPLOY


def commands_of(group: Any, *before: str) -> dict[str, Any]:
    """The commands of the command line by their names, those of groups included."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        path = (*before, name)
        is_group = hasattr(command, "commands")
        found |= commands_of(command, *path) if is_group else {" ".join(path): command}
    return found


def test_every_command_is_documented_and_no_other() -> None:
    cells = [cell for table in tables(COMMAND_LINE, "command") for cell, _ in table]
    named = set(re.findall(r"`([a-z -]+[a-z])", " ".join(cells)))
    named |= {
        name for name in ("console", "doctor", "env", "setup") if f"\n`{name}` " in COMMAND_LINE
    }
    assert named == commands_of(get_command(app)).keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_document_calls_is_there(page: Path) -> None:
    commands = commands_of(get_command(app))
    text = page.read_text().replace("\\\n", "")
    for call in re.findall(r"(?m)(?:^ *|`|&& |\$ |\} )stripe-customers (\w[^`\n|;&]*)", text):
        (name,) = [name for name in commands if re.match(rf"{name}(?![\w-])", call)]
        known = {option for each in commands[name].params for option in each.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", call)) <= known, call


def shown(default: object) -> str:
    """How the table of parameters shows a default."""
    return "empty" if default == "" else f"`{default}`"


def test_every_output_is_documented() -> None:
    (lines,) = tables(DEPLOY, "output")
    assert keys(lines) == sorted(template()["Outputs"])


def test_the_events_to_enable_are_those_that_change_something(world: World) -> None:
    (lines,) = tables(DEPLOY, "of")
    in_table = re.findall(r"`([a-z_.]+)`", "".join(line[1] for line in lines))
    assert sorted(in_table) == sorted(applied_event_types())


def test_the_api_version_to_set_is_the_one_that_is_used() -> None:
    assert re.findall(r"\d{4}-\d{2}-\d{2}\.[a-z]+", DEPLOY) == [API_VERSION]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    for name, anchor in links:
        linked = page.parent / name if name else page
        assert linked.exists(), name
        if anchor:
            assert anchor in anchors(linked.read_text()), f"{name}#{anchor}"


def anchors(text: str) -> set[str]:
    """What headings are known by, as GitHub has it."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tables(text: str, first: str) -> list[list[list[str]]]:
    """The cells of the tables whose first column has this title."""
    found = re.findall(rf"^\| ?{first} \|.*\n\|---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        for table in found
    ]


def keys(lines: Iterable[list[str]]) -> list[str]:
    """What stands in the first column, in order of the alphabet."""
    return sorted(line[0].strip("`") for line in lines)
