"""What CloudFormation would replace, or remove, where a parameter, the code or a secret changes."""

from __future__ import annotations

import logging
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
RETAINED = (
    "AWS::DynamoDB::Table",
    "AWS::SQS::Queue",
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::Lambda::Url",
)

OF_ONE_INGRESS = {"LinkCustomerUrl": "HasFunctionUrl", "UndeliveredEvents": "UseEventBridge"}
"""The resources that exist for one value of `WebhookIngress` only, with their conditions."""

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
    """Return what could replace or remove a resource to retain, in words.

    Each is examined in two ways: what its create-only properties refer to, whatever the values
    are, and what SAM makes of the template after each change.
    """
    before = transformed(template, Change())
    retained = [name for name, resource in before.items() if resource["Type"] in RETAINED]
    found = [
        f"{name} depends on {what}"
        for name in retained
        for what in variables(identity(before, name), before)
        if what != f"the condition {OF_ONE_INGRESS.get(name)}"
    ]
    for change in changes:
        after = transformed(template, change)
        found += [
            f"{name} is another with {change}"
            for name in retained
            if name not in after or identity(after, name) != identity(before, name)
        ]
    return found


def identity(resources: Mapping[str, Json], name: str) -> Json:
    """What a resource is replaced with when it changes: its create-only properties above all.

    The identity of a resource that they refer to is part of it.
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
    """What an identity depends on that can differ between two deployments of the stack."""
    if fixed["Condition"] is not None:
        yield f"the condition {fixed['Condition']}"
    for name in mentioned(fixed["Properties"]):
        if name not in resources and not name.startswith("AWS::"):
            yield name
    for inner in fixed["Of"].values():
        yield from variables(inner, resources)


def mentioned(value: object) -> Iterator[str]:
    """What a value is made from: resources and parameters, secrets, and any other function."""
    if isinstance(value, str) and "{{resolve:" in value:
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from mentioned(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref":
                yield inner
            elif key == "Fn::GetAtt":
                yield inner[0] if isinstance(inner, list) else inner.partition(".")[0]
            elif key.startswith("Fn::"):
                yield f"{key} {inner}"
            else:
                yield from mentioned(inner)
