"""What CloudFormation would replace, or remove, where a parameter, the code or a secret changes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import boto3
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from tools.template import ROOT

REGION = "us-east-1"
KEPT = (
    "AWS::DynamoDB::Table",
    "AWS::SQS::Queue",
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::Lambda::Url",
)

Json = dict[str, Any]

logging.getLogger("samtranslator").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Change:
    """Another deployment of the same template.

    Parameters
    ----------
    parameters : mapping
        Those that differ from their defaults.
    code : str
        Names the artifacts; another name is other code.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    code: str = "one"


def document() -> Json:
    """The template as SAM reads it."""
    parsed: Json = yaml_parse((ROOT / "template.yaml").read_text())
    return parsed


def transformed(template: Json, change: Change) -> dict[str, Json]:
    """The resources that SAM makes of a template, by logical id."""
    copy = deepcopy(template)
    for name, resource in copy["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = f"s3://artifacts/{name}-{change.code}"
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    resources: dict[str, Json] = translator.translate(copy, dict(change.parameters))["Resources"]
    return resources


def dangers(template: Json, changes: Iterable[Change]) -> list[str]:
    """Return what could replace or remove a resource that must stay, in words; nothing is good.

    Each is looked at in two ways: what its create-only properties refer to, whatever the values
    are, and what SAM makes of the template after each change.
    """
    before = transformed(template, Change())
    kept = [name for name, resource in before.items() if resource["Type"] in KEPT]
    found = [
        f"{name} depends on {what}"
        for name in kept
        for what in variables(identity(before, name), before)
    ]
    for change in changes:
        after = transformed(template, change)
        found += [
            f"{name} is another with {change}"
            for name in kept
            if name not in after or identity(after, name) != identity(before, name)
        ]
    return found


def identity(resources: Mapping[str, Json], name: str) -> Json:
    """What a resource is replaced by a change of: its create-only properties, and so on.

    Where one of them names another resource, that one's identity belongs to it.
    """
    resource = resources[name]
    properties = resource.get("Properties", {})
    fixed = {
        key: properties[key] for key in sorted(create_only(resource["Type"])) if key in properties
    }
    return {
        "Type": resource["Type"],
        "Condition": resource.get("Condition"),
        "Properties": fixed,
        "Of": {
            other: identity(resources, other)
            for other in sorted(set(mentioned(fixed)))
            if other in resources
        },
    }


def create_only(kind: str) -> set[str]:
    """Names of the properties that can't be changed in place, as the type's schema says."""
    schema: Json = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
    # Paths as /properties/TableName; of one that goes deeper, the whole property counts.
    lists = ("createOnlyProperties", "conditionalCreateOnlyProperties")
    return {path.split("/")[2] for name in lists for path in schema.get(name, [])}


def variables(fixed: Json, resources: Mapping[str, Json]) -> Iterator[str]:
    """What an identity depends on that another deployment of the stack could have otherwise."""
    if fixed["Condition"] is not None:
        yield f"the condition {fixed['Condition']}"
    for name in mentioned(fixed["Properties"]):
        if name not in resources and not name.startswith("AWS::"):
            yield name
    for inner in fixed["Of"].values():
        yield from variables(inner, resources)


def mentioned(value: object) -> Iterator[str]:
    """Names of resources, parameters and conditions that a value is made from."""
    if isinstance(value, str) and "{{resolve:" in value:
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from mentioned(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _named_by(key, inner)


def _named_by(function: str, argument: Any) -> Iterator[str]:
    if function == "Ref":
        yield argument
    elif function == "Fn::GetAtt":
        yield argument[0] if isinstance(argument, list) else argument.partition(".")[0]
    elif function == "Fn::Sub":
        text, own = argument if isinstance(argument, list) else (argument, {})
        yield from mentioned(own)
        for name in re.findall(r"\$\{([^!}][^}]*)\}", text):
            if name not in own:
                yield name.partition(".")[0]
    elif function == "Fn::If":
        yield f"the condition {argument[0]}"
        yield from mentioned(argument[1:])
    elif function in ("Fn::ImportValue", "Fn::Transform"):
        yield function
    else:
        yield from mentioned(argument)
