"""No change of code, of a parameter or of a secret replaces the table, the API or the webhook."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.replacement import KEPT, Change, Json, dangers, document, transformed

TEMPLATE = document()

ANOTHER = {
    "StripeApiKeyName": "other/key",
    "StripeWebhookSecretName": "other/secret",
    "StripeApiBase": "http://127.0.0.1:12111",
    "EventRetentionDays": "365",
    "EventBusName": "billing",
    "ReconcileEveryMinutes": "60",
    "MaximumRecordAgeInSeconds": "600",
    "JwtIssuer": "https://issuer.example.com",
    "JwtAudience": "one,two",
    "JwtAdminScope": "stripe-customers/admin",
    "ThrottlingRateLimit": "1",
    "ThrottlingBurstLimit": "1",
    "WebhookReservedConcurrency": "20",
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-4000-8000-000000000000",
    "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:alarms",
    "RefusedSignaturesPerHour": "1000",
}
"""Another value than the default of every parameter that takes more than a list of values."""


def values(name: str) -> list[str]:
    """Other values of a parameter."""
    declared = TEMPLATE["Parameters"][name]
    allowed = declared.get("AllowedValues")
    if allowed is None:
        return [ANOTHER[name]]
    return [str(value) for value in allowed if value != declared["Default"]]


@pytest.mark.parametrize("name", TEMPLATE["Parameters"])
def test_no_value_of_a_parameter_replaces_what_must_stay(name: str) -> None:
    assert dangers(TEMPLATE, [Change({name: value}) for value in values(name)]) == []


def test_no_code_replaces_what_must_stay() -> None:
    other = Change(code="two")
    assert dangers(TEMPLATE, [other]) == []
    # It is other code to SAM too: each function gets a new version.
    before, after = (transformed(TEMPLATE, change) for change in (Change(), other))
    functions = [r for r in TEMPLATE["Resources"].values() if r["Type"].endswith("::Function")]
    assert len(after.keys() - before.keys()) == len(functions)


def test_all_changes_at_once_replace_nothing_that_must_stay() -> None:
    everything = {name: values(name)[-1] for name in TEMPLATE["Parameters"]}
    assert dangers(TEMPLATE, [Change(everything, "two")]) == []


def test_what_must_stay_is_there() -> None:
    kinds = [resource["Type"] for resource in transformed(TEMPLATE, Change()).values()]
    assert {kind: kinds.count(kind) for kind in KEPT} == dict.fromkeys(KEPT, 1)


def test_the_other_values_are_valid() -> None:
    declared = TEMPLATE["Parameters"]
    assert ANOTHER.keys() == {n for n, given in declared.items() if "AllowedValues" not in given}
    for name, value in ANOTHER.items():
        given = declared[name]
        assert value != str(given["Default"])
        assert re.fullmatch(given.get("AllowedPattern", ".*"), value)
        assert len(value) <= given.get("MaxLength", len(value))
        if given["Type"] == "Number":
            assert given["MinValue"] <= int(value) <= given.get("MaxValue", int(value))


# ---- the check itself ---------------------------------------------------------------------------


def table_named_by_a_parameter(resources: Json) -> None:
    resources["Table"]["Properties"]["TableName"] = {"Ref": "StripeMode"}


def table_named_in_part_by_a_parameter(resources: Json) -> None:
    resources["Table"]["Properties"]["TableName"] = {"Fn::Sub": "customers-${StripeMode}"}


def table_under_a_condition(resources: Json) -> None:
    resources["Table"]["Condition"] = "HasBus"


def keys_under_a_condition(resources: Json) -> None:
    keys = resources["Table"]["Properties"]["KeySchema"]
    resources["Table"]["Properties"]["KeySchema"] = {"Fn::If": ["HasBus", keys, keys[:1]]}


def queue_named_by_what_a_parameter_names(resources: Json) -> None:
    resources["ApiLogs"]["Properties"]["LogGroupName"] = {"Fn::Sub": "/${EventBusName}"}
    resources["DeadLetters"]["Properties"]["QueueName"] = {"Ref": "ApiLogs"}


def queue_named_by_a_version(resources: Json) -> None:
    resources["DeadLetters"]["Properties"]["QueueName"] = {
        "Fn::GetAtt": ["ReplayEvents.Version", "Version"]
    }


def queue_named_by_a_secret(resources: Json) -> None:
    name = "{{resolve:secretsmanager:stripe/api-key}}"
    resources["DeadLetters"]["Properties"]["QueueName"] = name


def api_of_a_protocol_by_parameter(resources: Json) -> None:
    resources["Api"]["Properties"]["ProtocolType"] = {
        "Fn::Sub": ["${Protocol}", {"Protocol": {"Ref": "LogLevel"}}]
    }


def stage_named_by_a_parameter(resources: Json) -> None:
    resources["ApiStage"]["Properties"]["StageName"] = {"Ref": "StripeMode"}


def webhook_function_named_by_a_parameter(resources: Json) -> None:
    resources["LinkCustomer"]["Properties"]["FunctionName"] = {"Fn::Sub": "link-${StripeMode}"}


def webhook_function_under_a_condition(resources: Json) -> None:
    resources["LinkCustomer"]["Condition"] = "HasBus"


def webhook_alias_named_by_a_parameter(resources: Json) -> None:
    resources["LinkCustomer"]["Properties"]["AutoPublishAlias"] = {"Ref": "LogLevel"}


@pytest.mark.parametrize(
    ("broken", "changes", "name"),
    [
        (table_named_by_a_parameter, [], "Table"),
        (table_named_in_part_by_a_parameter, [], "Table"),
        (table_under_a_condition, [], "Table"),
        (keys_under_a_condition, [], "Table"),
        (queue_named_by_what_a_parameter_names, [], "DeadLetters"),
        (queue_named_by_a_version, [Change(code="two")], "DeadLetters"),
        (queue_named_by_a_secret, [], "DeadLetters"),
        (api_of_a_protocol_by_parameter, [], "Api"),
        (stage_named_by_a_parameter, [], "ApiStage"),
        (webhook_function_named_by_a_parameter, [], "LinkCustomerUrl"),
        (webhook_function_under_a_condition, [], "LinkCustomerUrl"),
        # SAM puts the parameter's value into the alias: only another value shows it.
        (webhook_alias_named_by_a_parameter, [Change({"LogLevel": "ERROR"})], "LinkCustomerUrl"),
    ],
)
def test_a_template_that_would_replace_it_is_found_out(
    broken: Callable[[Any], None], changes: list[Change], name: str
) -> None:
    template = document()
    broken(template["Resources"])
    assert any(found.startswith(f"{name} ") for found in dangers(template, changes))
