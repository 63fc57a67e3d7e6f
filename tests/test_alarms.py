"""What template.yaml promises of alarms, of the dashboard, and of rolling back on alarms."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from stripe_integrations.config import WebhookIngress
from stripe_integrations.observability import NAMESPACE, Metric
from tests.cloudwatch import chosen, metrics_of, route_of
from tests.replacement import Change, document, identity, transformed
from tests.roles import Deployment
from tools.template import ROOT, of_type, template

ALARMS = {name: r["Properties"] for name, r in of_type("AWS::CloudWatch::Alarm").items()}
ON_EXPRESSIONS = sorted(name for name, alarm in ALARMS.items() if "Metrics" in alarm)
FUNCTIONS = of_type("AWS::Serverless::Function")
OF_API = (
    "CreateCustomer",
    "GetCustomer",
    "UpdateCustomer",
    "SyncCustomer",
    "SoftDeleteCustomer",
    "AdoptCustomer",
)
OF_LINK_CUSTOMER = {"FunctionName": {"Ref": "LinkCustomer"}}
OF_WEBHOOK_ROUTE = {
    "ApiId": {"Ref": "Api"},
    "Stage": {"Ref": "ApiStage"},
    "Method": "POST",
    "Resource": "/webhook",
}
VERSION_ALARMS = {n for n, r in of_type("AWS::CloudWatch::Alarm").items() if "Condition" in r}
CONFIG = tomllib.loads((ROOT / "samconfig.toml").read_text())


def metric(alarm: str) -> tuple[str, str]:
    """The metric of an alarm; the first one if the alarm is on an expression."""
    watched = metrics_of(ALARMS[alarm])[0]
    return watched["Namespace"], watched["MetricName"]


def dimensions(alarm: str) -> dict[str, Any]:
    return dimensions_of(metrics_of(ALARMS[alarm])[0])


def dimensions_of(watched: Mapping[str, Any]) -> dict[str, Any]:
    return {d["Name"]: d["Value"] for d in watched["Dimensions"]}


def routes_of(function: str) -> set[str]:
    """The routes of the API that invoke a function."""
    return {
        route["Properties"]["RouteKey"]
        for route in of_type("AWS::ApiGatewayV2::Route").values()
        if f"${{{function}Integration}}" in route["Properties"]["Target"]["Sub"]
    }


class TestAlarms:
    @pytest.mark.parametrize("name", sorted(ALARMS.keys() - VERSION_ALARMS))
    def test_notify_the_topic(self, name: str) -> None:
        alarm = ALARMS[name]
        notified = {"If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
        assert alarm["AlarmActions"] == alarm["OKActions"] == notified

    @pytest.mark.parametrize("name", ALARMS)
    def test_say_how_missing_data_is_treated(self, name: str) -> None:
        assert ALARMS[name]["TreatMissingData"] in {"breaching", "notBreaching", "ignore"}

    @pytest.mark.parametrize("name", ON_EXPRESSIONS)
    def test_watch_one_expression_within_cloudwatchs_quota(self, name: str) -> None:
        queries = ALARMS[name]["Metrics"]
        expressions = [query for query in queries if "Expression" in query]
        metrics = [query for query in queries if "MetricStat" in query]
        assert [q for q in queries if q.get("ReturnData", True)] == expressions[:1]
        assert max(len(expressions), len(metrics)) <= 10
        assert len({query["Id"] for query in queries}) == len(queries)

    @pytest.mark.parametrize("name", ON_EXPRESSIONS)
    def test_first_metric_counts_failures(self, name: str) -> None:
        """The local AWS has no metric math: it watches the first metric instead."""
        alarm = chosen(ALARMS[name], Deployment().holds)
        failures = {"5xx", "Url5xxCount", "Errors", Metric.EVENTS_RECOVERED.title}
        assert metrics_of(alarm)[0]["MetricName"] in failures

    @pytest.mark.parametrize("name", ALARMS)
    def test_name_the_runbook(self, name: str) -> None:
        described = ALARMS[name]["AlarmDescription"]
        assert described.endswith(f" See {name} in docs/operate.md.")

    @pytest.mark.parametrize("function", OF_API)
    def test_count_5xx_of_each_route_of_a_function(self, function: str) -> None:
        """Handlers catch their failures and respond, so Lambda counts no error."""
        watched = metrics_of(ALARMS[f"{function}Errors"])
        for counted in ("5xx", "Count"):
            metrics = [metric for metric in watched if metric["MetricName"] == counted]
            assert {metric["Namespace"] for metric in metrics} == {"AWS/ApiGateway"}
            assert {route_of(metric) for metric in metrics} == routes_of(function) != set()
        for metric in watched:
            of_stage = {"ApiId": {"Ref": "Api"}, "Stage": {"Ref": "ApiStage"}}
            assert dimensions_of(metric).keys() == {"ApiId", "Stage", "Method", "Resource"}
            assert of_stage.items() <= dimensions_of(metric).items()
        # Metrics by route exist only where this is on.
        stage = of_type("AWS::ApiGatewayV2::Stage")["ApiStage"]["Properties"]
        assert stage["DefaultRouteSettings"]["DetailedMetricsEnabled"]

    def test_count_errors_of_each_route(self) -> None:
        routes = {r["Properties"]["RouteKey"] for r in of_type("AWS::ApiGatewayV2::Route").values()}
        assert routes == {"POST /webhook"}.union(*map(routes_of, OF_API))

    @pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {*OF_API, "LinkCustomer"}))
    def test_count_errors_of_each_other_function(self, name: str) -> None:
        assert metric(f"{name}Errors") == ("AWS/Lambda", "Errors")
        assert dimensions(f"{name}Errors") == {"FunctionName": {"Ref": name}}

    @pytest.mark.parametrize(
        ("ingress", "namespace", "errors", "dimensions"),
        [
            (WebhookIngress.FUNCTION_URL, "AWS/Lambda", "Url5xxCount", OF_LINK_CUSTOMER),
            (WebhookIngress.HTTP_API, "AWS/ApiGateway", "5xx", OF_WEBHOOK_ROUTE),
            (WebhookIngress.EVENTBRIDGE, "AWS/Lambda", "Errors", OF_LINK_CUSTOMER),
            (WebhookIngress.NONE, "AWS/Lambda", "Errors", OF_LINK_CUSTOMER),
        ],
    )
    def test_count_errors_of_each_ingress(
        self, ingress: WebhookIngress, namespace: str, errors: str, dimensions: dict[str, Any]
    ) -> None:
        """A webhook responds with 5xx, to the Function URL or the API; EventBridge sees errors."""
        alarm = chosen(ALARMS["LinkCustomerErrors"], Deployment(WebhookIngress=ingress).holds)
        watched = metrics_of(alarm)[0]
        assert (watched["Namespace"], watched["MetricName"]) == (namespace, errors)
        assert dimensions_of(watched) == dimensions

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_count_throttles_of_each_function(self, name: str) -> None:
        assert metric(f"{name}Throttles") == ("AWS/Lambda", "Throttles")
        assert dimensions(f"{name}Throttles") == {"FunctionName": {"Ref": name}}

    @pytest.mark.parametrize(
        ("name", "watched", "statistic"),
        [
            ("ApiSlow", ("AWS/ApiGateway", "Latency"), "p99"),
            ("WebhookSlow", ("AWS/Lambda", "Duration"), "p99"),
            ("DeadLettersWaiting", ("AWS/SQS", "ApproximateNumberOfMessagesVisible"), "Maximum"),
            ("StreamBehind", ("AWS/Lambda", "IteratorAge"), "Maximum"),
            ("SignaturesRefused", (NAMESPACE, Metric.SIGNATURES_REFUSED.title), "Sum"),
            ("InternalErrors", (NAMESPACE, Metric.INTERNAL_ERRORS.title), "Sum"),
            ("EventsUnfinished", (NAMESPACE, Metric.OLDEST_UNFINISHED_EVENT_AGE.title), "Maximum"),
            ("SweepOverdue", (NAMESPACE, Metric.SWEEP_AGE.title), "Maximum"),
            (
                "ReconcileEventsStopped",
                (NAMESPACE, Metric.OLDEST_UNFINISHED_EVENT_AGE.title),
                "SampleCount",
            ),
            ("EventsRecovered", (NAMESPACE, Metric.EVENTS_RECOVERED.title), "Sum"),
            ("EventsMissedByStream", (NAMESPACE, Metric.EVENTS_MISSED_BY_STREAM.title), "Sum"),
            ("StripeRateLimited", (NAMESPACE, Metric.STRIPE_RATE_LIMITED.title), "Sum"),
            ("ApiVersionMismatches", (NAMESPACE, Metric.API_VERSION_MISMATCHES.title), "Sum"),
            ("WalkFailed", ("AWS/States", "ExecutionsFailed"), "Sum"),
        ],
    )
    def test_watch_the_stack(self, name: str, watched: tuple[str, str], statistic: str) -> None:
        assert metric(name) == watched
        assert metrics_of(ALARMS[name])[0]["Stat"] == statistic
        if watched[0] == NAMESPACE:
            assert dimensions(name) == {"service": {"Ref": "AWS::StackName"}}

    def test_watch_the_metrics_of_this_stack(self) -> None:
        variables = template()["Globals"]["Function"]["Environment"]["Variables"]
        assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}

    def test_mapping_counts_its_records(self) -> None:
        stream = FUNCTIONS["ApplyEvent"]["Properties"]["Events"]["StoredEvents"]["Properties"]
        assert stream["MetricsConfig"] == {"Metrics": ["EventCount"]}


(DASHBOARD,) = of_type("AWS::CloudWatch::Dashboard").values()
WIDGETS = json.loads(DASHBOARD["Properties"]["DashboardBody"]["Sub"])["widgets"]


class TestDashboard:
    def test_has_every_alarm_that_is_not_of_a_deployment(self) -> None:
        (alarms,) = (w["properties"]["alarms"] for w in WIDGETS if w["type"] == "alarm")
        assert sorted(alarms) == sorted(f"${{{n}.Arn}}" for n in ALARMS.keys() - VERSION_ALARMS)

    def test_has_every_metric_of_ours_and_every_function(self) -> None:
        lines = [line for w in WIDGETS for line in w["properties"].get("metrics", [])]
        ours = {line[1] for line in lines if line[0] == NAMESPACE}
        assert ours == {metric.title for metric in Metric}
        for name in ("Errors", "Throttles", "Duration"):
            drawn = {line[3] for line in lines if line[:2] == ["AWS/Lambda", name]}
            assert drawn == {f"${{{function}}}" for function in FUNCTIONS}

    def test_has_the_thresholds_of_the_alarms(self) -> None:
        drawn = {
            line["label"]: line["value"]
            for w in WIDGETS
            for line in w["properties"].get("annotations", {}).get("horizontal", [])
        }
        names = ("ApiSlow", "WebhookSlow", "StreamBehind", "EventsUnfinished", "SweepOverdue")
        assert drawn == {name: ALARMS[name]["Threshold"] for name in names}

    def test_has_no_overlapping_widgets(self) -> None:
        cells = [
            (x, y)
            for w in WIDGETS
            for x in range(w["x"], w["x"] + w["width"])
            for y in range(w["y"], w["y"] + w["height"])
        ]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24


@cache
def with_canary(code: str = "one") -> dict[str, Any]:
    """The resources of a stack that shifts traffic step by step."""
    return transformed(document(), Change({"Canary": "true"}, code))


class TestRollout:
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_is_rolled_back_by_alarms_of_the_new_version(self, name: str) -> None:
        resources = with_canary()
        group = resources[f"{name}DeploymentGroup"]["Properties"]
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
        alias = resources[f"{name}Aliaslive"]
        shift = alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
        assert shift["DeploymentGroupName"] == {"Ref": f"{name}DeploymentGroup"}
        new_version = alias["Properties"]["FunctionVersion"]
        condition, alarms, otherwise = group["AlarmConfiguration"]["Fn::If"]
        assert (condition, otherwise) == ("ShiftsTraffic", {})
        assert alarms["Enabled"]
        (alarm,) = (resources[alarm["Name"]["Ref"]] for alarm in alarms["Alarms"])
        assert alarm["Condition"] == "ShiftsTraffic"
        errors, *internal = metrics_of(alarm["Properties"])
        # The dimensions of a version behind a weighted alias.
        assert dimensions_of(errors) == {
            "FunctionName": {"Ref": name},
            "Resource": {"Fn::Sub": f"${{{name}}}:live"},
            "ExecutedVersion": new_version,
        }
        assert (errors["Namespace"], errors["MetricName"]) == ("AWS/Lambda", "Errors")
        # The others respond with their error, which Lambda does not count; these raise it.
        raises = name in ("EraseCustomer", "WalkAccount")
        assert len(internal) == (0 if raises else 1)
        for metric in internal:
            assert metric["Namespace"] == NAMESPACE
            assert metric["MetricName"] == Metric.INTERNAL_ERRORS.title
            assert dimensions_of(metric) == {
                "service": {"Ref": "AWS::StackName"},
                "function_name": {"Ref": name},
                "function_version": new_version,
            }

    @pytest.mark.parametrize("name", sorted(VERSION_ALARMS))
    def test_alarms_have_no_actions(self, name: str) -> None:
        """CodeDeploy reads their state; later errors of the version have alarms of their own."""
        assert not {"AlarmActions", "OKActions"} & ALARMS[name].keys()

    def test_new_version_has_new_alarms(self) -> None:
        """An alarm that is changed keeps its state, which is that of the old version."""
        names = set()
        for name in VERSION_ALARMS:
            (text,) = ALARMS[name]["AlarmName"].values()
            function = name.partition("Version")[0]
            assert f"${{{function}.Version.Version}}" in text
            names.add(text)
        assert len(names) == len(VERSION_ALARMS)
        before, after = with_canary(), with_canary("two")
        for name in VERSION_ALARMS:
            assert identity(before, name) != identity(after, name)

    def test_without_canary_has_no_codedeploy(self) -> None:
        resources = transformed(document(), Change())
        assert not [n for n, r in resources.items() if "CodeDeploy" in r["Type"]]

    def test_environments_differ_as_they_should(self) -> None:
        environments = [parameters_of(name) for name in ("dev", "staging", "prod")]
        for given in environments:
            assert given.keys() <= template()["Parameters"].keys()
            for name, value in given.items():
                allowed = template()["Parameters"][name].get("AllowedValues", [value])
                assert value in map(str, allowed)
        assert [given["Canary"] for given in environments] == ["false", "true", "true"]
        modes = [given.get("StripeMode", "test") for given in environments]
        assert modes == ["test", "test", "live"]
        assert len({given.get("StripeApiKeyName") for given in environments}) == 3
        reserved = [given.get("WebhookReservedConcurrency") for given in environments]
        assert reserved == [None, None, "50"]

    def test_every_resource_is_tagged_with_its_environment(self) -> None:
        for name in ("dev", "staging", "prod"):
            tags = CONFIG[name]["deploy"]["parameters"]["tags"]
            assert tags == f"application=stripe-customers environment={name}"

    def test_build_is_the_same_for_all_environments(self) -> None:
        environments = CONFIG.keys() - {"version"}
        assert [name for name in environments if "build" in CONFIG[name]] == ["default"]
        assert CONFIG["default"]["build"]["parameters"]["cached"] is False
        assert "deploy" not in CONFIG["default"]


def parameters_of(environment: str) -> dict[str, str]:
    given = CONFIG[environment]["deploy"]["parameters"]["parameter_overrides"]
    return dict(re.findall(r"(\w+)=(\S*)", given))
