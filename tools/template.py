"""template.yaml, parsed once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


class _Loader(yaml.SafeLoader):
    """Reads `!Ref X` as {"Ref": "X"}, and the other functions of a template alike."""


def _tagged(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {tag: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {tag: loader.construct_sequence(node, deep=True)}
    raise yaml.YAMLError(f"a mapping is no argument of !{tag}")


_Loader.add_multi_constructor("!", _tagged)


@cache
def template() -> dict[str, Any]:
    """The whole template."""
    parsed: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), Loader=_Loader)  # noqa: S506
    return parsed


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """The resources of a type by their logical ids."""
    return {n: r for n, r in template()["Resources"].items() if r["Type"] == kind}


def table_properties() -> dict[str, Any]:
    """The properties of the table that DynamoDB's CreateTable accepts."""
    (table,) = of_type("AWS::DynamoDB::Table").values()
    taken = ("BillingMode", "KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes")
    return {name: table["Properties"][name] for name in taken}
