"""What template.yaml promises, read from it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from stripe_integrations import secrets
from stripe_integrations.models.record import Record
from stripe_integrations.stripe_gateway import CONNECT_SECONDS, READ_SECONDS
from tests.replacement import Change, document, transformed
from tests.world import World
from tools.template import ROOT, of_type, template

FUNCTIONS = {
    "create_customer",
    "get_customer",
    "sync_customer",
    "soft_delete_customer",
    "link_customer",
    "apply_event",
    "reconcile_events",
    "replay_events",
    "rebuild_customers",
}


NOTHING = {"Ref": "AWS::NoValue"}
SHARED = template()["Globals"]["Function"]
DEPLOYED = of_type("AWS::Serverless::Function")


def test_every_function_of_the_project_is_deployed() -> None:
    folders = {f["Properties"]["CodeUri"] for f in DEPLOYED.values()}
    assert folders == {f"functions/{name}" for name in FUNCTIONS}
    assert {path.name for path in (ROOT / "functions").iterdir() if path.is_dir()} == FUNCTIONS


def test_every_function_has_a_role_and_a_log_group_of_its_own() -> None:
    for name, function in DEPLOYED.items():
        properties = function["Properties"]
        assert properties["Role"] == {"GetAtt": f"{name}Role.Arn"}
        assert properties["LoggingConfig"]["LogGroup"] == {"Ref": f"{name}Logs"}


@pytest.mark.parametrize("name", DEPLOYED)
def test_a_parameter_that_reaches_a_function_reaches_its_alias(name: str) -> None:
    """A version is published only where its resource changes."""
    properties = DEPLOYED[name]["Properties"]
    settings = {
        **SHARED["Environment"]["Variables"],
        **properties.get("Environment", {}).get("Variables", {}),
        "Runtime": SHARED["Runtime"],
        "Architectures": SHARED["Architectures"],
    }
    assert parameters_in(settings) == parameters_in(properties["VersionDescription"])


def parameters_in(value: object) -> set[str]:
    text = json.dumps(value)
    named = set(re.findall(r'"Ref": "(\w+)"', text)) | set(re.findall(r"\$\{(\w+)\}", text))
    if "UseSsm" in text:
        named.add("SecretStore")
    return named & template()["Parameters"].keys()


def test_the_api_is_closed_unless_a_caller_is_known() -> None:
    routes = of_type("AWS::ApiGatewayV2::Route")
    assert {route["Properties"]["RouteKey"] for route in routes.values()} == {
        "POST /customers",
        "GET /customers/{user_id}",
        "POST /customers/{user_id}/sync",
        "DELETE /customers/{user_id}",
    }
    for route in routes.values():
        assert route["Properties"]["AuthorizationType"] == {"If": ["UseJwt", "JWT", "AWS_IAM"]}
    # IAM is what a stack gets that asks for nothing else.
    assert template()["Conditions"]["UseJwt"] == {"Not": [{"Equals": [{"Ref": "JwtIssuer"}, ""]}]}
    assert template()["Parameters"]["JwtIssuer"]["Default"] == ""


def test_every_way_in_is_throttled() -> None:
    (stage,) = of_type("AWS::ApiGatewayV2::Stage").values()
    settings = stage["Properties"]["DefaultRouteSettings"]
    assert settings["ThrottlingRateLimit"] == {"Ref": "ThrottlingRateLimit"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "ThrottlingBurstLimit"}
    assert "RouteSettings" not in stage["Properties"]
    webhook = DEPLOYED["LinkCustomer"]["Properties"]["ReservedConcurrentExecutions"]
    reserved = ["HasWebhookConcurrency", {"Ref": "WebhookReservedConcurrency"}, NOTHING]
    assert webhook == {"If": ["IsClosed", 0, {"If": reserved}]}
    assert template()["Parameters"]["WebhookReservedConcurrency"]["Default"] == ""


def test_a_closed_stack_runs_what_is_called_by_hand_and_nothing_else() -> None:
    by_hand = {"ReplayEvents", "RebuildCustomers"}
    for name, function in DEPLOYED.items():
        given = {**SHARED, **function["Properties"]}["ReservedConcurrentExecutions"]
        assert given == NOTHING if name in by_hand else given["If"][:2] == ["IsClosed", 0]
    schedule = DEPLOYED["ReconcileEvents"]["Properties"]["Events"]["Schedule"]["Properties"]
    assert schedule["State"] == {"If": ["IsClosed", "DISABLED", "ENABLED"]}
    stream = DEPLOYED["ApplyEvent"]["Properties"]["Events"]["StoredEvents"]["Properties"]
    assert stream["Enabled"] == {"If": ["IsClosed", False, True]}
    assert template()["Parameters"]["Closed"]["Default"] == "false"


def test_the_webhook_may_be_called_by_its_url_in_both_ways_that_lambda_asks_for() -> None:
    resources = transformed(document(), Change())
    (url,) = (r["Properties"] for r in resources.values() if r["Type"] == "AWS::Lambda::Url")
    assert url == {"TargetFunctionArn": {"Ref": "LinkCustomerAliaslive"}, "AuthType": "NONE"}
    public = [
        r["Properties"]
        for r in resources.values()
        if r["Type"] == "AWS::Lambda::Permission" and r["Properties"]["Principal"] == "*"
    ]
    target = {"FunctionName": {"Ref": "LinkCustomerAliaslive"}, "Principal": "*"}
    by_url = {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"}
    by_name = {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True}
    assert public == [{**target, **by_url}, {**target, **by_name}]


def test_no_secret_stands_in_an_environment_variable_or_an_output() -> None:
    text = (ROOT / "template.yaml").read_text()
    assert "{{resolve:" not in text
    for function in DEPLOYED.values():
        own = function["Properties"].get("Environment", {}).get("Variables", {})
        variables = SHARED["Environment"]["Variables"] | own
        # The two that a developer may set at home, in place of the names of the secrets.
        assert not {"STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"} & variables.keys()
    assert not any("NoEcho" in declared for declared in template()["Parameters"].values())
    for output in template()["Outputs"].values():
        assert parameters_in(output["Value"]) == set()


def test_the_table_outlives_the_stack() -> None:
    (table,) = of_type("AWS::DynamoDB::Table").values()
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert table["Properties"]["DeletionProtectionEnabled"]
    assert table["Properties"]["PointInTimeRecoverySpecification"] == {
        "PointInTimeRecoveryEnabled": True
    }


def test_what_is_kept_is_encrypted_with_a_key_of_ones_own_where_there_is_one() -> None:
    (table,) = of_type("AWS::DynamoDB::Table").values()
    own = {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": {"Ref": "KmsKeyArn"}}
    aws_owned = {"SSEEnabled": False}
    assert table["Properties"]["SSESpecification"] == {"If": ["HasKey", own, aws_owned]}
    (queue,) = of_type("AWS::SQS::Queue").values()
    assert queue["Properties"]["KmsMasterKeyId"] == {
        "If": ["HasKey", {"Ref": "KmsKeyArn"}, NOTHING]
    }
    assert queue["Properties"]["SqsManagedSseEnabled"] == {"If": ["HasKey", NOTHING, True]}
    assert template()["Parameters"]["KmsKeyArn"]["Default"] == ""


def test_dead_letters_are_kept_for_14_days_and_events_as_long_as_they_say() -> None:
    (queue,) = of_type("AWS::SQS::Queue").values()
    assert queue["Properties"]["MessageRetentionPeriod"] == 14 * 24 * 3600
    (table,) = of_type("AWS::DynamoDB::Table").values()
    assert table["Properties"]["TimeToLiveSpecification"] == {
        "AttributeName": "expires_at",
        "Enabled": True,
    }


def test_whatever_a_scan_is_told_to_overlook_has_its_reason() -> None:
    overlooked = re.findall(r"checkov:skip=(\w+)(.*)", (ROOT / "template.yaml").read_text())
    assert overlooked
    for rule, reason in overlooked:
        assert re.fullmatch(r":\S.+", reason), rule


def test_the_longest_description_of_a_version_is_one_that_lambda_takes() -> None:
    for name, function in DEPLOYED.items():
        description = function["Properties"]["VersionDescription"]["Sub"]
        longest = re.sub(r"\$\{(\w+)\}", lambda found: "x" * longest_value(found[1]), description)
        assert len(longest.strip()) <= 256, name


def longest_value(name: str) -> int:
    declared = template()["Parameters"][name]
    values = declared.get("AllowedValues") or [declared.get("MaxValue")]
    return int(declared.get("MaxLength") or max(len(str(value)) for value in values))


def test_example_events_are_there_for_every_function() -> None:
    assert {path.stem for path in (ROOT / "events").glob("*.json")} == FUNCTIONS
    for path in (ROOT / "events").glob("*.json"):
        json.loads(path.read_text())


WORST_DATABASE_CALL = (Record.Meta.connect_timeout_seconds + Record.Meta.read_timeout_seconds) * (
    1 + Record.Meta.max_retry_attempts
)
SECRET = (secrets.CONNECT_SECONDS + secrets.READ_SECONDS) * secrets.ATTEMPTS


@pytest.mark.parametrize(
    ("name", "worst"),
    [
        ("GetCustomer", WORST_DATABASE_CALL),
        ("SoftDeleteCustomer", 2 * WORST_DATABASE_CALL),
        ("LinkCustomer", SECRET + 2 * WORST_DATABASE_CALL),
        # What is left after the secret and the claim is shared out by the gateway's deadline.
        ("CreateCustomer", SECRET + WORST_DATABASE_CALL + CONNECT_SECONDS + READ_SECONDS),
        ("ApplyEvent", SECRET + 4 * WORST_DATABASE_CALL),
        ("SyncCustomer", SECRET + WORST_DATABASE_CALL + CONNECT_SECONDS + READ_SECONDS),
    ],
)
def test_the_time_outs_fit_into_the_functions_time(name: str, worst: float) -> None:
    assert worst < DEPLOYED[name]["Properties"]["Timeout"]


def test_the_stream_wakes_for_new_events_and_new_customers(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    world.deliver()
    source = DEPLOYED["ApplyEvent"]["Properties"]["Events"]["StoredEvents"]["Properties"]
    filters = [json.loads(given["Pattern"]) for given in source["FilterCriteria"]["Filters"]]

    woken = [
        item["Keys"]["sk"]["S"].partition("#")[0]
        for item in stream_images(world)
        if any(fits(given, {"eventName": "INSERT", "dynamodb": item}) for given in filters)
    ]

    assert sorted(woken) == ["CUSTOMER", "EVENT", "EVENT"]
    assert not any(
        fits(given, {"eventName": "MODIFY", "dynamodb": item})
        for given in filters
        for item in stream_images(world)
    )


def stream_images(world: World) -> list[dict[str, Any]]:
    """The items of the table, as the stream shows them when they are new."""
    scanned = Record.connection().client.scan(TableName=world.settings.table_name)
    return [
        {"Keys": {"pk": item["pk"], "sk": item["sk"]}, "NewImage": item}
        for item in scanned["Items"]
    ]


def fits(pattern: Any, value: Any) -> bool:
    """Whether a value passes an event filter of exact matches."""
    if isinstance(pattern, list):
        return value in pattern
    return isinstance(value, dict) and all(
        fits(inner, value.get(name)) for name, inner in pattern.items()
    )
