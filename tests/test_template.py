"""What template.yaml promises, read from it."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest

from simulation.deployment import mapping_rules
from simulation.mapping import matches
from stripe_integrations import limits
from stripe_integrations.adapters import aws
from stripe_integrations.adapters.stripe_gateway import CONNECT_SECONDS, READ_SECONDS
from stripe_integrations.config import ExistingCustomers, Settings, WebhookIngress
from stripe_integrations.errors import ConfigurationError
from stripe_integrations.models import KINDS, Customer, Owner
from stripe_integrations.models.table import Record
from tests.replacement import Change, create_only, document, transformed
from tests.world import World
from tools.bundle import RUN_HANDLERS
from tools.template import ROOT, of_type, template

FUNCTIONS = {path.name for path in (ROOT / "functions").iterdir() if path.is_dir()}
NOTHING = {"Ref": "AWS::NoValue"}
SHARED = template()["Globals"]["Function"]
DEPLOYED = of_type("AWS::Serverless::Function")
STREAM = DEPLOYED["ApplyEvent"]["Properties"]["Events"]["StoredEvents"]["Properties"]
PARAMETERS: dict[str, Any] = template()["Parameters"]
RUNS = {
    int(minutes): given["Seconds"]
    for minutes, given in template()["Mappings"]["ReconcileTimeout"].items()
}
TEXT = (ROOT / "template.yaml").read_text()


def only(kind: str) -> Any:
    """The properties of the one resource of a type."""
    (resource,) = of_type(kind).values()
    return resource["Properties"]


class TestFunctions:
    def test_are_those_of_the_project(self) -> None:
        folders = {f["Properties"]["CodeUri"] for f in DEPLOYED.values()}
        assert folders == {f"functions/{name}" for name in FUNCTIONS}

    def test_have_a_role_and_a_log_group_each(self) -> None:
        for name, function in DEPLOYED.items():
            properties = function["Properties"]
            assert properties["Role"] == {"GetAtt": f"{name}Role.Arn"}
            assert properties["LoggingConfig"]["LogGroup"] == {"Ref": f"{name}Logs"}

    def test_have_an_example_event_each(self) -> None:
        assert {path.stem for path in (ROOT / "events").glob("*.json")} == FUNCTIONS
        for path in (ROOT / "events").glob("*.json"):
            json.loads(path.read_text())

    @pytest.mark.parametrize("name", DEPLOYED)
    def test_publish_a_version_for_every_parameter(self, name: str) -> None:
        properties = DEPLOYED[name]["Properties"]
        settings = {
            **variables(name),
            "Runtime": SHARED["Runtime"],
            "Architectures": SHARED["Architectures"],
            "SnapStart": SHARED["SnapStart"],
            "Layers": properties.get("Layers"),
            "VpcConfig": properties.get("VpcConfig"),
        }
        description = properties["VersionDescription"]
        numbered = [
            number["Properties"]
            for name, number in of_type("AWS::AppConfig::HostedConfigurationVersion").items()
            if f"${{{name}}}" in json.dumps(description)
        ]
        # Lambda refuses another version for another description alone.
        assert parameters_in(settings) == parameters_in([description, *numbered])

    def test_are_invoked_by_their_alias_alone(self) -> None:
        """SnapStart and a rollback concern published versions."""
        text = json.dumps(template())
        names = "|".join(DEPLOYED)
        assert not re.findall(rf"\$\{{({names})\.Arn\}}(?!:live)", text)
        assert not re.findall(rf'"GetAtt": "({names})\.Arn"', text)
        assert SHARED["AutoPublishAlias"] == "live"

    def test_start_from_snapshots_on_demand(self) -> None:
        assert SHARED["SnapStart"] == {
            "ApplyOn": {"If": ["UsesSnapStart", "PublishedVersions", "None"]}
        }
        on = {"Equals": [{"Ref": "SnapStart"}, "on"]}
        assert template()["Conditions"]["UsesSnapStart"] == on
        assert PARAMETERS["SnapStart"]["Default"] == "off"

    def test_snapshots_need_a_runtime_that_has_them(self) -> None:
        rule = template()["Rules"]["SnapStartHasRuntime"]
        assert rule["RuleCondition"] == {"Equals": [{"Ref": "SnapStart"}, "on"]}
        (needed,) = rule["Assertions"]
        assert needed["Assert"] == {"Not": [{"Equals": [{"Ref": "Runtime"}, "python3.11"]}]}
        assert set(PARAMETERS["Runtime"]["AllowedValues"]) > {"python3.11"}

    @pytest.mark.parametrize("name", DEPLOYED)
    def test_describe_versions_within_256_characters(self, name: str) -> None:
        assert len(longest_text(DEPLOYED[name]["Properties"]["VersionDescription"])) <= 256

    @pytest.mark.parametrize(
        ("name", "condition", "parameters", "functions"),
        [
            (
                "PublishTypesNumber",
                "HasPublishTypes",
                {"PublishTypes"},
                {*RUN_HANDLERS, "link_customer"},
            ),
            # A role is used by every version alike: HandlerPolicyArns is not numbered.
            (
                "HandlerParametersNumber",
                "HasHandlerParameters",
                {
                    "HandlerEnvironment",
                    "HandlerLayerArns",
                    "HandlerSubnetIds",
                    "HandlerSecurityGroupIds",
                },
                set(RUN_HANDLERS),
            ),
        ],
    )
    def test_change_of_long_parameter_publishes_version(
        self, name: str, condition: str, parameters: set[str], functions: set[str]
    ) -> None:
        """AppConfig numbers the values, if there are any, and the description has the number."""
        number = of_type("AWS::AppConfig::HostedConfigurationVersion")[name]
        assert number["Condition"] == condition
        assert parameters_in(number["Properties"]["Content"]) == parameters
        assert "Content" in create_only("AWS::AppConfig::HostedConfigurationVersion")
        value = {"If": [condition, {"GetAtt": f"{name}.VersionNumber"}, ""]}
        described = {
            f["Properties"]["CodeUri"].removeprefix("functions/")
            for f in DEPLOYED.values()
            if json.dumps({name: value})[1:-1] in json.dumps(f["Properties"]["VersionDescription"])
        }
        assert described == functions

    def test_may_store_every_kind(self) -> None:
        declared = PARAMETERS["StoredRecords"]
        every_kind = ",".join(kind.__name__ for kind in KINDS)
        assert re.fullmatch(declared["AllowedPattern"], every_kind)
        assert len(every_kind) <= declared["MaxLength"]

    @pytest.mark.parametrize(
        "patterns",
        [
            "",
            "*",
            "invoice.paid",
            "invoice.*,charge.*,customer.subscription.*",
            "*,payout.paid",
            "invoice",
            "invoice*",
            "*.paid",
            "invoice.paid,",
            "invoice.paid charge.*",
            "v1.billing.meter.no_meter_found",
            "invoice.*,v2.*",
        ],
    )
    def test_parameter_accepts_the_publish_types_of_the_settings(self, patterns: str) -> None:
        declared = PARAMETERS["PublishTypes"]["AllowedPattern"]
        is_allowed = re.fullmatch(declared, patterns) is not None
        environment = {"TABLE_NAME": "customers", "PUBLISH_TYPES": patterns}
        try:
            accepted = Settings.from_environment(environment).publish_types
        except ConfigurationError:
            assert not is_allowed
        else:
            assert is_allowed is (",".join(accepted) == patterns)

    def test_parameter_has_the_values_of_existing_customers(self) -> None:
        declared = PARAMETERS["ExistingCustomers"]
        assert declared["AllowedValues"] == [str(each) for each in ExistingCustomers]
        assert declared["Default"] == Settings(table_name="t").existing_customers

    def test_get_no_secret(self) -> None:
        assert "{{resolve:" not in TEXT
        for name in DEPLOYED:
            # A developer may set these two locally, in place of the names of the secrets.
            assert not {"STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"} & variables(name).keys()
        assert not any("NoEcho" in declared for declared in PARAMETERS.values())
        for output in template()["Outputs"].values():
            assert parameters_in(output["Value"]) == set()


def variables(name: str) -> dict[str, Any]:
    """The environment of a function."""
    own = DEPLOYED[name]["Properties"].get("Environment", {"Variables": {}})
    return {**SHARED["Environment"]["Variables"], **own["Variables"]}


def parameters_in(value: object) -> set[str]:
    text = json.dumps(value)
    named = set(re.findall(r'"Ref": "(\w+)"', text)) | set(re.findall(r"\$\{(\w+)\}", text))
    if "UseSsm" in text:
        named.add("SecretStore")
    if "StoresUnassigned" in text:
        named.add("UnassignedCustomers")
    if "UsesSnapStart" in text:
        named.add("SnapStart")
    if "UseJwt" in text:
        named |= {"JwtIssuer", "CustomersAuthorizer"}
    return named & PARAMETERS.keys()


def longest_text(value: Any) -> str:  # noqa: PLR0911 - a case for each function
    """The longest text that functions of CloudFormation make of the parameters."""
    match value:
        case {"Ref": "StoredRecords"}:
            return ",".join(kind.__name__ for kind in KINDS)
        case {"Ref": name}:
            return "x" * longest_value(name)
        case {"If": [_, *choices]}:
            return max(map(longest_text, choices), key=len)
        case {
            "GetAtt": "PublishTypesNumber.VersionNumber" | "HandlerParametersNumber.VersionNumber"
        }:
            return "9999"
        case {"Join": [separator, {"Split": [old, inner]}]}:
            return str(separator).join(longest_text(inner).split(old))
        case {"Sub": [str(text), variables]}:
            given = {name: longest_text(part) for name, part in variables.items()}
        case {"Sub": str(text)}:
            given = {}
        case _:
            return str(value)
    names = re.findall(r"\$\{(\w+)\}", text)
    given |= {name: longest_text({"Ref": name}) for name in names if name not in given}
    return re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], text).strip()


def longest_value(name: str) -> int:
    declared = PARAMETERS[name]
    values = declared.get("AllowedValues") or [declared.get("MaxValue")]
    return int(declared.get("MaxLength") or max(len(str(value)) for value in values))


WORST_DATABASE_CALL = (Record.Meta.connect_timeout_seconds + Record.Meta.read_timeout_seconds) * (
    1 + Record.Meta.max_retry_attempts
)
SECRET = (aws.CONNECT_SECONDS + aws.READ_SECONDS) * aws.ATTEMPTS
# After the secret and the claim, the gateway divides what is left by its deadline.
STRIPE = SECRET + WORST_DATABASE_CALL + CONNECT_SECONDS + READ_SECONDS


@pytest.mark.parametrize(
    ("name", "worst"),
    [
        ("GetCustomer", WORST_DATABASE_CALL),
        ("SoftDeleteCustomer", 2 * WORST_DATABASE_CALL),
        ("LinkCustomer", SECRET + 2 * WORST_DATABASE_CALL),
        ("CreateCustomer", STRIPE),
        ("ApplyEvent", SECRET + 4 * WORST_DATABASE_CALL),
        ("SyncCustomer", STRIPE),
        ("UpdateCustomer", STRIPE),
        ("AdoptCustomer", STRIPE),
    ],
)
def test_timeouts_of_calls_fit_into_the_function(name: str, worst: float) -> None:
    assert worst < DEPLOYED[name]["Properties"]["Timeout"]


class TestDuration:
    def test_no_invocation_takes_over_five_minutes(self) -> None:
        """A NAT gateway drops a connection that was idle for 350 seconds.

        Of walk_account, only the state machine waits for what takes longer.
        """
        for name, function in DEPLOYED.items():
            given = function["Properties"]["Timeout"]
            longest = 900 if name == "WalkAccount" else 300
            assert max(RUNS.values()) <= 300 if isinstance(given, dict) else given <= longest

    def test_page_of_a_walk_fits_into_an_invocation(self) -> None:
        assert DEPLOYED["WalkAccount"]["Properties"]["Timeout"] > 3 * limits.WALK_PAGE_SECONDS

    def test_run_of_the_schedule_ends_before_the_next(self) -> None:
        given = DEPLOYED["ReconcileEvents"]["Properties"]["Timeout"]
        assert given == {
            "FindInMap": ["ReconcileTimeout", {"Ref": "ReconcileEveryMinutes"}, "Seconds"]
        }
        assert sorted(RUNS) == PARAMETERS["ReconcileEveryMinutes"]["AllowedValues"]
        assert all(seconds < 60 * minutes for minutes, seconds in RUNS.items())

    def test_failed_run_of_the_schedule_is_not_repeated(self) -> None:
        given = DEPLOYED["ReconcileEvents"]["Properties"]["EventInvokeConfig"]
        assert given["MaximumRetryAttempts"] == 0
        assert given["MaximumEventAgeInSeconds"] <= 60 * min(RUNS)


class TestStream:
    def test_batches_run_one_after_the_other_by_default(self) -> None:
        """Concurrent batches of one customer each fetch it: see docs/benchmarks.md."""
        assert STREAM["ParallelizationFactor"] == {"Ref": "ParallelizationFactor"}
        declared = PARAMETERS["ParallelizationFactor"]
        limits = (declared["Default"], declared["MinValue"], declared["MaxValue"])
        assert limits == (1, 1, 10)
        assert STREAM["BatchSize"] == 50


def test_log_group_of_the_api_needs_no_resource_policy() -> None:
    name = template()["Resources"]["ApiLogs"]["Properties"]["LogGroupName"]["Sub"]
    assert name.startswith("/aws/vendedlogs/")


class TestAccess:
    def test_api_authorizes_every_route(self) -> None:
        routes = of_type("AWS::ApiGatewayV2::Route")
        always = {n: r["Properties"] for n, r in routes.items() if "Condition" not in r}
        assert {route["RouteKey"] for route in always.values()} == {
            "POST /customers",
            "GET /customers/{user_id}",
            "PATCH /customers/{user_id}",
            "POST /customers/{user_id}/sync",
            "DELETE /customers/{user_id}",
            "GET /customers",
            "PATCH /customers",
            "POST /customers/sync",
            "DELETE /customers",
            "PUT /customers/{user_id}",
            "PUT /customers",
        }
        for route in always.values():
            assert route["AuthorizationType"] == {"If": ["UseJwt", "JWT", "AWS_IAM"]}
        by_token = {n: r["Properties"] for n, r in routes.items() if r.get("Condition") == "HasJwt"}
        assert {route["RouteKey"] for route in by_token.values()} == {
            "POST /me",
            "GET /me",
            "PATCH /me",
            "POST /me/sync",
        }
        for route in by_token.values():
            assert route["AuthorizationType"] == "JWT"
            assert route["AuthorizerId"] == {"Ref": "JwtAuthorizer"}
        assert routes.keys() - always.keys() - by_token.keys() == {"WebhookRoute"}

    def test_api_uses_iam_unless_parameters_say_otherwise(self) -> None:
        conditions = template()["Conditions"]
        assert conditions["HasJwt"] == {"Not": [{"Equals": [{"Ref": "JwtIssuer"}, ""]}]}
        chosen = {"Equals": [{"Ref": "CustomersAuthorizer"}, "jwt"]}
        assert conditions["UseJwt"] == {"And": [{"Condition": "HasJwt"}, chosen]}
        assert PARAMETERS["JwtIssuer"]["Default"] == ""
        assert PARAMETERS["CustomersAuthorizer"]["Default"] == "iam"

    def test_gateway_may_invoke_function_of_every_route(self) -> None:
        allowed = [
            (p["FunctionName"]["Ref"], p["SourceArn"]["Sub"].partition("/*/")[2])
            for p in (r["Properties"] for r in of_type("AWS::Lambda::Permission").values())
            if p["Principal"] == "apigateway.amazonaws.com"
        ]
        integrations = of_type("AWS::ApiGatewayV2::Integration")
        for route in of_type("AWS::ApiGatewayV2::Route").values():
            target = route["Properties"]["Target"]["Sub"].partition("{")[2].rstrip("}")
            uri = integrations[target]["Properties"]["IntegrationUri"]["Sub"]
            (function,) = re.findall(r"\$\{(\w+)\.Arn\}", uri)
            method, path = route["Properties"]["RouteKey"].split(" ")
            asked = method + path.replace("{user_id}", "*")
            assert any(
                fnmatchcase(asked, pattern)
                for name, pattern in allowed
                if name == f"{function}.Alias"
            ), asked

    def test_web_pages_of_named_origins_may_send_a_jwt_alone(self) -> None:
        condition, cors, otherwise = only("AWS::ApiGatewayV2::Api")["CorsConfiguration"]["If"]
        assert (condition, otherwise) == ("HasCors", NOTHING)
        origins = {"Ref": "CorsAllowedOrigins"}
        assert cors["AllowOrigins"] == {"Split": [",", origins]}
        of_users = ["GET", "PATCH", "POST"]
        assert cors["AllowMethods"]["If"][1:] == [["DELETE", *of_users], of_users]
        assert cors["AllowHeaders"] == ["authorization", "content-type", "idempotency-key"]
        assert "AllowCredentials" not in cors
        assert template()["Conditions"]["HasCors"] == {"Not": [{"Equals": [origins, ""]}]}
        assert PARAMETERS["CorsAllowedOrigins"]["Default"] == ""
        pattern = PARAMETERS["CorsAllowedOrigins"]["AllowedPattern"]
        app = "https://app.example.com"
        for given in ("", "*", app, "http://localhost:3000", f"{app},http://localhost:3000"):
            assert re.fullmatch(pattern, given)
        for other in ("app.example.com", f"{app}/", "https://*.example.com", f"{app},", f"{app},*"):
            assert not re.fullmatch(pattern, other)
        # No browser sends these: it writes an origin in lower case.
        for other in ("https://App.example.com", f"{app},https://WWW.example.com", "HTTPS://a"):
            assert not re.fullmatch(pattern, other)

    def test_api_is_throttled(self) -> None:
        stage = only("AWS::ApiGatewayV2::Stage")
        for name in ("ThrottlingRateLimit", "ThrottlingBurstLimit"):
            assert stage["DefaultRouteSettings"][name] == {"Ref": name}
        assert "RouteSettings" not in stage

    def test_webhook_can_be_throttled(self) -> None:
        reserved = ["HasWebhookConcurrency", {"Ref": "WebhookReservedConcurrency"}, NOTHING]
        given = DEPLOYED["LinkCustomer"]["Properties"]["ReservedConcurrentExecutions"]
        assert given == {"If": ["IsClosed", 0, {"If": reserved}]}
        assert PARAMETERS["WebhookReservedConcurrency"]["Default"] == ""

    def test_webhook_url_has_both_permissions_that_lambda_asks_for(self) -> None:
        resources = transformed(document(), Change())
        (url,) = (r for r in resources.values() if r["Type"] == "AWS::Lambda::Url")
        target = {"TargetFunctionArn": {"Ref": "LinkCustomerAliaslive"}, "AuthType": "NONE"}
        assert url["Properties"] == target
        public = [
            r["Properties"]
            for r in resources.values()
            if r["Type"] == "AWS::Lambda::Permission" and r["Properties"]["Principal"] == "*"
        ]
        target = {"FunctionName": {"Ref": "LinkCustomerAliaslive"}, "Principal": "*"}
        by_url = {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"}
        by_name = {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True}
        assert public == [{**target, **by_url}, {**target, **by_name}]

    def test_closed_stack_runs_only_what_an_operator_invokes(self) -> None:
        by_operator = {"ReplayEvents", "EraseCustomer", "WalkAccount"}
        for name, function in DEPLOYED.items():
            given = {**SHARED, **function["Properties"]}["ReservedConcurrentExecutions"]
            assert given == NOTHING if name in by_operator else given["If"][:2] == ["IsClosed", 0]
        schedule = DEPLOYED["ReconcileEvents"]["Properties"]["Events"]["Schedule"]["Properties"]
        assert schedule["State"] == {"If": ["IsClosed", "DISABLED", "ENABLED"]}
        assert STREAM["Enabled"] == {"If": ["IsClosed", False, True]}
        assert PARAMETERS["Closed"]["Default"] == "false"

    def test_every_suppressed_check_has_its_reason(self) -> None:
        suppressed = re.findall(r"checkov:skip=(\w+)(.*)", TEXT)
        assert suppressed
        for rule, reason in suppressed:
            assert re.fullmatch(r":\S.+", reason), rule


class TestData:
    def test_table_outlives_the_stack(self) -> None:
        (table,) = of_type("AWS::DynamoDB::Table").values()
        assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
        assert table["Properties"]["DeletionProtectionEnabled"]
        recovery = {"PointInTimeRecoveryEnabled": True}
        assert table["Properties"]["PointInTimeRecoverySpecification"] == recovery

    def test_is_encrypted_with_a_kms_key_if_given(self) -> None:
        given = {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": {"Ref": "KmsKeyArn"}}
        table = only("AWS::DynamoDB::Table")
        assert table["SSESpecification"] == {"If": ["HasKey", given, {"SSEEnabled": False}]}
        for queue in (r["Properties"] for r in of_type("AWS::SQS::Queue").values()):
            assert queue["KmsMasterKeyId"] == {"If": ["HasKey", {"Ref": "KmsKeyArn"}, NOTHING]}
            assert queue["SqsManagedSseEnabled"] == {"If": ["HasKey", NOTHING, True]}
        assert PARAMETERS["KmsKeyArn"]["Default"] == ""

    def test_expires(self) -> None:
        queues = of_type("AWS::SQS::Queue")
        assert queues["DeadLetters"]["Properties"]["MessageRetentionPeriod"] == 14 * 24 * 3600
        # These have payloads.
        assert queues["UndeliveredEvents"]["Properties"]["MessageRetentionPeriod"] == 4 * 24 * 3600
        time_to_live = {"AttributeName": "expires_at", "Enabled": True}
        assert only("AWS::DynamoDB::Table")["TimeToLiveSpecification"] == time_to_live


class TestReports:
    BUCKET = of_type("AWS::S3::Bucket")["Reports"]

    def test_outlive_the_stack(self) -> None:
        kept = (self.BUCKET["DeletionPolicy"], self.BUCKET["UpdateReplacePolicy"])
        assert kept == ("Retain", "Retain")

    def test_are_private_and_encrypted(self) -> None:
        properties = self.BUCKET["Properties"]
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
        (rule,) = properties["OwnershipControls"]["Rules"]
        assert rule == {"ObjectOwnership": "BucketOwnerEnforced"}
        (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        with_key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Ref": "KmsKeyArn"}}
        by_default = {"SSEAlgorithm": "AES256"}
        assert rule["ServerSideEncryptionByDefault"] == {"If": ["HasKey", with_key, by_default]}

    def test_are_reached_over_tls_alone(self) -> None:
        (statement,) = only("AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        arn = {"GetAtt": "Reports.Arn"}
        assert statement["Resource"] == [arn, {"Sub": "${Reports.Arn}/*"}]

    def test_expire(self) -> None:
        (rule,) = self.BUCKET["Properties"]["LifecycleConfiguration"]["Rules"]
        assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 90)
        assert "Prefix" not in rule


class TestIngress:
    """Each value of `WebhookIngress` has its own resources, and none of another."""

    @pytest.mark.parametrize(
        ("condition", "names"),
        [
            (
                "HasFunctionUrl",
                {"LinkCustomerUrl", "LinkCustomerUrlPermission", "LinkCustomerInvokePermission"},
            ),
            ("HasWebhookRoute", {"WebhookRoute", "WebhookIntegration", "WebhookPermission"}),
            (
                "UseEventBridge",
                {
                    "StripeEventsRule",
                    "StripeEventsPermission",
                    "LinkCustomerInvokeConfig",
                    "UndeliveredEvents",
                    "UndeliveredEventsPolicy",
                },
            ),
        ],
    )
    def test_has_its_resources(self, condition: str, names: set[str]) -> None:
        resources = template()["Resources"]
        assert {n for n, r in resources.items() if r.get("Condition") == condition} == names
        others = json.dumps([r for r in resources.values() if r.get("Condition") != condition])
        mentioned = {name for name in names if f'"{name}' in others}
        # The function's role lets Lambda send to the queue.
        assert mentioned == ({"UndeliveredEvents"} if condition == "UseEventBridge" else set())

    def test_is_one_of_the_values(self) -> None:
        conditions = template()["Conditions"]
        ingress = {"Ref": "WebhookIngress"}
        assert conditions["HasFunctionUrl"] == {"Equals": [ingress, "function-url"]}
        assert conditions["HasWebhookRoute"] == {"Equals": [ingress, "http-api"]}
        assert conditions["UseEventBridge"]["And"][0] == {"Equals": [ingress, "eventbridge"]}
        values = PARAMETERS["WebhookIngress"]["AllowedValues"]
        assert values == [str(each) for each in WebhookIngress]
        assert PARAMETERS["WebhookIngress"]["Default"] == Settings(table_name="t").webhook_ingress

    def test_public_route_is_the_webhook_alone(self) -> None:
        routes = of_type("AWS::ApiGatewayV2::Route")
        public = {n for n, r in routes.items() if r["Properties"]["AuthorizationType"] == "NONE"}
        assert public == {"WebhookRoute"}
        assert routes["WebhookRoute"]["Properties"]["RouteKey"] == "POST /webhook"

    def test_rule_matches_source_and_is_disabled_while_closed(self) -> None:
        rule = of_type("AWS::Events::Rule")["StripeEventsRule"]["Properties"]
        source = {"Ref": "StripeEventSource"}
        assert rule["EventBusName"] == source
        assert rule["EventPattern"] == {"source": [source]}
        assert rule["State"] == {"If": ["IsClosed", "DISABLED", "ENABLED"]}

    def test_undelivered_event_is_retried_twice_and_queued(self) -> None:
        queue = {"GetAtt": "UndeliveredEvents.Arn"}
        (target,) = of_type("AWS::Events::Rule")["StripeEventsRule"]["Properties"]["Targets"]
        asynchronous = only("AWS::Lambda::EventInvokeConfig")
        for retries in (target["RetryPolicy"], asynchronous):
            assert retries["MaximumRetryAttempts"] == 2
            assert retries["MaximumEventAgeInSeconds"] == 3600
        assert target["DeadLetterConfig"] == {"Arn": queue}
        assert asynchronous["DestinationConfig"] == {"OnFailure": {"Destination": queue}}

    @pytest.mark.parametrize(
        ("source", "accepted"),
        [
            ("", True),
            ("aws.partner/stripe.com/ed_test_61ABCdef", True),
            ("aws.partner/stripe.com/" + "x" * 77, True),
            ("aws.partner/example.com/ed_1", False),
            ("aws.partner/stripe.com/", False),
            ("default", False),
        ],
    )
    def test_event_source_is_stripes(self, source: str, accepted: bool) -> None:
        declared = PARAMETERS["StripeEventSource"]
        matched = re.fullmatch(declared["AllowedPattern"], source)
        assert bool(matched and len(source) <= declared["MaxLength"]) is accepted


def test_stream_has_new_events_and_new_customers_only(world: World) -> None:
    stripe_id = world.create()["json"]["stripe_id"]
    world.request("POST", f"/v1/customers/{stripe_id}", {"name": "Jane"})
    world.deliver()
    walked = Customer.new(Owner(None, "cus_walked"), world.context.now())
    walked.run_id = "1-a"
    walked.save()

    def passed(event_name: str) -> list[str]:
        return [
            item["Keys"]["sk"]["S"].partition("#")[0]
            for item in stream_images(world)
            if any(
                matches({"eventName": event_name, "dynamodb": item}, pattern)
                for pattern in mapping_rules().patterns
            )
        ]

    assert sorted(passed("INSERT")) == ["CUSTOMER", "EVENT", "EVENT"]
    assert passed("MODIFY") == []


def stream_images(world: World) -> list[dict[str, Any]]:
    """The items of the table, as the stream has them when they are new."""
    scanned = Record.connection().client.scan(TableName=world.settings.table_name)
    return [
        {"Keys": {"pk": item["pk"], "sk": item["sk"]}, "NewImage": item}
        for item in scanned["Items"]
    ]
